"""The entries that providers left out, found by any of the names that they stand for."""

import re
from collections.abc import Iterator

from meshfed.catalog.model import Endpoint, Rejected
from meshfed.federation.explain.facts import Facts
from meshfed.federation.explain.step import Step, failing

WORDS = re.compile(r"[^\s/:,]+")


def left_out(facts: Facts, about: str, *names: str) -> Iterator[Step]:
    """What was left out and has one of these names; nothing, if all that has them was taken in."""
    for (provider, scope), several in facts.bearings.rejected.items():
        for each in several:
            if not _called(each).isdisjoint(names):
                why = f"{provider} leaves an entry of {scope} out: {each}"
                yield failing("admitted", about, why, "correct that line")


def mistaken(facts: Facts, kept: Endpoint) -> Iterator[Step]:
    """The mistakes because of which an endpoint that is kept may not be shown any more."""
    if workload := facts.mesh.workloads.get(kept.workload):
        yield from left_out(facts, workload.name, workload.name, kept.address)


def _called(entry: Rejected) -> set[str]:
    """Providers of others say where it stands, and perhaps no more."""
    return {*entry.about, *WORDS.findall(entry.where)}
