"""One write transaction: its revision, its versions of rows, and what it leaves in `changes`."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Table, bindparam, insert, text, update

from meshfed.catalog.database import stamp
from meshfed.catalog.schema import changes, state

CHANNEL = "meshfed"  # what Postgres notifies followers on

Row = Mapping[str, Any]


class Writing:
    """Allocates a revision when the first thing is changed; nothing changed, nothing is written."""

    def __init__(self, connection: Connection, now: float, cause: str = "", who: str = "") -> None:
        self.connection = connection
        self.now = stamp(now)
        self.cause = cause
        self._who = who
        self._revision: int | None = None
        self._at = ""
        self._changes: list[dict[str, Any]] = []

    def allocate(self) -> int:
        """This transaction's revision; the row stays locked until it ends, so there are no gaps."""
        if self._revision is None:
            self._revision, self._at = self.connection.execute(ALLOCATE, {"now": self.now}).one()
        return self._revision

    @property
    def begun(self) -> bool:
        """Whether anything was changed so far."""
        return self._revision is not None

    @property
    def untold(self) -> bool:
        """Whether this revision leaves no line yet; each must, to be found by its time."""
        return self.begun and not self._changes

    @property
    def at(self) -> str:
        """When this revision was made; never before the one before it, whatever the clock says."""
        self.allocate()
        return self._at

    def present(self) -> tuple[int, str]:
        """This transaction's revision and time; where it makes none, the one that stands, and now.

        A provider's trouble moves no endpoint: it is told under the revision that stands.
        """
        if self._revision is not None:
            return self._revision, self._at
        revision, at = self.connection.execute(TOUCH, {"now": self.now}).one()
        return revision, at

    def shape_moved(self) -> None:
        moved = update(state).values(shape_revision=self.allocate())
        self.connection.execute(moved)

    def begin(self, table: Table, rows: Sequence[Row], change: str = "") -> None:
        """New versions of rows, in force from this revision on."""
        if not rows:
            return
        since = {"valid_from_revision": self.allocate(), "valid_from": self.at}
        versions = [{"change": change, "cause": self.cause, **row, **since} for row in rows]
        self.connection.execute(insert(table), versions)

    def end(self, table: Table, ids: Iterable[int], ended: str = "") -> None:
        """These versions are in force no longer."""
        ending = (
            update(table)
            .where(table.c.id == bindparam("row"))
            .values(valid_to_revision=self.allocate(), valid_to=self.at, ended=ended)
        )
        rows = [{"row": one} for one in ids]
        if rows:
            self.connection.execute(ending, rows)

    def tell(self, what: str, thing: str, change: str, provider: str = "") -> None:
        """One line of `mesh_changes`."""
        self._changes.append(
            {"what": what, "object": thing, "change": change, "provider": provider}
        )

    def finish(self) -> int | None:
        """The revision that followers are told of, if there is one."""
        if self._revision is None and not self._changes:
            return None
        if self._changes:
            revision, at = self.present()
            told = {"revision": revision, "at": at, "cause": self.cause, "who": self._who}
            self.connection.execute(insert(changes), [{**one, **told} for one in self._changes])
        if self._revision is not None and self.connection.dialect.name == "postgresql":
            self.connection.execute(NOTIFY, {"channel": CHANNEL, "revision": str(revision)})
        return self._revision


ALLOCATE = text(
    "update state set revision = revision + 1, at = case when at < :now then :now else at end"
    " where id = 1 returning revision, at"
)
# What is told next must not be of an earlier time, whatever the clock says by then.
TOUCH = text(
    "update state set at = case when at < :now then :now else at end"
    " where id = 1 returning revision, at"
)
NOTIFY = text("select pg_notify(:channel, :revision)")
