"""Lists and watches."""

import asyncio
import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import AsyncGenerator, Iterable
from contextlib import suppress
from dataclasses import dataclass

from meshfed.demo.kube.asked import Asked, Target
from meshfed.demo.kube.kinds import Kind
from meshfed.demo.kube.objects import Key, Object, Refusal, bad_request, encode, expired, too_large
from meshfed.demo.kube.selectors import Selects, fielded, labelled
from meshfed.demo.kube.store import Change, Store, Stored, Told, Watcher

LATEST = -1  # a continued list whose first page is forgotten goes on with what there is now
INITIAL_END = {"k8s.io/initial-events-end": "true"}
LONGEST = 1800.0  # seconds a watch lives unless its client says less
AT_ONCE = 500  # events in one write


class Cut(Exception):
    """The connection goes, in the middle of whatever it is."""


@dataclass(frozen=True)
class Page:
    kind: Kind
    metadata: Object
    items: tuple[Stored, ...]

    def encoded(self) -> bytes:
        head = {
            "kind": f"{self.kind.name}List",
            "apiVersion": self.kind.api_version,
            "metadata": self.metadata,
        }
        items = b",".join(item.encoded(self.kind) for item in self.items)
        return encode(head)[:-1] + b',"items":[' + items + b"]}"


def selects(kind: Kind, of: Target, asked: Asked) -> Selects:
    """What a request selects of a kind. Raises Refusal."""
    labels, fields = labelled(asked.labels), fielded(asked.fields, kind)

    def selected(thing: Object) -> bool:
        there = not of.namespace or thing["metadata"].get("namespace") == of.namespace
        return there and labels(thing) and fields(thing)

    return selected


def page(store: Store, kind: Kind, of: Target, asked: Asked) -> Page:
    """A list, or the next part of one. Raises Refusal."""
    selected = selects(kind, of, asked)
    revision, start = store.revision, ("", "")
    if asked.proceed:
        revision, start = _mark(asked.proceed)
        if revision != LATEST and revision < store.floor:
            why = "The provided continue parameter is too old to display a consistent list result."
            raise expired(why, proceed(LATEST, start))
        revision = store.revision if revision == LATEST else revision
    elif asked.revision:
        if int(asked.revision) > store.revision:
            raise too_large(int(asked.revision), store.revision)
        revision = int(asked.revision) if asked.match == "Exact" else revision
    held = store.all(kind, revision)
    keys = sorted(at for at, each in held.items() if at > start and selected(each.of(kind)))
    metadata: Object = {"resourceVersion": str(revision)}
    # The watch cache answers for resourceVersion=0, and it does not page.
    if asked.limit and asked.revision != "0" and len(keys) > asked.limit:
        metadata["continue"] = proceed(revision, keys[asked.limit - 1])
        if not (asked.labels or asked.fields):
            metadata["remainingItemCount"] = len(keys) - asked.limit
        keys = keys[: asked.limit]
    return Page(kind, metadata, tuple(held[at] for at in keys))


def proceed(revision: int, start: Key) -> str:
    return urlsafe_b64encode(encode([revision, *start])).decode().rstrip("=")


def _mark(text: str) -> tuple[int, Key]:
    try:
        revision, namespace, name = json.loads(urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except ValueError as error:
        raise bad_request(f"continue key is not valid: {error}") from error
    return revision, (namespace, name)


def event(what: str, shown: bytes) -> bytes:
    return b'{"type":"%s","object":%s}\n' % (what.encode(), shown)


def bookmark(kind: Kind, revision: int, annotations: Object | None = None) -> bytes:
    metadata: Object = {"resourceVersion": str(revision), "creationTimestamp": None}
    if annotations:
        metadata["annotations"] = annotations
    shown = {"kind": kind.name, "apiVersion": kind.api_version, "metadata": metadata}
    return event("BOOKMARK", encode(shown))


def told(change: Change, kind: Kind, selected: Selects) -> bytes:
    """A change as one who selects sees it: what leaves a selection is deleted for them."""
    now = selected(change.now.of(kind))
    before = change.before is not None and selected(change.before.of(kind))
    if change.what == "DELETED":
        return event("DELETED", change.now.encoded(kind)) if now or before else b""
    if now:
        return event("MODIFIED" if before else "ADDED", change.now.encoded(kind))
    if not before or change.before is None:
        return b""
    gone = change.before.of(kind)
    metadata = {**gone["metadata"], "resourceVersion": str(change.revision)}
    return event("DELETED", encode({**gone, "metadata": metadata}))


async def watch(
    store: Store, kind: Kind, of: Target, asked: Asked, every: float
) -> AsyncGenerator[bytes]:
    """Lines of a watch, some at a time. Raises Refusal before the first, and Cut."""
    selected = selects(kind, of, asked)
    if asked.revision and int(asked.revision) > store.revision:
        raise too_large(int(asked.revision), store.revision)
    initial = asked.initial if asked.initial is not None else asked.revision in ("", "0")
    watcher = Watcher(kind.of)
    store.watchers.add(watcher)
    try:
        try:
            yield _first(store, kind, selected, asked, initial)
        except Refusal as refusal:
            yield event("ERROR", encode(refusal.status))
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(asked.seconds or LONGEST):
                async for lines in _following(store, kind, selected, watcher, asked, every):
                    yield lines
    finally:
        store.watchers.discard(watcher)


def _first(store: Store, kind: Kind, selected: Selects, asked: Asked, initial: bool) -> bytes:
    """All that is known when a watch begins. Raises Refusal."""
    if not initial:
        since = store.since(kind, int(asked.revision or store.revision))
        return b"".join(told(change, kind, selected) for change in since)
    held = sorted(store.all(kind).items())
    shown = [event("ADDED", e.encoded(kind)) for _, e in held if selected(e.of(kind))]
    if asked.initial and asked.bookmarks:
        shown.append(bookmark(kind, store.revision, INITIAL_END))
    return b"".join(shown)


async def _following(
    store: Store, kind: Kind, selected: Selects, watcher: Watcher, asked: Asked, every: float
) -> AsyncGenerator[bytes]:
    while True:
        try:
            said = [await asyncio.wait_for(watcher.queue.get(), every)]
        except TimeoutError:
            said = [Told(bookmark=True)]
        while not watcher.queue.empty() and len(said) < AT_ONCE:
            said.append(watcher.queue.get_nowait())
        if any(isinstance(each, Told) and each.silent for each in said):
            await asyncio.Event().wait()
        lines, end = _lines(store, kind, selected, said, asked.bookmarks)
        if lines:
            yield lines
        if end:
            if end.cut:
                raise Cut
            return


def _lines(
    store: Store, kind: Kind, selected: Selects, said: Iterable[Change | Told], bookmarks: bool
) -> tuple[bytes, Told | None]:
    lines = []
    for each in said:
        if isinstance(each, Change):
            lines.append(told(each, kind, selected))
            continue
        lines.append(each.line)
        if each.bookmark and bookmarks:
            lines.append(bookmark(kind, store.revision))
        if each.end or each.cut:
            return b"".join(lines), each
    return b"".join(lines), None
