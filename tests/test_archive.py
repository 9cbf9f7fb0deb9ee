"""A backup opens with its passphrase and in no other way."""

import pytest

from meshfed.federation.certificates.archive import HEADER, Unopenable, locked, unlocked

PLAIN = b"the catalog, and the key of its authority" * 100
PASSPHRASE = "correct horse – Batterie"


@pytest.fixture(scope="module")
def backup() -> bytes:
    return locked(PLAIN, PASSPHRASE)


def test_it_opens_with_its_passphrase(backup: bytes) -> None:
    assert unlocked(backup, PASSPHRASE) == PLAIN


def test_nothing_of_it_is_in_the_clear(backup: bytes) -> None:
    assert PLAIN[:16] not in backup
    assert PASSPHRASE.encode() not in backup


def test_the_same_twice_is_not_the_same_file(backup: bytes) -> None:
    assert locked(PLAIN, PASSPHRASE) != backup


def test_another_passphrase_is_told_from_a_damaged_file(backup: bytes) -> None:
    with pytest.raises(Unopenable, match="passphrase does not open"):
        unlocked(backup, "correct horse")


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        pytest.param(lambda whole: b"", "not a backup", id="empty"),
        pytest.param(lambda whole: b"SQLite format 3\0" * 9, "not a backup", id="another's file"),
        pytest.param(lambda whole: whole[: HEADER - 1], "cut off", id="cut off in its header"),
        pytest.param(lambda whole: whole[:HEADER], "damaged or cut off", id="with nothing in it"),
        pytest.param(lambda whole: whole[:-1], "damaged or cut off", id="cut off by one byte"),
        pytest.param(
            lambda whole: whole[:-1] + bytes([whole[-1] ^ 1]), "damaged", id="with one bit changed"
        ),
        pytest.param(
            lambda whole: whole[: HEADER - 1] + bytes([whole[HEADER - 1] ^ 1]) + whole[HEADER:],
            "damaged",
            id="with a bit of its header changed",
        ),
    ],
)
def test_a_file_is_not_opened(backup: bytes, damage, why: str) -> None:
    with pytest.raises(Unopenable, match=why):
        unlocked(damage(backup), PASSPHRASE)
