"""What can go wrong with an API server, when a test says so."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from meshfed.demo.kube.objects import Refusal
from meshfed.demo.kube.store import Store, Told

REASONS = {
    401: "Unauthorized", 403: "Forbidden", 404: "NotFound", 409: "Conflict", 410: "Expired",
    429: "TooManyRequests", 500: "InternalError", 503: "ServiceUnavailable", 504: "Timeout",
}  # fmt: skip


@dataclass
class Failing:
    left: int
    status: int
    retry_after: int | None
    verb: str
    plural: str

    def hits(self, verb: str, plural: str) -> bool:
        return self.left > 0 and self.verb in ("", verb) and self.plural in ("", plural)


class Faults:
    """Used from the tests' threads; `call` runs a function in the server's loop."""

    def __init__(self, store: Store, call: Callable[[Callable[[], object]], object]) -> None:
        self.store = store
        self.call = call
        self.failing: list[Failing] = []
        self.silent = False
        self.without_watchlist = False

    def fail(
        self,
        times: int,
        status: int,
        *,
        retry_after: int | None = None,
        verb: str = "",
        plural: str = "",
    ) -> None:
        """The next requests, of a verb and plural if given, are answered by a Status."""
        self.failing.append(Failing(times, status, retry_after, verb, plural))

    def compact(self) -> None:
        """Watches and lists that go on from any revision before this one are told 410."""
        self.call(self.store.compact)

    def drop_watches(self, *, abruptly: bool = False) -> None:
        """Running watches end: as when their time is over, or with their connection."""
        self.call(lambda: self.store.tell(Told(end=True, cut=abruptly)))

    def expire_watches(self) -> None:
        """Running watches are told 410, and end."""
        gone = b'{"type":"ERROR","object":{"kind":"Status","apiVersion":"v1","metadata":{},'
        gone += b'"status":"Failure","message":"too old resource version","reason":"Expired",'
        gone += b'"code":410}}\n'
        self.call(lambda: self.store.tell(Told(gone, end=True)))

    def say(self, line: bytes) -> None:
        """Running watches are sent this line, whatever it is."""
        self.call(lambda: self.store.tell(Told(line)))

    def bookmark(self) -> None:
        """Running watches that asked for bookmarks are sent one now."""
        self.call(lambda: self.store.tell(Told(bookmark=True)))

    @contextmanager
    def half_open(self) -> Iterator[None]:
        """Connections are accepted, and stand; nothing is answered on them, ever.

        What was asked in the meantime stays without an answer afterwards too, as it does
        when packets were lost.
        """
        self.call(lambda: setattr(self, "silent", True))
        self.call(lambda: self.store.tell(Told(silent=True)))
        try:
            yield
        finally:
            self.call(lambda: setattr(self, "silent", False))

    def injected(self, verb: str, plural: str) -> Refusal | None:
        """The failure that this request meets."""
        for each in self.failing:
            if each.hits(verb, plural):
                each.left -= 1
                reason = REASONS.get(each.status, "InternalError")
                said = f"the tests say {each.status}"
                return Refusal(each.status, reason, said, retry_after=each.retry_after)
        return None
