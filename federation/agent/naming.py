"""Names of the mesh on this machine: its own resolver asks the sidecar for them, and for no others.

systemd-resolved asks the servers of a link for the domains of that link, so there is one for them
alone. What it asks for all other names is as it was, and nothing is written to any file of it; with
the link goes all of that again.
"""

import shutil
import socket
from pathlib import Path

from meshfed.federation.agent.command import told

LINK, OTHER_END = "meshfed", "meshfed-end"
ADDRESS = "192.0.0.8/32"  # nobody's, and of global scope, as resolved wants one (RFC 7600)
# As xds/dns.py has them. With that comes protobuf, for which an agent has no room.
SERVER, DOMAIN = "127.0.0.1:15053", "mesh"
RUNNING = Path("/run/systemd/resolve/stub-resolv.conf")
ADDED = f"ip link add {LINK} type veth peer name {OTHER_END}"
UP = (
    f"ip address replace {ADDRESS} dev {LINK}",
    f"ip link set {OTHER_END} up",
    f"ip link set {LINK} up",
)
SAID = (
    f"resolvectl dns {LINK} {SERVER}",
    f"resolvectl domain {LINK} ~{DOMAIN}",
    f"resolvectl default-route {LINK} no",
    *(f"resolvectl {each} {LINK} no" for each in ("llmnr", "mdns", "dnssec", "dnsovertls")),
)
ELSEWHERE = (
    f"no systemd-resolved here: have this machine's resolver ask {SERVER} for the domain {DOMAIN}"
    f" (dnsmasq: server=/{DOMAIN}/{SERVER.replace(':', '#')})"
)


def resolved() -> bool:
    """Whether systemd-resolved is this machine's resolver."""
    return RUNNING.exists() and shutil.which("resolvectl") is not None


def stands() -> bool:
    try:
        return socket.if_nametoindex(LINK) > 0
    except OSError:
        return False


def link() -> None:
    """Have it whole, also where whoever made it came no further than half. Raises Unable."""
    for command in (*(() if stands() else (ADDED,)), *UP):
        told(command.split())


def name() -> None:
    """Have names of the mesh asked of the sidecar; again is as once. Raises Unable."""
    link()
    for command in SAID:
        told(command.split())


def unname() -> bool:
    """Whether there was anything to undo. Raises Unable."""
    if not stands():
        return False
    told(f"ip link delete {LINK}".split())
    return True
