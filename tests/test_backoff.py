"""However often something failed, there is a next time."""

import pytest

from meshfed.federation.backoff import doubled


@pytest.mark.parametrize(
    ("failures", "seconds"), [(1, 0.5), (2, 1.0), (5, 8.0), (6, 10.0), (1100, 10.0), (10**6, 10.0)]
)
def test_it_is_doubled_until_the_longest_and_for_ever(failures: int, seconds: float) -> None:
    assert doubled(0.5, failures, 10.0) == seconds
