"""A workload's sidecar: whether it is connected, by which certificate, and who sees to both."""

from collections.abc import Iterator

from meshfed.catalog.bearings import Connected
from meshfed.catalog.model import Interception, Workload
from meshfed.federation.explain.facts import Facts
from meshfed.federation.explain.seen import Seen
from meshfed.federation.explain.step import Step, failing, ok, warning

LOG = "`journalctl -u meshfed-agent`"  # of a machine that joined: an agent keeps its sidecar


def connected(facts: Facts, workload: Workload) -> Iterator[Step]:
    if workload.interception is Interception.NONE:
        return
    if workload.identity is None:
        why = "it has no identity, so it can have no proxy"
        yield failing("proxy", workload.name, why, f"give it one in {workload.scope}")
        return
    trouble = facts.trouble().get(workload.id)
    proxy = facts.connected.get(workload.id)
    if proxy is None:
        why = "its proxy is not connected to any control plane"
        yield failing("proxy", workload.name, why, _start(facts, workload))
    elif trouble:
        step = warning if proxy.state == "expiring" else failing
        yield step("proxy", workload.name, f"its proxy {trouble}", _cure(facts, workload, proxy))
    else:
        yield ok("proxy", workload.name, f"connected to {proxy.replica}, {proxy.state}")


def _start(facts: Facts, workload: Workload) -> str:
    if _joined(facts, workload):
        return (
            "on that machine, is the agent running, `systemctl status meshfed-agent`, and what does"
            f" it say, {LOG}? Without a unit, start `meshfed agent`"
        )
    what = "it" if workload.interception is Interception.GRPC else "its Envoy"
    return (
        f"start {what}; if it runs, its certificate may have ended, or it does not reach"
        f" xds.listen: `meshfed proxy bootstrap {workload.name}` renews it"
    )


def _cure(facts: Facts, workload: Workload, proxy: Connected) -> str:
    if facts.silent(proxy.replica):
        return f"start `meshfed serve` on {proxy.replica} again, or see what its log says"
    joined = _joined(facts, workload)
    match proxy.state:
        case "rejecting":
            return f"meshfed proxy config {proxy.workload} --diff"
        case "expiring" if joined:
            return f"its agent renews it: on that machine, see what it says, {LOG}"
        case "expiring":
            return f"meshfed proxy bootstrap {proxy.workload}"
        case _:
            again = "`systemctl restart meshfed-agent` there" if joined else "restart its Envoy"
            return f"it is asked again by itself; if that does not help, {again}"


def _renew(facts: Facts, workload: Workload) -> str:
    if _joined(facts, workload):
        return f"its agent says why, and what lets it in again: {LOG}; docs/hosts-join.md"
    return f"meshfed proxy bootstrap {workload.name}"


def _joined(facts: Facts, workload: Workload) -> bool:
    return workload.id in facts.bearings.joined


def certified(facts: Facts, seen: Seen, workload: Workload, now: str) -> Iterator[Step]:
    """The certificate it shows to others; one that a control plane keeps for its identity."""
    if seen.ended:
        why = f"the certificate with which its Envoy connects ended at {seen.ended}"
        yield failing("certificate", workload.name, why, _renew(facts, workload))
    mine = [c for c in seen.certificates if c.identity == str(workload.identity)]
    if ended := sorted(c.not_after for c in mine if c.not_after <= now):
        why = f"the certificate of {workload.identity} ended at {ended[0]}: its calls fail"
        remedy = "see why the issuer does not sign: the log of `meshfed serve`, `meshfed doctor`"
        yield failing("certificate", workload.name, why, remedy)
    elif mine:
        until = min(c.not_after for c in mine)
        yield ok("certificate", workload.name, f"of {workload.identity}, until {until}")
