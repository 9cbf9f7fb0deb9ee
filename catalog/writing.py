"""One write transaction: its revision, its versions of rows, and what it leaves in `changes`."""

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from sqlalchemy import Connection

from meshfed.catalog.database import stamp
from meshfed.catalog.differences import Difference
from meshfed.catalog.plain import Into, Plain, Row
from meshfed.catalog.versions import Versions

V = TypeVar("V")

CHANNEL = "meshfed"  # what Postgres notifies followers on


class Writing:
    """Allocates a revision when the first thing is changed; nothing changed, nothing is written."""

    def __init__(self, connection: Connection, now: float, cause: str = "", who: str = "") -> None:
        self.connection = connection
        self.now = stamp(now)
        self.cause = cause
        self._who = who
        self._revision: int | None = None
        self._at = ""
        self._reshaped = False
        self._changes: list[tuple[str, str, str, str, str]] = []

    def allocate(self) -> int:
        """This transaction's revision; the row stays locked until it ends, so there are no gaps."""
        if self._revision is None:
            self._revision, self._at = ALLOCATE.rows(self.connection, now=self.now)[0]
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
        revision, at = TOUCH.rows(self.connection, now=self.now)[0]
        return revision, at

    def shape_moved(self) -> None:
        if not self._reshaped:
            SHAPE.run(self.connection, revision=self.allocate())
            self._reshaped = True

    def begin(self, versions: Versions, rows: Sequence[Row], change: str) -> None:
        """New versions of rows, in force from this revision on."""
        if rows:
            began = (change, self.cause, self.allocate(), self._at)
            # In the order of their keys: indexes take many rows in any other order far more slowly.
            versions.began.on(self.connection, sorted(rows), began)

    def end(self, versions: Versions, keys: Iterable[Row], ended: str = "") -> None:
        """What is in force under these keys is so no longer."""
        if there := tuple(keys):
            versions.ended.on(self.connection, there, (self.allocate(), self._at, ended))

    def replace(
        self,
        versions: Versions,
        moved: Sequence[tuple[Row, Difference[str, V]]],
        row: Callable[[Row, V], Row],
    ) -> None:
        """Versions end and begin; a key's first values stand beside what differs under them."""
        left = ((*mine, key) for mine, each in moved for key, _ in each.left)
        altered = ((*mine, key) for mine, each in moved for key, *_ in each.altered)
        self.end(versions, left, "left")
        self.end(versions, altered)
        joined = [row(mine, value) for mine, each in moved for _, value in each.joined]
        changed = [row(mine, value) for mine, each in moved for *_, value in each.altered]
        self.begin(versions, joined, "joined")
        self.begin(versions, changed, "changed")

    def tell(self, what: str, thing: str, change: str, provider: str = "", who: str = "") -> None:
        """One line of `mesh_changes`; where several write together, of one of them."""
        self._changes.append((what, thing, change, provider, who or self._who))

    def finish(self) -> int | None:
        """The revision that followers are told of, if there is one."""
        if self._revision is None and not self._changes:
            return None
        if self._changes:
            revision, at = self.present()
            CHANGES.on(self.connection, self._changes, (revision, at, self.cause))
        if self._revision is not None and self.connection.dialect.name == "postgresql":
            NOTIFY.rows(self.connection, channel=CHANNEL, revision=str(self._revision))
        return self._revision


ALLOCATE = Plain(
    "update state set revision = revision + 1, at = case when at < :now then :now else at end"
    " where id = 1 returning revision, at"
)
# What is told next must not be of an earlier time, whatever the clock says by then.
TOUCH = Plain(
    "update state set at = case when at < :now then :now else at end"
    " where id = 1 returning revision, at"
)
SHAPE = Plain("update state set shape_revision = :revision where id = 1")
CHANGES = Into(
    "changes", ("what", "object", "change", "provider", "who"), ("revision", "at", "cause")
)
NOTIFY = Plain("select pg_notify(:channel, :revision)")
