"""YAML and JSON text that still knows the line of every value in it."""

from collections.abc import Iterator
from dataclasses import dataclass

import yaml
from pydantic import ValidationError

from meshfed.catalog.model import Rejected

Path = tuple[str | int, ...]


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
    loader = yaml.CSafeLoader(text)
    try:
        while loader.check_node():
            node: yaml.Node = loader.get_node()  # type: ignore[assignment]  # checked above
            lines: dict[Path, int] = {}
            data = _plain(loader, node, (), lines, file)
            if data is not None:
                yield Document(file, data, lines)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        why = f"not YAML: {error.problem or error.context}"
        raise Unreadable(Rejected(f"{file}:{mark.line + 1 if mark else 1}", "", why)) from error
    except (yaml.YAMLError, RecursionError) as error:
        raise Unreadable(Rejected(f"{file}:1", "", f"not YAML: {error}")) from error
    finally:
        loader.dispose()


def dotted(path: Path) -> str:
    """`("hosts", 3, "port")` as a person writes it: `hosts[3].port`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


def _plain(
    loader: yaml.CSafeLoader, node: yaml.Node, path: Path, lines: dict[Path, int], file: str
) -> object:
    lines[path] = node.start_mark.line + 1
    if isinstance(node, yaml.MappingNode):
        loader.flatten_mapping(node)  # `<<: *defaults`
        plain: dict[object, object] = {}
        for key_node, value_node in node.value:
            key = loader.construct_object(key_node, deep=True)
            if isinstance(key, (dict, list)):
                raise _unreadable(key_node, file, "a key must be a scalar")
            if key in plain:
                raise _unreadable(key_node, file, f"the key {key!r} stands here twice")
            at = (*path, str(key))
            plain[key] = _plain(loader, value_node, at, lines, file)
            lines[at] = key_node.start_mark.line + 1
        return plain
    if isinstance(node, yaml.SequenceNode):
        return [
            _plain(loader, item, (*path, index), lines, file)
            for index, item in enumerate(node.value)
        ]
    try:
        return loader.construct_object(node, deep=True)
    except ValueError as error:  # a date that is none
        raise _unreadable(node, file, str(error)) from error


def _unreadable(node: yaml.Node, file: str, why: str) -> Unreadable:
    return Unreadable(Rejected(f"{file}:{node.start_mark.line + 1}", "", why))
