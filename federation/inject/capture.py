"""The rules that bring a pod's traffic into its sidecar, as iptables-restore reads them.

TCP, and of DNS the mesh's own names. What is said to loopback, by the sidecar itself, or to what is
excluded, goes its own way; of one address family the rules are the other's, with its own ranges.
"""

from collections.abc import Iterable, Iterator
from ipaddress import ip_network

from meshfed.federation.inject.wishes import Capture
from meshfed.xds.dns import DNS_PORT, DOMAIN
from meshfed.xds.measured import METRICS_PORT
from meshfed.xds.pod_bootstrap import PROBES_PORT

OUTBOUND, INBOUND = 15001, 15003  # a sidecar's ports (ARCHITECTURE.md, section 6)
USER = 1500  # who Envoy runs as, as in OSM: its own calls are not brought back to it
IN, OUT = "MESHFED_IN", "MESHFED_OUT"
DNS_OUT = "MESHFED_DNS"
LOOPBACK = {4: "127.0.0.0/8", 6: "::1/128"}
# In a query for a name of the mesh: its last label, and the end of the name (RFC 1035, 4.1.2).
LABEL = f"{len(DOMAIN):02x}{DOMAIN.encode().hex()}00"
ASKED = f'-m string --algo kmp --icase --hex-string "|{LABEL}|"'
# Connections of UDP are told apart by addresses and ports, and the first packet says where they go.
# Resolvers ask for many names from one port: those of the mesh are another connection, in a zone.
ZONE = DNS_PORT
UNNAMED = f"names in .{DOMAIN} are not answered: the kernel has no match `string`, or no zones"
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


def names(capture: Capture) -> str:
    """The tables that bring the mesh's names to the sidecar, of either family; nothing else is."""
    if 53 in capture.outbound_ports:
        return ""
    query = f"-p udp --dport 53 {ASKED}"
    own = f"-A {DNS_OUT} -m owner --uid-owner {USER} -j RETURN"
    tables = {
        "raw": (
            f"-A OUTPUT -p udp -j {DNS_OUT}",
            f"-A {DNS_OUT} -p udp --sport {DNS_PORT} -j CT --zone {ZONE}",
            own,
            f"-A {DNS_OUT} {query} -j CT --zone {ZONE}",
        ),
        "nat": (
            f"-A OUTPUT -p udp -j {DNS_OUT}",
            own,
            f"-A {DNS_OUT} {query} -j REDIRECT --to-ports {DNS_PORT}",
        ),
    }
    lines = (
        line
        for table, its in tables.items()
        for line in (f"*{table}", f":{DNS_OUT} - [0:0]", *its, "COMMIT")
    )
    return "\n".join((*lines, ""))


def _of(ranges: Iterable[str], family: int) -> Iterator[str]:
    return (each for each in ranges if ip_network(each).version == family)


def script(capture: Capture) -> str:
    """What the init container runs. IPv6 is left out where the pod has no address of it.

    `test -s` would not do: the size of a file in /proc is 0. A kernel that cannot look into queries
    costs the pod the mesh's names, and no more.
    """
    four, six = (
        restored(each, rules(capture, family), names(capture))
        for each, family in (("iptables-restore", 4), ("ip6tables-restore", 6))
    )
    return f"{four}if grep -q . /proc/net/if_inet6 2>/dev/null; then\n{six}fi\n"


def restored(program: str, needed: str, wanted: str) -> str:
    made = f"{program} {AGAIN} --noflush <<'END'\n{needed}END\n"
    if wanted:
        made += f"{program} {AGAIN} --noflush <<'END' || echo '{UNNAMED}' >&2\n{wanted}END\n"
    return made
