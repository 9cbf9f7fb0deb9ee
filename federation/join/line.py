"""An agent's connection to the join server, which outlasts what is said on it.

A handshake costs both sides ten times what a sign of life does.
"""

import socket
from collections.abc import Mapping
from http.client import HTTPSConnection

import msgspec

from meshfed.federation.join.answer import Leased
from meshfed.federation.join.dial import accepted, answered, connected, identified
from meshfed.federation.join.papers import Papers, Unjoinable

LOST = 5000  # milliseconds without a word of the other kernel until a connection has ended


class Line:
    """Kept for as long as the papers are the same, and opened again when it ended."""

    def __init__(self) -> None:
        self._papers: Papers | None = None
        self._open: HTTPSConnection | None = None

    def lease(self, papers: Papers, said: Mapping[str, object]) -> float:
        """Say that this machine lives, and how it is; for how many seconds that holds.

        Raises Unjoinable, OSError.
        """
        if papers != self._papers:
            self.close()
        kept = self._open is not None
        try:
            answer = self._said(papers, said)
        except Unjoinable as why:
            if why.status or not kept:
                raise
            answer = self._said(papers, said)  # it ended meanwhile, which is no news
        try:
            return msgspec.json.decode(answer, type=Leased).lease
        except ValueError as error:
            old = f"{papers.url}: its answer is not of this version of meshfed"
            raise Unjoinable(old) from error

    def close(self) -> None:
        if self._open is not None:
            self._open.close()
        self._open = self._papers = None

    def _said(self, papers: Papers, said: Mapping[str, object]) -> str:
        server = papers.server
        try:
            if self._open is None:
                context = identified(server, papers)
                self._open, self._papers = connected(server, context, papers.trust_domain), papers
                self._open.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, LOST)
            status, answer = answered(server, self._open, "POST", "/v1/lease", said)
        except Unjoinable:
            self.close()
            raise
        return accepted(server, status, answer)
