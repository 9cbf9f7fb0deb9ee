"""The rules that bring a pod's traffic into its sidecar, as iptables-restore reads them.

TCP alone. What is said to loopback, by the sidecar itself, or to what is excluded, goes its own
way; of one address family the rules are the other's, with its own ranges.
"""

from collections.abc import Iterable, Iterator
from ipaddress import ip_network

from meshfed.federation.inject.wishes import Capture
from meshfed.xds.measured import METRICS_PORT
from meshfed.xds.pod_bootstrap import PROBES_PORT

OUTBOUND, INBOUND = 15001, 15003  # a sidecar's ports (ARCHITECTURE.md, section 6)
USER = 1500  # who Envoy runs as, as in OSM: its own calls are not brought back to it
IN, OUT = "MESHFED_IN", "MESHFED_OUT"
LOOPBACK = {4: "127.0.0.0/8", 6: "::1/128"}
AGAIN = "-w 30"  # seconds for others' locks


def rules(capture: Capture, family: int) -> str:
    """The table `nat` of one family, 4 or 6."""
    lines = ["*nat", f":{IN} - [0:0]", f":{OUT} - [0:0]", *_inbound(capture)]
    return "\n".join([*lines, *_outbound(capture, family), "COMMIT", ""])


def _inbound(capture: Capture) -> Iterator[str]:
    yield f"-A PREROUTING -p tcp -j {IN}"
    for port in (INBOUND, METRICS_PORT, PROBES_PORT, *capture.inbound_ports):
        yield f"-A {IN} -p tcp --dport {port} -j RETURN"
    yield f"-A {IN} -p tcp -j REDIRECT --to-ports {INBOUND}"


def _outbound(capture: Capture, family: int) -> Iterator[str]:
    yield f"-A OUTPUT -p tcp -j {OUT}"
    yield f"-A {OUT} -m owner --uid-owner {USER} -j RETURN"
    # A pod that calls its own address does not leave itself, either way.
    yield f"-A {OUT} -o lo -j RETURN"
    for each in (LOOPBACK[family], *_of(capture.outbound_ranges, family)):
        yield f"-A {OUT} -d {each} -j RETURN"
    for port in capture.outbound_ports:
        yield f"-A {OUT} -p tcp --dport {port} -j RETURN"
    redirect = f"-p tcp -j REDIRECT --to-ports {OUTBOUND}"
    if capture.only_ranges:
        for each in _of(capture.only_ranges, family):
            yield f"-A {OUT} -d {each} {redirect}"
    else:
        yield f"-A {OUT} {redirect}"


def _of(ranges: Iterable[str], family: int) -> Iterator[str]:
    return (each for each in ranges if ip_network(each).version == family)


def script(capture: Capture) -> str:
    """What the init container runs. IPv6 is left out where the pod has no address of it.

    `test -s` would not do: the size of a file in /proc is 0.
    """
    four = f"iptables-restore {AGAIN} --noflush <<'END'\n{rules(capture, 4)}END\n"
    six = f"ip6tables-restore {AGAIN} --noflush <<'END'\n{rules(capture, 6)}END\n"
    return f"{four}if grep -q . /proc/net/if_inet6 2>/dev/null; then\n{six}fi\n"
