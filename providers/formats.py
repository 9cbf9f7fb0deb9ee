"""The formats that host lists come in, each read as the same entries."""

import csv
import io
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from meshfed.catalog.document import Document, Path, Unreadable, documents, dotted
from meshfed.catalog.model import Rejected
from meshfed.providers.hostlist import HostEntry, HostList, nearest, several

FIELDS = frozenset(HostEntry.model_fields)
PLAIN = frozenset({"service", "identity", "locality", "weight", "interception", "name"})
OURS = "meshfed_"
EMPTY = "the file is empty: it says nothing of hosts"
NUMBERS = ("port", "weight")  # labels, variables and cells are often text


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry under the native names, and where it stands in its document."""

    values: object
    at: Path
    elsewhere: Mapping[str, Path] = field(default_factory=dict)  # fields that stand not under it
    row: bool = False  # of a table: its line is all the place it has

    def reject(self, document: Document, location: tuple[str | int, ...], why: str) -> Rejected:
        path = (*self.at, *location)
        if location and str(location[0]) in self.elsewhere:
            path = (*self.elsewhere[str(location[0])], *location[1:])
        while isinstance(path[-1], int) and path not in document.lines:
            path = path[:-1]  # `service[0]` of a service that is not written as a list
        where = f"{document.file}:{document.line(path)}"
        return Rejected(where, dotted(location if self.row else path), why, self.about)

    @property
    def about(self) -> tuple[str, ...]:
        """What it is called, where it is and what it serves, as far as that can be read."""
        said = self.values if isinstance(self.values, dict) else {}
        services = several(said.get("service"))
        names = (self.at[-1], *map(said.get, ("name", "address", "identity")), *services)
        return tuple(dict.fromkeys(name for name in names if isinstance(name, str)))

    def where(self, document: Document) -> str:
        return f"{document.file}:{document.line(self.at)}"


@dataclass(frozen=True, slots=True)
class Entries:
    """A file as entries, not yet checked one by one."""

    document: Document
    services: Mapping[str, Entry] = field(default_factory=dict)
    hosts: tuple[Entry, ...] = ()
    rejected: tuple[Rejected, ...] = ()
    only_services: bool = False  # the file says nothing of hosts, not even that there are none


def entries(text: str, file: str, kind: str = "") -> Entries:
    """A host list in the format `kind`, or in the one it looks like. Raises Unreadable."""
    if kind == "csv" or (not kind and _is_table(text)):
        return _table(text, file)
    # JSON may be indented with tabs, which YAML forbids; inside JSON's strings they are escaped.
    found = list(documents(text.replace("\t", " ") if text.lstrip()[:1] in "[{" else text, file))
    if not found:
        raise Unreadable(Rejected(f"{file}:1", "", EMPTY))
    document, *more = found
    if more:
        raise Unreadable(more[0].reject((), "a second document: a host list is one"))
    return READERS[kind or _kind(document.data)](document)


def _is_table(text: str) -> bool:
    header = next((line for line in text.splitlines() if line.strip()), "")
    cells = re.split(r"[,;\t]", header.lower())
    return len(cells) > 1 and any(cell.strip(' "') in FIELDS for cell in cells)


def _kind(data: object) -> str:
    if isinstance(data, list):
        return "prometheus"
    return "ansible" if isinstance(data, dict) and "_meta" in data else "meshfed"


def _native(document: Document) -> Entries:
    data = document.data
    if not isinstance(data, dict):
        raise Unreadable(document.reject((), "not a host list: it has `services` and `hosts`"))
    for key in data:
        if key not in HostList.model_fields:
            why = f"unknown key; {nearest(str(key), HostList.model_fields)}"
            raise Unreadable(document.reject((str(key),), why))
    services, hosts = data.get("services") or {}, data.get("hosts") or []
    if not isinstance(services, dict):
        raise Unreadable(document.reject(("services",), "not a mapping of names to services"))
    if not isinstance(hosts, list):
        raise Unreadable(document.reject(("hosts",), "not a list of hosts: begin each with `-`"))
    return Entries(
        document,
        {str(name): Entry(said, ("services", str(name))) for name, said in services.items()},
        tuple(Entry(host, ("hosts", index)) for index, host in enumerate(hosts)),
        only_services=bool(services) and "hosts" not in data,
    )


def _prometheus(document: Document) -> Entries:
    """file_sd: groups of targets with labels. A group without any of our labels is not ours."""
    if not isinstance(document.data, list):
        raise Unreadable(document.reject((), "not a Prometheus file_sd: a list of target groups"))
    hosts: list[Entry] = []
    rejected: list[Rejected] = []
    for index, group in enumerate(document.data):
        targets = group.get("targets") if isinstance(group, dict) else None
        labels = (group.get("labels") or {}) if isinstance(group, dict) else {}
        if not isinstance(targets, list) or not isinstance(labels, dict):
            why = "not a target group: {targets: [host:port, …], labels: {…}}"
            rejected.append(document.reject((index,), why))
            continue
        values, elsewhere = _labelled(labels, (index, "labels"))
        if not values.keys() - {"labels"}:
            continue
        for position, target in enumerate(targets):
            at: Path = (index, "targets", position)
            try:
                address, port = _host_and_port(target)
            except ValueError as error:
                rejected.append(replace(document.reject(at, str(error)), about=(str(target),)))
                continue
            host = {"name": address, **values, "address": address, "port": port}
            hosts.append(Entry(host, at, {**elsewhere, "address": at, "port": at}))
    return Entries(document, {}, tuple(hosts), tuple(rejected))


def _labelled(labels: Mapping[str, object], at: Path) -> tuple[dict[str, object], dict[str, Path]]:
    """The fields among Prometheus labels; the others stay labels, Prometheus' own (`__`) apart."""
    values: dict[str, object] = {}
    elsewhere: dict[str, Path] = {"labels": at}
    others: dict[str, object] = {}
    for key, value in labels.items():
        label = str(key)
        field_name = label.removeprefix(OURS)
        if label in PLAIN and OURS + label not in labels:
            field_name = label
        elif not label.startswith(OURS):
            if not label.startswith("__"):
                others[label] = value
            continue
        values[field_name] = _number(field_name, value)
        elsewhere[field_name] = (*at, label)
    return {**values, "labels": others} if others else values, elsewhere


