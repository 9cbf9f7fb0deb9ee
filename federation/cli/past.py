"""What was, and what has become different since: `get --at`, `history` and `diff`."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from meshfed.federation.cli.output import Finding

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from meshfed.catalog.moment import Moment
    from meshfed.catalog.reader import Answer


def as_it_was(url: str, view: str, order: str, at: str) -> "tuple[Moment, Answer]":
    """The rows of a view at a moment, and which that is."""
    from meshfed.catalog import past
    from meshfed.catalog.moment import named
    from meshfed.federation.cli.source import existing

    def look(connection: "Connection", moment: "Moment") -> "tuple[Moment, Answer]":
        return moment, past.listing(connection, view, order)

    existing(url)
    with _known(url):
        return past.at(url, named(at, datetime.now(UTC)), look)


@contextmanager
def _known(url: str) -> Iterator[None]:
    """Turns a moment of which nothing is known, or a catalog that is away, into a Finding."""
    from meshfed.catalog.moment import Unknown
    from meshfed.federation.cli.source import reachable, unmigrated

    try:
        with reachable():
            yield
    except (Unknown, Finding) as why:
        raise Finding(unmigrated(url) or why) from why
