"""What the xDS server asks of whoever knows what each peer is to be told."""

from collections.abc import Callable, Mapping
from typing import Protocol

from meshfed.xds.peer import Peer
from meshfed.xds.resource import World
from meshfed.xds.subscription import Memory


class Refusal(Exception):
    """This peer is not told anything; the message is what it is told instead."""


class Unready(Exception):
    """There is nothing complete to tell yet: an empty answer would delete what the peer has."""


class Feed(Protocol):
    """What one peer is to be told, as long as the stream is open."""

    @property
    def world(self) -> World: ...

    @property
    def ended(self) -> str:
        """Why the stream must end; empty while it may go on."""
        ...

    @property
    def welcome(self) -> bool:
        """Whether the peer may begin another stream at once, when this one has ended."""
        ...

    @property
    def memory(self) -> Memory:
        """What this client accepted and rejected on its streams before; kept up to date by us."""
        ...

    def listen(self, moved: Callable[[], None]) -> None:
        """From now on call this whenever `world` or `ended` moves."""
        ...

    def receipt(
        self,
        kind: str,
        version: str,
        sent_at: float,
        answered_at: float,
        rejected: str,
        about: tuple[str, ...] = (),  # the names of what it rejects
    ) -> None:
        """The client's answer to one response; times in seconds since the epoch."""
        ...

    def overdue(self, kind: str) -> None:
        """The client did not answer a response of this type in time; others wait no longer."""
        ...

    # What the client was sent and has, if that is recorded; empty where it rejected the last.
    def pushed(self, kind: str, revision: int, versions: Mapping[str, str]) -> None: ...

    def settled(self, world: World, at: float) -> None:
        """The client acknowledged everything of this world, and of those before."""
        ...

    def close(self) -> None: ...


class Source(Protocol):
    async def open(self, peer: Peer) -> Feed:
        """Raises Refusal and Unready."""
        ...
