"""`meshfed join` and `leave`: on a machine, which needs no catalog and no configuration."""

import os
import shlex
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from meshfed.federation.cli.interception import (
    TRANSPARENT,
    DryRun,
    How,
    InboundPorts,
    OnlyRanges,
    OutboundPorts,
    OutboundRanges,
    Users,
    Wanted,
    able,
    intercepted,
    placed,
    printed,
)
from meshfed.federation.cli.output import Finding, say

if TYPE_CHECKING:
    from meshfed.federation.join.papers import Papers, Server
    from meshfed.federation.join.secret import Secret

FOLDER = Path("/etc/meshfed/proxy")

Out = Annotated[
    Path, typer.Option("--out", metavar="DIR", help="Where key, certificate and bootstrap stand.")
]


def join(
    url: Annotated[
        str | None,
        typer.Argument(
            metavar="[URL]",
            help="https://HOST:PORT of the control plane; else where this machine joined before.",
            show_default=False,
        ),
    ] = None,
    token: Annotated[
        str | None,
        typer.Option(
            "--token",
            metavar="T",
            envvar="MESHFED_TOKEN",
            help="What `meshfed token create` printed; not needed to renew.",
            show_default=False,
        ),
    ] = None,
    azure: Annotated[
        bool,
        typer.Option("--azure", help="On Azure: it attests which machine this is; no token then."),
    ] = False,
    imds: Annotated[
        str,
        typer.Option("--imds", metavar="URL", help="Where Azure does so.", show_default=False),
    ] = "",
    ca: Annotated[
        Path | None,
        typer.Option(
            "--ca", metavar="FILE", help="The mesh's roots, PEM; else the token's pin decides."
        ),
    ] = None,
    pin: Annotated[
        str | None,
        typer.Option(
            "--pin", metavar="SHA256", help="Of the mesh's root, in hex; else the token's."
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option("--name", metavar="N", help="The workload's name; else the machine's."),
    ] = None,
    address: Annotated[
        list[str] | None,
        typer.Option(
            "--address",
            metavar="A",
            help="Where callers reach it, may be repeated; else where the control plane sees it.",
            show_default=False,
        ),
    ] = None,
    interception: How = None,
    exclude_inbound_port: InboundPorts = None,
    exclude_outbound_port: OutboundPorts = None,
    exclude_outbound_range: OutboundRanges = None,
    include_outbound_range: OnlyRanges = None,
    exclude_user: Users = None,
    dry_run: DryRun = False,
    keep_token: Annotated[
        bool,
        typer.Option(
            "--keep-token",
            help="Keep the token here, to join again should the certificate have ended.",
        ),
    ] = False,
    no_unit: Annotated[
        bool,
        typer.Option("--no-unit", help="Write no systemd unit for the agent, and start none."),
    ] = False,
    out: Out = FOLDER,
) -> None:
    """Make this machine a workload of the mesh: its certificate, and an agent that keeps its Envoy.

    The key is made here and stays here. As root it writes a systemd unit, which starts the agent
    now and at every boot. Run again, it renews the certificate by the one that is there.

    Example: meshfed join https://mesh.example:15129 --token mesh1.3f9a01c4.…
    """
    from meshfed.federation.agent.intercepting import Intercepted, aside
    from meshfed.federation.join.imds import IMDS
    from meshfed.federation.join.machine import join as joined
    from meshfed.federation.join.papers import CAPTURE, Papers, Unjoinable, keep

    if out.name in ("", ".."):
        raise Finding("--out: name a folder of its own")
    if keep_token and not token:
        raise Finding("--keep-token: there is no --token to keep")
    secret = _secret(token)
    wanted = Wanted(
        interception,
        tuple(exclude_inbound_port or ()),
        tuple(exclude_outbound_port or ()),
        tuple(exclude_outbound_range or ()),
        tuple(include_outbound_range or ()),
        tuple(exclude_user or ()),
    )
    try:
        papers = Papers.read(out)
        capture = intercepted(wanted, papers, out)
        if dry_run:
            printed(capture, papers)
            return
        if capture:
            able(capture)
        if papers and papers.valid(time.time()):
            if others := [*_others(papers, name, address, ca, pin, interception)]:
                raise Finding(*others)
            aside(Intercepted.legible(out))
            who = joined(_again(url, papers), out, {}, papers)
            if keep_token and token:
                keep(out, token)
            say(f"{who}: renewed")
            if placed(capture, out):
                say(f"{out / CAPTURE}: written; the agent heeds it within seconds")
            _equipped(out, wanted=not no_unit)
            return
        if token is None and not azure:
            raise Finding(_tokenless(papers))
        server = _trusted(url, secret, ca, pin)
        asked = {"untrusted_name": name or socket.gethostname(), "token": token or ""}
        if capture:
            asked["untrusted_interception"] = TRANSPARENT
        who = joined(server, out, asked, None, address or (), (imds or IMDS) if azure else "")
        placed(capture, out)
    except Unjoinable as why:
        raise Finding(why) from why
    if keep_token and token:
        keep(out, token)
    say(f"{who}: joined")
    _started(out, wanted=not no_unit)


def leave(out: Out = FOLDER) -> None:
    """Take this machine out of the mesh: nobody calls it; agent, key and certificate are removed.

    Example: meshfed leave
    """
    from meshfed.federation.agent import unit
    from meshfed.federation.agent.command import Unable
    from meshfed.federation.agent.intercepting import Intercepted, aside
    from meshfed.federation.join.machine import leave as left
    from meshfed.federation.join.papers import CAPTURE, Papers, Unjoinable, remove

    try:
        if (papers := Papers.read(out)) is None:
            _swept(out)
            return
        capture = (out / CAPTURE).exists() or papers.interception == TRANSPARENT
        if capture and os.geteuid():
            raise Finding("its traffic is intercepted, which root alone can end: run this as root")
        said = Intercepted.legible(out)
        if capture and said is None:
            _released()  # else what it says now would be captured: its group is not known any more
        aside(said)
        if papers.valid(time.time()):
            left(_again(None, papers), papers)
        else:
            say(_lapsed(papers))
    except Unjoinable as why:
        if why.status != 403:
            raise Finding(why) from why
        say(str(why))  # its certificate is nobody's any more, so it is of no use here
    except Unable as why:
        raise Finding(why) from why
    if out == FOLDER and unit.remove():
        say(f"{unit.FOLDER / unit.NAME}: removed")
    remove(out)
    say(f"{out}: removed")
    try:
        if capture:
            _released()
    except Unable as why:
        raise Finding(why) from why


def _released() -> bool:
    """Whether anything was captured. Raises Unable."""
    from meshfed.federation.agent.intercepting import release

    there = release()
    if there:
        say("iptables: its rules are removed")
    return there


def _swept(out: Path) -> None:
    """Take away what a machine has of the mesh though its folder is gone: its names are ours.

    Raises Finding where there is nothing, Unable.
    """
    from meshfed.federation.agent import unit
    from meshfed.federation.agent.intercepting import may_stand
    from meshfed.federation.join.papers import JOINED, remove

    there = False
    if unit.ours(out, FOLDER) and unit.remove():
        say(f"{unit.FOLDER / unit.NAME}: removed")
        there = True
    # With another folder than the one that there is, this machine's agent would put them back.
    if (out == FOLDER or not (FOLDER / JOINED).exists()) and may_stand():
        there = _released() or there
    if (out / JOINED).exists():
        remove(out)
        there = True
    if not there:
        raise Finding(f"{out}: this machine did not join: nothing of it is there")
    say(f"{out}: gone: `meshfed deregister NAME` on the control plane, if it stands there")


def _again(url: str | None, papers: "Papers") -> "Server":
    """Where it joined, or another control plane of the same mesh."""
    from dataclasses import replace

    return replace(_server(url), roots=papers.bundle) if url else papers.server


def _server(url: str) -> "Server":
    from meshfed.federation.join.papers import Server

    try:
        return Server.parse(url)
    except ValueError as why:
        raise Finding(f"URL: {why}") from why


def _secret(token: str | None) -> "Secret | None":
    from meshfed.federation.join.secret import Secret

    try:
        return Secret.parse(token) if token else None
    except ValueError as why:
        raise Finding(f"--token: {why}") from why


def _pin(text: str) -> bytes:
    """Openssl writes it with colons."""
    try:
        wanted = bytes.fromhex(text.replace(":", ""))
    except ValueError:
        wanted = b""
    if len(wanted) != 32:
        raise Finding("--pin: not 64 hex digits: it is the SHA-256 of the mesh's root")
    return wanted


def _others(
    papers: "Papers",
    name: str | None,
    addresses: list[str] | None,
    ca: Path | None,
    pin: str | None,
    interception: str | None,
) -> Iterator[str]:
    """What is asked for now, and renewing would not do."""
    from meshfed.federation.join.trust import pins

    first = "`meshfed leave` comes first"
    if name and name.lower() != papers.name.lower():
        yield f"--name: this machine joined as {papers.name}: {first}"
    if addresses and set(addresses) != set(papers.addresses):
        here = ", ".join(papers.addresses) or "where the control plane saw it"
        yield f"--address: this machine joined as called at {here}: {first}"
    if interception and interception != papers.interception:
        yield f"--interception: this machine joined as {papers.interception}: {first}"
    roots = pins(papers.bundle)
    for option, asked in (("--pin", {_pin(pin)} if pin else None), ("--ca", _roots(ca))):
        if asked is not None and not asked & roots:
            yield f"{option}: this machine joined a mesh with another root: {first}"


def _roots(ca: Path | None) -> frozenset[bytes] | None:
    """Their pins."""
    from meshfed.federation.join.trust import pins

    try:
        return pins(ca.read_text()) if ca else None
    except ValueError as why:
        raise Finding("--ca: no certificates in PEM") from why


def _trusted(
    url: str | None, secret: "Secret | None", ca: Path | None, pin: str | None
) -> "Server":
    """The server, and the roots by which it is believed. Raises Finding, Unjoinable."""
    from dataclasses import replace

    if url is None:
        raise Finding("URL: needed: `meshfed token create` prints it with the token")
    if ca and pin:
        raise Finding("--pin: --ca says already whom to trust: leave one out")
    wanted = secret.pin if secret else b""
    if not (wanted or ca or pin):
        raise Finding("--pin: needed without a token, or --ca: they say whom to trust")
    server = _server(url)
    if ca:
        return replace(server, roots=ca.read_text())
    if pin:
        wanted = _pin(pin)
    return server.believed_by(wanted)


def _tokenless(papers: "Papers | None") -> str:
    if papers is None:
        return "--token: needed: `meshfed token create` makes one, on the control plane"
    return papers.ended


def _lapsed(papers: "Papers") -> str:
    """It can say nothing of itself any more; what is here goes all the same."""
    from meshfed.catalog.times import stamp

    ended = f"the certificate of {papers.name} ended at {stamp(papers.not_after)}"
    return f"{ended}: `meshfed deregister {papers.name}` on the control plane, if it stands there"


def _equipped(out: Path, *, wanted: bool) -> None:
    """A machine that joined before there were agents gets its own."""
    from meshfed.federation.agent import unit

    if wanted and unit.ours(out, FOLDER) and not (unit.FOLDER / unit.NAME).is_file():
        _started(out, wanted=wanted)


def _started(out: Path, *, wanted: bool) -> None:
    """Have the machine start its agent, or say how a person does."""
    from meshfed.federation.agent import unit

    command = unit.command(out)
    if wanted and unit.ours(out, FOLDER):
        say(f"{unit.write(command)}: written")
        if not (why := unit.start()):
            return
        say(f"not started: {why}")
    say(f"start it with: {shlex.join(command)}")
