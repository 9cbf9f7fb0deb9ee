"""SMI in files: a folder of manifests, or one, read again whenever it changes."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Iterable, Iterator, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from watchfiles import awatch
from watchfiles._rust_notify import WatchfilesRustInternalError

from meshfed.catalog.document import Unreadable, documents
from meshfed.catalog.model import ObjectName, Rejected, Specified
from meshfed.federation.specification.smi import Refused, Stated, parse

SUFFIXES = (".yaml", ".yml", ".json")
DEBOUNCE_MS, STEP_MS = 20, 5
POLL_MS = 1000  # for what no event tells of: network file systems
QUIET_S = 0.05  # saving by rename, or in several writes, leaves a moment with less in the folder
PATIENCE = 20  # times QUIET_S; a folder that never rests is believed all the same
MOST_LINKS = 40  # as Linux follows (path_resolution(7))

Said = tuple[Stated | Refused, ...]


@dataclass(frozen=True, slots=True)
class Text:
    """A file as it was read, or why it could not be."""

    file: str
    text: str = ""
    fault: str = ""
    inode: int = 0


@dataclass(frozen=True, slots=True)
class Held:
    """What each file of a source says. What one said before it broke, the catalog keeps."""

    files: Mapping[Text, Said] = field(default_factory=dict)

    def specified(self, source: str) -> Specified:
        """All files together; of an object that stands twice, the first counts."""
        first: dict[tuple[str, ObjectName], Stated] = {}
        rejected: list[tuple[ObjectName | None, str, Rejected]] = []
        for said in (said for file in self.files.values() for said in file):
            if isinstance(said, Refused):
                rejected += [(said.name, said.kind, why) for why in said.rejected]
            elif (known := first.setdefault((said.kind, said.name), said)) is not said:
                why = f"{said.kind} {said.name} stands at {known.where} already"
                row = Rejected(said.where, "metadata.name", why)
                rejected.append((said.name, said.kind, row))
        policies = tuple((stated.policy, stated.where) for stated in first.values())
        return Specified(source, policies, tuple(rejected))

    def may_be_half(self, now: "Held") -> bool:
        """Whether somebody may be saving a file: it is gone, or broken, or written in place."""
        news = now.files.keys() - self.files.keys()
        before = {text.file: text.inode for text in self.files}
        return (
            bool(before.keys() - {text.file for text in now.files})
            or any(before.get(text.file) == text.inode for text in news)
            or any(
                isinstance(o, Refused) and o.name is None for text in news for o in now.files[text]
            )
        )


def held(before: Held, texts: Iterable[Text]) -> Held:
    """What the files say; one that did not change is not read again."""
    return Held({text: before.files.get(text) or said(text) for text in texts})


def said(text: Text) -> Said:
    """The objects in a file, each by itself right or wrong."""
    if text.fault:
        return _wrong(Rejected(f"{text.file}:1", "", text.fault))
    if not text.text.strip():
        # Not believed: to open a file for writing empties it first.
        return _wrong(Rejected(f"{text.file}:1", "", "empty: delete it, or leave a comment in it"))
    try:
        return tuple(each for found in documents(text.text, text.file) for each in parse(found))
    except Unreadable as unreadable:
        return _wrong(unreadable.rejected)


def _wrong(rejected: Rejected) -> Said:
    return (Refused("", None, (rejected,)),)


@dataclass(frozen=True, slots=True)
class Places:
    """Where in the file system a change of the source would be seen."""

    folders: frozenset[str]  # whatever happens in these
    turns: frozenset[str]  # the source itself, and links on the way to what it says

    def concern(self, _: object, path: str) -> bool:
        below = path + os.sep
        return str(Path(path).parent) in self.folders or any(
            turn == path or turn.startswith(below) for turn in self.turns
        )

    def watched(self) -> set[str]:
        """The folders to watch: of one that does not exist, the nearest that could bring it."""
        holding = {Path(turn).parent for turn in self.turns}
        return {_existing(folder) for folder in holding | set(map(Path, self.folders))}


@dataclass(frozen=True, slots=True)
class Scan:
    """The files of a source at one moment."""

    texts: tuple[Text, ...] = ()
    fault: str = ""  # why the source could not be read at all


class FilesSpecification:
    """SMI in one file, or in every .yaml, .yml and .json under a folder."""

    def __init__(self, path: Path, source: str) -> None:
        self.source = source
        self._path = path.absolute()
        self._held = Held()

    async def watch(self) -> AsyncIterator[Specified]:
        last: Specified | None = None
        while True:
            async with _armed(await asyncio.to_thread(places, self._path)) as changed:
                specified = await self._read()
                if specified != last:
                    last = specified
                    yield specified
                await changed

    async def _read(self) -> Specified:
        seen, now = await asyncio.to_thread(self._look)
        for _ in range(PATIENCE):
            if not (seen.fault or self._held.may_be_half(now)):
                break
            await asyncio.sleep(QUIET_S)
            before, (seen, now) = seen, await asyncio.to_thread(self._look)
            if seen == before:
                break
        if seen.fault:
            return Specified(self.source, fault=f"{self._path}: {seen.fault}")
        self._held = now
        return now.specified(self.source)

    def _look(self) -> tuple[Scan, Held]:
        seen = scan(self._path)
        return seen, held(self._held, seen.texts)


@asynccontextmanager
async def _armed(where: Places) -> AsyncIterator[Awaitable[None]]:
    """A watch that is set before the body reads, so that no change falls between the two."""
    changes = awatch(
        *where.watched(),
        watch_filter=where.concern,
        debounce=DEBOUNCE_MS,
        step=STEP_MS,
        rust_timeout=POLL_MS,
        yield_on_timeout=True,
        recursive=False,
    )
    async with aclosing(changes):
        change = asyncio.create_task(_first(changes))
        await asyncio.sleep(0)  # the task's first step sets the watch
        try:
            yield change
        finally:
            change.cancel()
            with suppress(asyncio.CancelledError):
                await change


async def _first(changes: AsyncIterator[object]) -> None:
    try:
        await anext(changes)
    # A folder went just now; the system has no more watches to give; or a file has a name that is
    # not text, which watchfiles cannot tell of.
    except* (OSError, WatchfilesRustInternalError):
        await asyncio.sleep(POLL_MS / 1000)


def piped(stdin: TextIO) -> Text:
    try:
        text = stdin.read()
        text.encode()  # a locale without UTF-8 reads any byte, and fails here
    except UnicodeError:
        return Text("stdin", fault="not UTF-8 text")
    return Text("stdin", text)


def scan(path: Path) -> Scan:
    """Read a file, or every manifest under a folder. Blocks."""
    try:
        if path.is_dir():
            return Scan(tuple(_text(file) for file in _files(_folders(path))))
        path.stat()
    except OSError as error:
        return Scan(fault=error.strerror or str(error))
    return Scan((_text(path),))


def places(path: Path) -> Places:
    """Where to look for changes of what `scan` reads. Blocks."""
    try:
        folders = list(_folders(path)) if path.is_dir() else []
        links = [each for each in (*folders, *_files(folders)) if each.is_symlink()]
        turns = [str(turn) for each in (path, *links) for turn in _turns(each)]
    except OSError:  # the scan says so
        return Places(frozenset(), frozenset([str(path)]))
    return Places(frozenset(map(str, folders)), frozenset(turns))


def _folders(root: Path) -> Iterator[Path]:
    """A folder and all in it; hidden ones left out, as ConfigMaps keep their old versions there."""

    def fail(error: OSError) -> None:
        raise error

    seen: set[str] = set()
    for folder, inside, _ in os.walk(root, onerror=fail, followlinks=True):
        real = os.path.realpath(folder)
        inside[:] = [] if real in seen else sorted(n for n in inside if not n.startswith("."))
        if real not in seen:
            seen.add(real)
            yield Path(folder)


def _files(folders: Iterable[Path]) -> Iterator[Path]:
    for folder in folders:
        for file in sorted(folder.iterdir()):
            named = file.suffix in SUFFIXES and not file.name.startswith(".")
            if named and (file.is_file() or not file.exists()):  # a link to nothing is a fault
                yield file


def _text(file: Path) -> Text:
    name = os.fsencode(file).decode(errors="backslashreplace")  # databases keep nothing but text
    if file.exists() and not file.is_file():  # a pipe, or a device, would never end
        return Text(name, fault="not a file: what is piped is read as `-`")
    try:
        with file.open(encoding="utf-8-sig") as opened:
            return Text(name, opened.read(), inode=os.fstat(opened.fileno()).st_ino)
    except OSError as error:
        return Text(name, fault=f"cannot be read: {error.strerror}")
    except UnicodeDecodeError as error:
        return Text(name, fault=f"not UTF-8 text (byte {error.start})")


def _turns(path: Path, links: int = MOST_LINKS) -> Iterator[Path]:
    """A path, and every link that leads to what it names."""
    yield path
    for each in reversed((path, *path.parents)):
        if links and each.is_symlink():
            yield each
            target = os.path.normpath(each.parent / os.readlink(each))  # noqa: PTH115
            yield from _turns(Path(target) / path.relative_to(each), links - 1)
            return


def _existing(path: Path) -> str:
    return str(next(each for each in (path, *path.parents) if _is_folder(each)))


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # it stands in a folder that is closed to us
        return False