def _host_and_port(target: object) -> tuple[str, object]:
    address, colon, port = str(target).rpartition(":")
    if not colon or not port.isdigit():
        raise ValueError(f"{target!r} is not host:port")
    return address.removeprefix("[").removesuffix("]"), int(port)


def _ansible(document: Document) -> Entries:
    """`ansible-inventory --list`: hosts with at least one variable meshfed_… are ours."""
    data = document.data
    meta = data.get("_meta") if isinstance(data, dict) else None
    variables = meta.get("hostvars") if isinstance(meta, dict) else None
    if not isinstance(variables, dict):
        raise Unreadable(document.reject((), "no _meta.hostvars: write ansible-inventory --list"))
    hosts: list[Entry] = []
    for name, said in variables.items():
        at: Path = ("_meta", "hostvars", str(name))
        ours = {k for k in map(str, said if isinstance(said, dict) else ()) if k.startswith(OURS)}
        if not ours:
            continue
        values: dict[str, object] = {"name": str(name), "address": said.get("ansible_host", name)}
        elsewhere: dict[str, Path] = {"address": (*at, "ansible_host")}
        for key in ours:
            known_as = key.removeprefix(OURS)
            values[known_as] = _number(known_as, said[key])
            elsewhere[known_as] = (*at, key)
        hosts.append(Entry(values, at, elsewhere))
    return Entries(document, {}, tuple(hosts))


def _table(text: str, file: str) -> Entries:
    """CSV with a header of field names; labels as `key=value`, with spaces between."""
    try:
        rows = list(_rows(text))
    except csv.Error as error:
        raise Unreadable(Rejected(f"{file}:1", "", f"not CSV: {error}")) from error
    if not rows:
        raise Unreadable(Rejected(f"{file}:1", "", EMPTY))
    (line, header), *body = rows
    columns = [cell.strip().lower() for cell in header]
    for column in columns:
        if column not in FIELDS:
            why = f"unknown column; {nearest(column, FIELDS)}"
            raise Unreadable(Rejected(f"{file}:{line}", column, why))
        if columns.count(column) > 1:
            raise Unreadable(Rejected(f"{file}:{line}", column, "the column stands here twice"))
    hosts: list[Entry] = []
    rejected: list[Rejected] = []
    for index, (line, row) in enumerate(body):
        if len(row) > len(columns):
            why = f"{len(row)} cells under {len(columns)} columns: put quotes around a cell"
            rejected.append(Rejected(f"{file}:{line}", "", why, tuple(row)))
            continue
        cells = {column: cell.strip() for column, cell in zip(columns, row, strict=False)}
        values = {column: _cell(column, cell) for column, cell in cells.items() if cell}
        unnamed = {"name": values["address"]} if "address" in values else {}
        hosts.append(Entry({**unnamed, **values}, (index,), row=True))
    lines: dict[Path, int] = {(index,): line for index, (line, _) in enumerate(body)}
    return Entries(Document(file, None, lines), {}, tuple(hosts), tuple(rejected))


def _rows(text: str) -> Iterator[tuple[int, list[str]]]:
    """The rows that are not blank, each with its first line; as spreadsheets of any country
    write them."""
    header = next((line for line in text.splitlines() if line.strip()), "")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=header.count))
    line = 1
    for row in reader:
        if any(cell.strip() for cell in row):
            yield line, row
        line = reader.line_num + 1


def _cell(column: str, text: str) -> object:
    if column != "labels":
        return _number(column, text)
    pairs = (pair.partition("=") for pair in text.split())
    return {key: value for key, _, value in pairs}


def _number(name: str, value: object) -> object:
    """A number that was written as text, as labels, variables and cells must be."""
    if name in NUMBERS and isinstance(value, str) and value.isdecimal():
        return int(value)
    return value


READERS: Mapping[str, Callable[[Document], Entries]] = {
    "meshfed": _native,
    "prometheus": _prometheus,
    "ansible": _ansible,
}
FORMATS = (*READERS, "csv")
