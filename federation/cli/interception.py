"""`meshfed join --interception transparent`: what is excluded from it, and what it needs."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from meshfed.federation.cli.output import Finding, say, write

if TYPE_CHECKING:
    from meshfed.federation.agent.intercepting import Intercepted
    from meshfed.federation.capture import Capture
    from meshfed.federation.join.papers import Papers

EXPLICIT, TRANSPARENT = HOW = ("explicit", "transparent")
UNKNOWN = "# and, for the port P of each application, which the control plane knows:"

How = Annotated[
    str | None,
    typer.Option(
        "--interception",
        metavar="HOW",
        help="How its traffic gets into its sidecar: explicit (through 127.0.0.1:15001; what it is"
        " if nothing is said), or transparent (by iptables).",
        show_default=False,
    ),
]
InboundPorts = Annotated[
    list[int] | None,
    typer.Option(
        "--exclude-inbound-port",
        metavar="P",
        min=1,
        max=65535,
        help="Of an application that is reached past its sidecar, too; may be repeated, as all of"
        " these.",
        show_default=False,
    ),
]
OutboundPorts = Annotated[
    list[int] | None,
    typer.Option(
        "--exclude-outbound-port",
        metavar="P",
        min=1,
        max=65535,
        help="That it calls past its sidecar, as it always calls 22 and 53.",
        show_default=False,
    ),
]
OutboundRanges = Annotated[
    list[str] | None,
    typer.Option(
        "--exclude-outbound-range",
        metavar="R",
        help="Of addresses that it calls past its sidecar, such as 10.0.0.0/8.",
        show_default=False,
    ),
]
OnlyRanges = Annotated[
    list[str] | None,
    typer.Option(
        "--include-outbound-range",
        metavar="R",
        help="Of addresses: these alone are called through its sidecar.",
        show_default=False,
    ),
]
Users = Annotated[
    list[str] | None,
    typer.Option(
        "--exclude-user",
        metavar="U",
        help="Who calls past the sidecar: a user's name or number.",
        show_default=False,
    ),
]
DryRun = Annotated[
    bool,
    typer.Option("--dry-run", help="Print the rules that would be written, and do nothing."),
]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the options say, as they were typed."""

    how: str | None
    inbound_ports: tuple[int, ...]
    outbound_ports: tuple[int, ...]
    outbound_ranges: tuple[str, ...]
    only_ranges: tuple[str, ...]
    users: tuple[str, ...]

    @property
    def excludes(self) -> bool:
        """Whether they say anything of what is captured."""
        ports, ranges = self.inbound_ports + self.outbound_ports, self.outbound_ranges
        return bool(ports or ranges or self.only_ranges or self.users)


def intercepted(wanted: Wanted, papers: "Papers | None", out: Path) -> "Intercepted | None":
    """What shall be captured on this machine, if anything. Raises Finding, Unjoinable, OSError."""
    from meshfed.federation.agent.intercepting import Intercepted, spare, taken

    if wanted.how not in (None, *HOW):
        raise Finding(f"--interception: {wanted.how!r} is none of {', '.join(HOW)}")
    how = wanted.how or (papers.interception if papers else EXPLICIT)
    if how == EXPLICIT:
        if wanted.excludes:
            raise Finding("--exclude-…, --include-…: they go with --interception transparent")
        return None
    there = None
    if papers:
        asked_anew = wanted.how is not None
        there = Intercepted.legible(out) if asked_anew else Intercepted.needed(out, papers)
    if there and wanted.how is None and not wanted.excludes:
        return there
    return Intercepted(there.group if there else spare(taken), _capture(wanted))


def printed(said: "Intercepted | None", papers: "Papers | None") -> None:
    """The rules of each family that this machine speaks, as iptables-restore reads them."""
    from meshfed.federation.agent.intercepting import TOOLS, families, rules
    from meshfed.federation.capture import machine_in, table

    if said is None:
        raise Finding("--dry-run: nothing is written where interception is explicit")
    served = papers.ports if papers else ()
    for family in families():
        write(f"# {TOOLS[family]}-restore --noflush\n")
        write(table(rules(served, said, family, outbound=True)))
        if papers is None:
            unknown = machine_in((1,), said.capture, family)
            lines = (line.replace("--dport 1 ", "--dport P ") for line in unknown)
            write("\n".join([UNKNOWN, *(f"# {line}" for line in lines), ""]))


def able(said: "Intercepted") -> None:
    """Whether this machine can do it: what is found out now costs no use of a token.

    Raises Finding.
    """
    from meshfed.federation.agent.command import Unable
    from meshfed.federation.agent.envoy import NoEnvoy, binary
    from meshfed.federation.agent.intercepting import families, put, rules
    from meshfed.federation.capture import table

    if os.geteuid():
        raise Finding("--interception: transparent is root's to ask for: it writes rules")
    try:
        for family in families():
            put(family, table(rules((1,), said, family, outbound=True)), "--test")
        envoy = binary()
    except (Unable, NoEnvoy) as why:
        raise Finding(f"--interception: {why}") from why
    user = {"user": said.group, "group": said.group, "extra_groups": ()}
    try:
        subprocess.run([envoy, "--version"], capture_output=True, check=True, timeout=60, **user)  # type: ignore[call-overload]  # all of them are given
    except (OSError, subprocess.SubprocessError) as error:
        unfit = f"{envoy} cannot be run by others than root: install it where everybody may"
        raise Finding(f"--interception: {unfit}") from error


def placed(said: "Intercepted | None", out: Path) -> bool:
    """Write down what the agent shall do, beside the papers; whether that is news.

    Raises OSError, Unjoinable.
    """
    from meshfed.federation.agent import naming
    from meshfed.federation.agent.intercepting import Intercepted
    from meshfed.federation.certificates import proxyfiles

    if said is None or said == Intercepted.legible(out):
        return False
    said.write(out)
    proxyfiles.share(out, said.group)
    if not naming.resolved():
        say(f"names of the mesh: {naming.ELSEWHERE}")
    return True


def _capture(wanted: Wanted) -> "Capture":
    """Raises Finding."""
    from meshfed.federation.capture import Capture

    return Capture(
        wanted.inbound_ports,
        wanted.outbound_ports,
        tuple(_network("--exclude-outbound-range", each) for each in wanted.outbound_ranges),
        tuple(_network("--include-outbound-range", each) for each in wanted.only_ranges),
        tuple(map(_user, wanted.users)),
    )


def _network(option: str, text: str) -> str:
    from meshfed.federation.capture import network

    try:
        return network(text)
    except ValueError as why:
        raise Finding(f"{option}: {why}") from why


def _user(text: str) -> int:
    """A uid, which the kernel knows without asking anybody when the machine boots."""
    from pwd import getpwnam

    if text.isdecimal():
        return int(text)
    try:
        return getpwnam(text).pw_uid
    except KeyError as error:
        raise Finding(f"--exclude-user: this machine knows no user {text!r}") from error
