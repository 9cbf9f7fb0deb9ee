"""Says what is wrong with an object where its owner looks: in an Event on it."""

import asyncio
import hashlib
import random
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

import structlog

from meshfed.providers.kubernetes.messages import Answer, Refused, status
from meshfed.providers.kubernetes.reflect import TROUBLE, Pace, pause

LONGEST = 1024  # characters of a message
NAME = 220  # characters of an object's name in the name of its Event, which has 253
SAID = 409  # there is this very Event already, by whoever led before
LATER = frozenset({429, 500, 502, 503, 504})

log = structlog.get_logger()


class Posts(Protocol):
    """One cluster's API."""

    def post(
        self, path: str, thing: Mapping[str, object]
    ) -> AbstractAsyncContextManager[Answer]: ...


@dataclass(frozen=True, slots=True)
class Notice:
    """What is wrong with which state of an object."""

    api_version: str
    kind: str
    namespace: str
    name: str
    uid: str
    generation: str  # of the object: it moves with what is written, not with what is noted beside
    why: str

    @property
    def path(self) -> str:
        return f"/api/v1/namespaces/{self.namespace}/events"

    def event(self, now: datetime) -> dict[str, object]:
        """The same notice is the same Event, whoever writes it: it is there once."""
        told = "\n".join((self.uid, self.generation, self.why))
        digest = hashlib.sha256(told.encode()).hexdigest()[:16]
        at = now.strftime("%Y-%m-%dT%H:%M:%SZ")
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{self.name[:NAME]}.{digest}", "namespace": self.namespace},
            "involvedObject": {
                "apiVersion": self.api_version,
                "kind": self.kind,
                "namespace": self.namespace,
                "name": self.name,
                "uid": self.uid,
            },
            "type": "Warning",
            "reason": "Rejected",
            "message": self.why[:LONGEST],
            "source": {"component": "meshfed"},
            "reportingComponent": "meshfed",
            "firstTimestamp": at,
            "lastTimestamp": at,
            "count": 1,
        }


class Notices:
    """Each is written once; what cannot be written now is written later, or given up and logged."""

    def __init__(
        self, api: Posts, pace: Pace, now: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self._api = api
        self._pace = pace
        self._now = now
        self._standing: frozenset[Notice] = frozenset()
        self._waiting: dict[Notice, None] = {}  # in the order in which they came
        self._wake = asyncio.Event()

    def stand(self, notices: frozenset[Notice]) -> None:
        """This is all that is wrong now."""
        for notice in sorted(notices - self._standing, key=str):
            self._waiting[notice] = None
        for notice in self._standing - notices:
            self._waiting.pop(notice, None)
        self._standing = notices
        self._wake.set()

    async def run(self) -> None:
        failures = 0
        while True:
            await self._wake.wait()
            self._wake.clear()
            while notice := next(iter(self._waiting), None):
                try:
                    await self._write(notice)
                except TROUBLE as error:
                    if not failures:
                        self._failed(notice, error)
                    failures += 1
                    await self._pace.rest(pause(failures, self._pace, random.random()))
                else:
                    failures = 0
                    self._waiting.pop(notice, None)

    async def _write(self, notice: Notice) -> None:
        """Raises what may be over soon."""
        async with (
            asyncio.timeout(self._pace.idle),
            self._api.post(notice.path, notice.event(self._now())) as answer,
        ):
            body = await answer.read()
        if answer.status in (200, 201, SAID):
            return
        refused = Refused(answer.status, status(body).message)
        if answer.status in LATER:
            raise refused
        self._failed(notice, refused)

    def _failed(self, notice: Notice, why: Exception) -> None:
        about = f"{notice.kind} {notice.namespace}/{notice.name}"
        log.warning("event not written", object=about, reason=str(why) or "no answer in time")
