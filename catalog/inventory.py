"""Machines that platforms list, in the mesh or not: what is known of one that wants to join."""

import json
from collections.abc import Iterable, Mapping

from meshfed.catalog.plain import Each, Into, Plain, Row
from meshfed.catalog.records import Record
from meshfed.catalog.store import Catalog
from meshfed.catalog.writing import Writing

COLUMNS = ("machine", "resource", "name", "scale_set", "subnet", "address", "tags")
WORDS = ", ".join(COLUMNS)
OF = Plain(f"select {WORDS} from machines where provider = :provider")
FOUND = Plain(f"select {WORDS} from machines where machine = :machine order by provider")
GONE = Each("delete from machines where provider = ? and machine = ?")
NEW = Into("machines", COLUMNS, ("provider",))


class Inventory:
    """What is kept of one catalog's platforms. Every method raises Away."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    async def find(self, machine: str, parent: str) -> Record | None:
        """The one that is attested to be this; `parent`: how its resource must begin."""
        found = await self._catalog.ask(lambda c: FOUND.rows(c, machine=machine))
        return next(
            (each for each in map(_record, found) if each.resource.startswith(parent)), None
        )

    async def of(self, provider: str) -> Mapping[str, Record]:
        """All that a provider lists, by the machine's id."""
        found = await self._catalog.ask(lambda c: OF.rows(c, provider=provider))
        return {each.machine: each for each in map(_record, found)}

    async def write(self, provider: str, gone: Iterable[str], news: Iterable[Record]) -> None:
        """In place of what was kept of these. It moves no revision: no proxy is told of it."""
        over, rows = [(provider, each) for each in gone], [_row(each) for each in news]

        def act(writing: Writing) -> None:
            if over:
                GONE.on(writing.connection, over)
            if rows:
                NEW.on(writing.connection, rows, (provider,))

        await self._catalog.change(act, "what a platform lists")


def _row(one: Record) -> Row:
    own = (one.machine, one.resource, one.name, one.scale_set, one.subnet, one.address)
    return (*own, json.dumps(dict(one.tags)) if one.tags else "")


def _record(row: Row) -> Record:
    tags = tuple(json.loads(row[-1]).items()) if row[-1] else ()
    return Record(**dict(zip(COLUMNS, (*row[:-1], tags), strict=True)))
