"""Which proxies do not have a revision yet, and why."""

from collections.abc import Iterable
from dataclasses import dataclass

from meshfed.catalog.bearings import Connected
from meshfed.federation.explain.facts import Facts


@dataclass(frozen=True, slots=True)
class Lag:
    """One proxy that has not got there."""

    proxy: str
    workload: str
    why: str

    def __str__(self) -> str:
        return f"{self.workload} ({self.why})"


def lagging(
    facts: Facts, revision: int, among: Iterable[Connected] | None = None
) -> tuple[Lag, ...]:
    """The connected proxies that have not acknowledged it: of these, else of all."""
    proxies = facts.bearings.proxies if among is None else among
    found = ((each, why_not(facts, each, revision)) for each in proxies)
    return tuple(Lag(each.proxy, each.workload, why) for each, why in found if why)


def why_not(facts: Facts, proxy: Connected, revision: int) -> str:
    """Why a proxy lacks a revision; empty when it has it (ARCHITECTURE.md, section 4)."""
    evaluated = {each.name: each.evaluated for each in facts.bearings.replicas}
    reached = evaluated.get(proxy.replica, -1)
    if reached >= revision and (proxy.behind is None or proxy.behind > revision):
        return ""
    if facts.silent(proxy.replica):
        return f"silent: its replica {proxy.replica} writes nothing"
    if proxy.state == "rejecting":
        return f"rejecting: {proxy.reason}"
    if reached < revision:
        return f"its replica {proxy.replica} is at revision {reached}"
    return proxy.reason or f"has not acknowledged revision {proxy.behind}"
