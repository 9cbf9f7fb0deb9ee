"""YAML and JSON text that still knows the line of every value in it."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import yaml
from pydantic import ValidationError

from meshfed.catalog.model import Rejected

Path = tuple[str | int, ...]

DEEPEST = 100  # levels; libyaml's composer recurses in C, and 30,000 of them end the process
TOO_DEEP = f"nested more than {DEEPEST} levels deep"
DEEPER = "exceeded maximum nesting depth"  # newer scanners of libyaml's say so ahead of the event
# PyYAML takes 10:30:00 for 37,800, as YAML 1.1 did; YAML 1.2 and kubectl do not.
NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
TEXT = "tag:yaml.org,2002:str"
SPREAD = 10  # values a character; a text has far fewer, unless its aliases multiply


@dataclass(frozen=True, slots=True)
class Document:
    """One document of a file: plain data, and the line on which each value stands (from 1)."""

    file: str
    data: object
    lines: dict[Path, int]

    def line(self, path: Path) -> int:
        """The line of a value, or of the nearest thing around it that is there."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)

    def reject(self, path: Path, why: str) -> Rejected:
        return Rejected(f"{self.file}:{self.line(path)}", dotted(path), why)

    def rejections(self, error: ValidationError, at: Path = ()) -> tuple[Rejected, ...]:
        """pydantic's findings about the value at `at`, each with its line."""
        return tuple(
            self.reject((*at, *found["loc"]), found["msg"].removeprefix("Value error, "))
            for found in error.errors(include_url=False)
        )


class Unreadable(Exception):
    """Text that is not YAML; `rejected` says where and why."""

    def __init__(self, rejected: Rejected) -> None:
        super().__init__(str(rejected))
        self.rejected = rejected


def documents(text: str, file: str) -> Iterator[Document]:
    """Every non-empty document of a YAML (or JSON) text. Raises Unreadable."""
    try:
        yield from _Reading(text, file).documents()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        why = TOO_DEEP if error.problem == DEEPER else f"not YAML: {error.problem or error.context}"
        raise _unreadable(file, mark.line if mark else 0, why) from error
    except yaml.reader.ReaderError as error:
        line = text.encode()[: error.position].count(b"\n")
        raise _unreadable(file, line, f"not YAML: {error.reason}") from error


def first_key(text: str) -> str | None:
    """Of a text that is a mapping, however long; None of a list; "" where that is not plain."""
    try:
        events = islice(yaml.parse(text, Loader=yaml.CSafeLoader), 2, 4)  # after stream, document
        if isinstance(next(events, None), yaml.SequenceStartEvent):
            return None
        key = next(events, None)
    except yaml.YAMLError:  # `documents` says where
        return ""
    return str(key.value) if isinstance(key, yaml.ScalarEvent) else ""


def dotted(path: Path) -> str:
    """`("hosts", 3, "port")` as a person writes it: `hosts[3].port`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


def _unreadable(file: str, line: int, why: str) -> Unreadable:
    return Unreadable(Rejected(f"{file}:{line + 1}", "", why))


class _Loader(yaml.CSafeLoader):
    """Counts how deep its composer is, which tells of each node that it descends to."""

    depth = 0

    def descend_resolver(self, parent: yaml.Node | None, _: object) -> None:
        self.depth += 1
        if parent and self.depth > DEEPEST + 1:  # something stands in what is too deep itself
            raise yaml.MarkedYAMLError(problem=DEEPER, problem_mark=parent.start_mark)

    def ascend_resolver(self) -> None:
        self.depth -= 1


class _Reading:
    """A text whose nodes become plain data, one document after the other."""

    def __init__(self, text: str, file: str) -> None:
        self._loader = _Loader(text)
        self._file = file
        self._left = SPREAD * len(text)
        self._lines: dict[Path, int] = {}
        self._around: set[int] = set()  # the nodes that are being made plain

    def documents(self) -> Iterator[Document]:
        try:
            while self._loader.check_node():
                node: yaml.Node = self._loader.get_node()  # type: ignore[assignment]  # checked above
                self._lines = {}
                data = self._plain(node, ())
                if data is not None:
                    yield Document(self._file, data, self._lines)
        finally:
            self._loader.dispose()

    def _plain(self, node: yaml.Node, path: Path) -> object:
        self._lines[path] = node.start_mark.line + 1
        self._left -= 1
        if self._left < 0:
            raise self._refused(node, "its aliases make too much of it: write less with them")
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node)
        if id(node) in self._around:
            raise self._refused(
                node, "an alias in it stands for the whole of it: it would never end"
            )
        self._around.add(id(node))
        if isinstance(node, yaml.MappingNode):
            plain: object = self._mapping(node, path)
        else:
            plain = [self._plain(item, (*path, index)) for index, item in enumerate(node.value)]
        self._around.remove(id(node))
        return plain

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[object, object]:
        self._loader.flatten_mapping(node)  # `<<: *defaults`
        plain: dict[object, object] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise self._refused(key_node, "a key must be a scalar")
            key = self._scalar(key_node)
            if key in plain:
                raise self._refused(key_node, f"the key {key!r} stands here twice")
            at = (*path, str(key))
            plain[key] = self._plain(value_node, at)
            self._lines[at] = key_node.start_mark.line + 1
        return plain

    def _scalar(self, node: yaml.Node) -> object:
        if ":" in str(node.value) and node.tag in NUMBERS:
            return str(node.value)
        try:  # text, as most is, stands there as it is meant
            value = node.value if node.tag == TEXT else self._loader.construct_object(node)
        except ValueError as error:  # a date that is none
            raise self._refused(node, str(error)) from error
        except (LookupError, AttributeError) as error:  # what PyYAML raises for `!!bool maybe`
            raise self._refused(node, f"{node.value!r} is not what its tag says") from error
        if isinstance(value, str) and "\0" in value:
            raise self._refused(node, "a NUL stands in it, which Postgres cannot keep")
        return value

    def _refused(self, node: yaml.Node, why: str) -> Unreadable:
        return _unreadable(self._file, node.start_mark.line, why)
