"""The rules that bring what a pod or a machine says into its sidecar, for iptables-restore.

TCP alone. What is said to loopback, by the sidecar itself, or to what is excluded, goes its own
way; of one address family the rules are the other's, with its own ranges.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import ip_network

from meshfed.xds.measured import METRICS_PORT
from meshfed.xds.pod_bootstrap import PROBES_PORT

OUTBOUND, INBOUND = 15001, 15003  # a sidecar's ports (ARCHITECTURE.md, section 6)
USER = 1500  # who Envoy runs as, as in OSM: its own calls are not brought back to it
IN, OUT = "MESHFED_IN", "MESHFED_OUT"
CHAINS = (IN, OUT)
LOOPBACK = {4: "127.0.0.0/8", 6: "::1/128"}
AGAIN = ("-w", "30")  # seconds for others' locks
# Azure's, which a machine asks from its own address: the metadata service, and the host's agent.
AZURE = ("169.254.169.254/32", "168.63.129.16/32")
PROBER = "168.63.129.16/32"  # whence Azure's load balancers look, too
SSH, DNS = 22, 53
# Of a connection that was there before the rules, the kernel takes the next packet for its first.
UNDER_WAY = "-p tcp ! --syn -j RETURN"


@dataclass(frozen=True, slots=True)
class Capture:
    """What goes through the sidecar: everything but what is excluded; of ranges, only some."""

    inbound_ports: tuple[int, ...] = ()
    outbound_ports: tuple[int, ...] = ()
    outbound_ranges: tuple[str, ...] = ()
    only_ranges: tuple[str, ...] = ()
    users: tuple[int, ...] = ()  # whose calls are left alone, by uid


EVERYTHING = Capture()


def network(text: str) -> str:
    """A range in its shortest form; one address is a range of one. Raises ValueError."""
    try:
        return ip_network(text).compressed
    except ValueError as error:
        why = f"{text!r} is not a range of addresses such as 10.0.0.0/8"
        raise ValueError(f"{why} ({error})") from error


def pod(capture: Capture, family: int) -> tuple[str, ...]:
    """Of one family, 4 or 6: what comes in at any port, and what goes out."""
    ports = (INBOUND, METRICS_PORT, PROBES_PORT, *capture.inbound_ports)
    return (
        f"-A PREROUTING -p tcp -j {IN}",
        *(f"-A {IN} -p tcp --dport {port} -j RETURN" for port in ports),
        f"-A {IN} -p tcp -j REDIRECT --to-ports {INBOUND}",
        f"-A OUTPUT -p tcp -j {OUT}",
        *_outbound(capture, family, f"--uid-owner {USER}"),
    )


def machine_in(served: Iterable[int], capture: Capture, family: int) -> tuple[str, ...]:
    """What comes in for its applications, by their ports. All else that listens is left alone.

    Unlike a pod it has an SSH daemon, wherever that listens, and containers whose calls pass by.
    """
    ports = sorted({*served} - {*capture.inbound_ports, SSH})
    if not ports:
        return ()
    return (
        f"-A PREROUTING -p tcp -m addrtype --dst-type LOCAL -j {IN}",
        f"-A {IN} {UNDER_WAY}",
        *(f"-A {IN} -s {each} -j RETURN" for each in _of((PROBER,), family)),
        *(f"-A {IN} -p tcp --dport {port} -j REDIRECT --to-ports {INBOUND}" for port in ports),
    )


def machine_out(capture: Capture, group: int, family: int) -> tuple[str, ...]:
    """What goes out, but for what the sidecar's group says: its Envoy, and its agent."""
    users = (f"--uid-owner {user}" for user in capture.users)
    always = Capture(
        outbound_ports=(SSH, DNS, *capture.outbound_ports),
        outbound_ranges=(*AZURE, *capture.outbound_ranges),
        only_ranges=capture.only_ranges,
    )
    return (
        f"-A OUTPUT -p tcp -j {OUT}",
        f"-A {OUT} {UNDER_WAY}",
        *_outbound(always, family, f"--gid-owner {group}", *users),
    )


def _outbound(capture: Capture, family: int, *owners: str) -> Iterator[str]:
    for owner in owners:
        yield f"-A {OUT} -m owner {owner} -j RETURN"
    # Whoever calls its own address does not leave it, either way.
    yield f"-A {OUT} -o lo -j RETURN"
    for each in (LOOPBACK[family], *_of(capture.outbound_ranges, family)):
        yield f"-A {OUT} -d {each} -j RETURN"
    for port in dict.fromkeys(capture.outbound_ports):
        yield f"-A {OUT} -p tcp --dport {port} -j RETURN"
    redirect = f"-p tcp -j REDIRECT --to-ports {OUTBOUND}"
    if capture.only_ranges:
        for each in _of(capture.only_ranges, family):
            yield f"-A {OUT} -d {each} {redirect}"
    else:
        yield f"-A {OUT} {redirect}"


def _of(ranges: Iterable[str], family: int) -> Iterator[str]:
    return (each for each in dict.fromkeys(ranges) if ip_network(each).version == family)


# From rules to what iptables-restore does at once, and back from what iptables-save says


def table(rules: Iterable[str]) -> str:
    """The table `nat`, in which our own chains begin empty."""
    return "\n".join(["*nat", *(f":{chain} - [0:0]" for chain in CHAINS), *rules, "COMMIT", ""])


def replaced(rules: Iterable[str], saved: str) -> str:
    """What puts these in the place of those of ours that stand."""
    return table([*_unhooked(saved), *rules])


def removed(saved: str, chains: Sequence[str] = CHAINS) -> str:
    """What takes these of ours away; nothing, where none of them stand."""
    there = [chain for chain in chains if f"\n:{chain} " in saved]
    if not there:
        return ""
    gone = [f"{act} {chain}" for act in ("-F", "-X") for chain in there]
    return "\n".join(["*nat", *_unhooked(saved, there), *gone, "COMMIT", ""])


def stand(rules: Sequence[str], saved: str) -> bool:
    """Whether as many of ours stand in each chain. The kernel has its own words for each."""
    ours = (line for line in saved.splitlines() if line.startswith("-A ") and _is_ours(line))
    return Counter(line.split()[1] for line in ours) == Counter(r.split()[1] for r in rules)


def _unhooked(saved: str, chains: Sequence[str] = CHAINS) -> list[str]:
    """The ends of what leads into these of our chains."""
    led = (line for line in saved.splitlines() if line.startswith("-A ") and _leads(line, chains))
    return [f"-D {line.removeprefix('-A ')}" for line in led]


def _leads(line: str, chains: Sequence[str] = CHAINS) -> bool:
    return line.rpartition(" -j ")[2] in chains


def _is_ours(line: str) -> bool:
    return _leads(line) or line.split()[1] in CHAINS
