"""Virtual IPs: an address for each service to which no platform gives one, the same for life.

A service has a number, and its addresses are those of that number in the mesh's ranges. It keeps
the number when it goes, so that it has it again when it comes back; another one gets it when
there is none left that nobody ever had, and not before whoever still knows it has forgotten it.
"""

from collections.abc import Iterable, Mapping, Sequence

from sqlalchemy import Connection

from meshfed.catalog.plain import Into, Plain
from meshfed.catalog.ranges import Ranges
from meshfed.catalog.times import seconds, stamp
from meshfed.catalog.writing import Writing

RESTS = 86_400.0  # seconds for which an address is nobody's: DNS and connection pools forget it

HELD = Plain("select service, number, left_at from virtual_ips where service $among(names)")
HIGHEST = Plain("select coalesce(max(number), 0) from virtual_ips where number <= :most")
RESTED = Plain(
    "select service, number from virtual_ips where left_at <> '' and left_at < :before"
    " and number <= :most order by left_at, number limit :many"
)
FORGOTTEN = Plain("delete from virtual_ips where service $among(names)")
LEFT = Plain("update virtual_ips set left_at = :at where service $among(names)")
GIVEN = Into("virtual_ips", ("service", "number"))
RANGES = Plain("select virtual_ranges from state where id = 1")


def ranges(connection: Connection) -> Ranges:
    return Ranges.parse(RANGES.rows(connection)[0][0])


def give(
    writing: Writing, there: Iterable[str], gone: Iterable[str]
) -> Mapping[str, tuple[str, ...]]:
    """The addresses of services that are there; those of others begin their rest.

    Within a transaction that has its revision: the numbers are locked with it. Where the ranges
    are full a service has none, and a line says so.
    """
    needing, leaving = sorted(there), sorted(gone)
    its = ranges(writing.connection)
    held = {
        service: (number, left_at)
        for service, number, left_at in HELD.rows(writing.connection, names=[*needing, *leaving])
    }
    if rests := [name for name in leaving if name in held and not held[name][1]]:
        LEFT.run(writing.connection, names=rests, at=writing.now)
    if back := [name for name in needing if name in held and held[name][1]]:
        LEFT.run(writing.connection, names=back, at="")
    numbers = {name: held[name][0] for name in needing if name in held}
    numbers = {name: number for name, number in numbers.items() if number <= its.most}
    if its.of and (new := [name for name in needing if name not in numbers]):
        numbers |= _new(writing, new, its)
    return {name: its.addresses(number) for name, number in numbers.items()}


def room(writing: Writing, many: int) -> int:
    """For how many services there are numbers, of so many."""
    return len(_free(writing.connection, writing.now, many, ranges(writing.connection).most))


def _new(writing: Writing, names: Sequence[str], its: Ranges) -> dict[str, int]:
    """Numbers for services that have none, as far as there are any."""
    free = _free(writing.connection, writing.now, len(names), its.most)
    given = dict(zip(names, free, strict=False))
    # What these had in a wider range, and whoever had the numbers long ago.
    former = [service for service in free.values() if service]
    FORGOTTEN.run(writing.connection, names=[*given, *former])
    GIVEN.on(writing.connection, sorted(given.items()))
    for name in names:
        if name not in given:
            writing.tell("service", name, f"no virtual IP: {its} is full: widen it")
    return given


def _free(connection: Connection, now: str, many: int, most: int) -> dict[int, str]:
    """Numbers, with whose they were: of nobody first, then of who has been gone the longest."""
    ((highest,),) = HIGHEST.rows(connection, most=most)
    free = dict.fromkeys(range(highest + 1, min(highest + many, most) + 1), "")
    if lacking := many - len(free):
        before = stamp(seconds(now) - RESTS)
        rested = RESTED.rows(connection, before=before, most=most, many=lacking)
        free |= {number: service for service, number in rested}
    return free
