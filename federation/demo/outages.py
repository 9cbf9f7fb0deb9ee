"""What was counted while one platform after the other was away, and what is wrong in it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from meshfed.federation.demo.folder import Host
from meshfed.federation.demo.measure import Call, Json, begun, tally, whole


@dataclass(frozen=True, slots=True)
class Outage:
    """One platform's machines lost power, then left the inventory, then came back."""

    platform: str
    began: float  # seconds since the epoch, like all of these
    ejected: float  # the caller's Envoy left them alone
    edited: float  # the platform says that they are gone
    gone: float  # the caller's Envoy has none of them
    back: float  # and all of them again
    agreed: bool  # the catalog and the caller's Envoy had the same addresses meanwhile
    others: int  # clusters of all Envoys that have nothing to do with it
    unrelated: int  # what Envoys were told of those, from `began` to `gone`


@dataclass(frozen=True, slots=True)
class Toured:
    """Everything that was counted."""

    sellers: Mapping[str, Sequence[Host]]  # by platform
    endpoints: Mapping[str, int]  # by platform, as the catalog has them
    addresses: Mapping[str, int]  # as the caller's Envoy has them
    since: float
    outages: tuple[Outage, ...]
    buyer: tuple[Call, ...]
    proxies: int

    @property
    def unhurt(self) -> list[Call]:
        """What was bought while all were there."""
        return whole(self.buyer, self.since, self.outages[0].began)


def answered(run: Toured) -> dict[str, int]:
    """Who sold how many while all were there."""
    sold = tally(run.unhurt, "bookstore")
    return {host.name: sold[host.name] for there in run.sellers.values() for host in there}


def outage(run: Toured, one: Outage) -> Json:
    met = (call for call in run.buyer if one.began <= call.ended and call.started < one.ejected)
    before = tally(met, "bookstore")
    after = tally(begun(run.buyer, one.ejected, one.back), "bookstore")
    return {
        "platform": one.platform,
        "ejected_ms": round(1000 * (one.ejected - one.began), 1),
        "failed_before_ejection": before["failed"],
        "failed_after_ejection": after["failed"],
        "answered_after_ejection": after.total() - after["failed"],
        "removed_ms": round(1000 * (one.gone - one.edited), 1),
        "catalog_agrees": one.agreed,
        "unrelated_clusters": one.others,
        "unrelated_updates": one.unrelated,
    }


def result(run: Toured) -> Json:
    """The object of `meshfed demo --platforms … -o json`."""
    return {
        "platforms": list(run.sellers),
        "endpoints": dict(run.endpoints),
        "clusters": dict(run.addresses),
        "answered": answered(run),
        "failed": tally(run.unhurt, "bookstore")["failed"],
        "stopped": [outage(run, one) for one in run.outages],
        "proxies": run.proxies,
    }


def findings(run: Toured) -> tuple[str, ...]:
    """What the demo promises and this run did not keep; nothing, when all is well."""
    return tuple(_findings(run))


def _findings(run: Toured) -> Iterator[str]:
    if run.endpoints != run.addresses:
        yield f"the catalog has {run.endpoints}, the bookbuyer's Envoy {run.addresses}"
    if failed := tally(run.unhurt, "bookstore")["failed"]:
        yield f"{failed} requests failed while every platform was there"
    for name, sold in answered(run).items():
        if not sold:
            yield f"{name} sold nothing"
    for one in run.outages:
        after = tally(begun(run.buyer, one.ejected, one.back), "bookstore")
        if after["failed"]:
            yield f"{one.platform} away: {after['failed']} requests failed after its ejection"
        if after["failed"] == after.total():
            yield f"{one.platform} away: nobody sold anything"
        if not one.agreed:
            yield f"{one.platform} away: the catalog and the bookbuyer's Envoy disagree"
        if not one.others:
            yield f"{one.platform} away: there is no cluster that it has nothing to do with"
        if one.unrelated:
            yield f"{one.platform} away: {one.unrelated} updates of clusters that did not change"


def sold_by_platform(run: Toured) -> dict[str, int]:
    sold = answered(run)
    return {name: sum(sold[host.name] for host in there) for name, there in run.sellers.items()}
