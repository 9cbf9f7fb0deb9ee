"""Workloads by name: those that people drain, disable and enable, and those that are gone."""

from sqlalchemy import Connection

from meshfed.catalog import claims, overrides
from meshfed.catalog.overrides import Override
from meshfed.catalog.plain import Plain
from meshfed.catalog.store import Catalog
from meshfed.catalog.writing import Writing

NAMED = Plain(
    "select distinct workload, name, provider from workloads"
    " where (name = :name or workload = :name) and valid_to_revision is null"
    " order by workload"
)
LAST = Plain(
    "select name from workloads where workload = :workload"
    " order by valid_from_revision desc limit 1"
)


class Unfound(ValueError):
    """No workload has that name, or several have it; one line."""


async def called(catalog: Catalog, workload: str) -> str:
    """What a workload is called, or was; nothing of one that history does not have. Raises Away."""
    row = await catalog.ask(lambda connection: LAST.row(connection, workload=workload))
    return str(row[0]) if row else ""


async def override(catalog: Catalog, name: str, said: Override | None, who: str) -> bool:
    """Let people's word go before all others' of a workload's health; whether that is news.

    By name or id; None takes it back. Raises Unfound, Away.
    """
    news = False

    def act(writing: Writing) -> None:
        nonlocal news
        news = _override(writing, name, said)

    await catalog.change(act, "an operator's word", who)
    return news


def _override(writing: Writing, name: str, said: Override | None) -> bool:
    """Raises Unfound."""
    workload, known = _named(writing.connection, name)
    before = overrides.standing(writing.connection).get(workload)
    if before == said:
        return False
    if said is None:
        overrides.take_back(writing.connection, workload)
        word = "enabled"
    else:
        overrides.say(writing.connection, workload, said, writing.now)
        word = f"{said.state}: {said.reason}" if said.reason else said.state.value
    writing.tell("workload", known, word)
    claims.judge(writing, workload, word.partition(":")[0])
    return True


def _named(connection: Connection, name: str) -> tuple[str, str]:
    """The id and the name of the one workload that is meant. Raises Unfound."""
    found = NAMED.rows(connection, name=name)
    if not found:
        raise Unfound(f"no workload {name}: see `meshfed get workloads`")
    if len(found) > 1:
        which = ", ".join(f"{id_} ({provider})" for id_, _, provider in found)
        raise Unfound(f"{len(found)} workloads are called {name}; use an id: {which}")
    return found[0][0], found[0][1]
