"""By which names gRPC clients and pods find the control plane: its certificate has them."""

import socket
from collections.abc import Iterable

from meshfed.federation.fields import Address

LOOPBACK = ("localhost", "127.0.0.1", "::1")
ELSEWHERE = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))  # RFC 5737, RFC 3849


def called(listen: Address, named: Iterable[str]) -> tuple[str, ...]:
    """The names that were given to it, and those that it has by itself; addresses among them."""
    wild = listen.host in ("0.0.0.0", "::")
    own = (*LOOPBACK, *machine()) if wild else (listen.host,)
    return tuple(dict.fromkeys((*named, *own)))


def machine() -> tuple[str, ...]:
    """This one's name, and the addresses that it sends from.

    DNS is not asked for a longer one: where it does not answer, nothing would start for seconds.
    """
    name = socket.gethostname()
    own = (name,) if plain(name) else ()
    return (*own, *(found for kind, there in ELSEWHERE if (found := source(kind, there))))


def source(family: socket.AddressFamily, address: str) -> str:
    """From which address this machine would send to that one; nothing is sent."""
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((address, 9))
        except OSError:  # another family, a name, or no route
            return ""
        return str(probe.getsockname()[0])


def plain(name: str) -> bool:
    """Whether a certificate can hold it as a DNS name."""
    return bool(name) and name.isascii() and len(name) <= 253
