"""How a pod's init container brings its traffic into its sidecar: what it runs.

TCP, and of DNS the mesh's own names.
"""

from meshfed.federation.capture import AGAIN, USER, Capture, pod, table
from meshfed.xds.dns import DNS_PORT, DOMAIN

DNS_OUT = "MESHFED_DNS"
# In a query for a name of the mesh: its last label, and the end of the name (RFC 1035, 4.1.2).
LABEL = f"{len(DOMAIN):02x}{DOMAIN.encode().hex()}00"
ASKED = f'-m string --algo kmp --icase --hex-string "|{LABEL}|"'
# Connections of UDP are told apart by addresses and ports, and the first packet says where they go.
# Resolvers ask for many names from one port: those of the mesh are another connection, in a zone.
ZONE = DNS_PORT
UNNAMED = f"names in .{DOMAIN} are not answered: the kernel has no match `string`, or no zones"
WAIT = " ".join(AGAIN)


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


def script(capture: Capture) -> str:
    """What the init container runs. IPv6 is left out where the pod has no address of it.

    `test -s` would not do: the size of a file in /proc is 0. A kernel that cannot look into queries
    costs the pod the mesh's names, and no more.
    """
    four, six = (
        restored(each, table(pod(capture, family)), names(capture))
        for each, family in (("iptables-restore", 4), ("ip6tables-restore", 6))
    )
    return f"{four}if grep -q . /proc/net/if_inet6 2>/dev/null; then\n{six}fi\n"


def restored(program: str, needed: str, wanted: str) -> str:
    made = f"{program} {WAIT} --noflush <<'END'\n{needed}END\n"
    if wanted:
        made += f"{program} {WAIT} --noflush <<'END' || echo '{UNNAMED}' >&2\n{wanted}END\n"
    return made
