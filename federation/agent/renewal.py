"""The certificate of this machine: renewed at two thirds of its life, and what if it ended."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from http import HTTPStatus
from pathlib import Path

import structlog

from meshfed.catalog.times import stamp
from meshfed.federation.backoff import doubled
from meshfed.federation.certificates.keypair import glance
from meshfed.federation.join.machine import join
from meshfed.federation.join.papers import TOKEN, Papers, Unjoinable
from meshfed.federation.join.secret import Secret

DAY = timedelta(days=1)
LONGEST = 30.0  # seconds between attempts at a control plane that is away,
REFUSED = 300.0  # and at one that has refused: only people change its mind

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Failure:
    """An attempt that failed: which one in a row, when, and why."""

    count: int
    at: float
    why: str
    refused: bool

    def rests(self, now: float) -> bool:
        """Whether it is too early to try again; a clock that went back never makes it so."""
        pause = doubled(1.0, self.count + 1, REFUSED if self.refused else LONGEST)
        return self.at <= now < self.at + pause


class Renewal:
    """Renews by the certificate that stands; if it ended, by Azure's word, or a token's."""

    def __init__(
        self,
        folder: Path,
        renewed: Callable[[], Awaitable[None]],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`renewed`: told each time that it is."""
        self._folder = folder
        self._renewed = renewed
        self._clock = clock
        self._failure: Failure | None = None

    async def run(self) -> None:
        while True:
            rest = await self.look()
            await asyncio.sleep(rest)

    async def look(self) -> float:
        """Renew, if that is due; seconds until the next look."""
        now = self._clock()
        try:
            papers = Papers.read(self._folder)
            if papers is None:
                raise Unjoinable(f"{self._folder}: nothing of joining is there")
            if papers.due(now) and not (self._failure and self._failure.rests(now)):
                await asyncio.to_thread(renewed, papers, now)
                self._failure = None
                newer = Papers.read(self._folder) or papers
                log.info("certificate renewed", until=stamp(newer.not_after))
                await self._renewed()
        except (Unjoinable, OSError) as error:
            self._failed(error, now)
            papers = None
        return glance(timedelta(seconds=papers.not_after - papers.issued_at) if papers else DAY)

    def _failed(self, error: Unjoinable | OSError, now: float) -> None:
        before = self._failure
        refused = isinstance(error, Unjoinable) and 400 <= error.status < 500
        refused = refused and error.status != HTTPStatus.TOO_MANY_REQUESTS  # type: ignore[union-attr]  # `refused`
        self._failure = Failure(before.count + 1 if before else 0, now, str(error), refused)
        if before is None or before.why != str(error):
            log.warning("certificate not renewed", reason=str(error))


def renewed(papers: Papers, now: float) -> None:
    """Raises Unjoinable, OSError."""
    server = papers.server
    if papers.valid(now):
        join(server, papers.folder, {}, papers)
        return
    itself = {"untrusted_name": papers.name, "untrusted_interception": papers.interception}
    if papers.imds:
        join(server, papers.folder, itself, None, papers.addresses, papers.imds)
        return
    try:
        token = (papers.folder / TOKEN).read_text().strip()
        asked = {**itself, "token": token}
        server = server.believed_by(Secret.parse(token).pin)
        join(server, papers.folder, asked, None, papers.addresses)
    except FileNotFoundError as error:
        raise Unjoinable(papers.ended) from error
    except ValueError as error:
        raise Unjoinable(f"{papers.folder / TOKEN}: {error}") from error
    except Unjoinable as why:
        raise Unjoinable(f"{papers.ended}; by the token that was kept: {why}", why.status) from why
