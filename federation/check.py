"""What is wrong in a set of files, and what in them would have no effect, before they are used."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import chain
from pathlib import Path
from typing import TextIO

from meshfed.catalog.access import Unresolved, access
from meshfed.catalog.document import Document, Unreadable, documents, first_key
from meshfed.catalog.document import Path as Keys
from meshfed.catalog.model import (
    Identity,
    Mesh,
    Observation,
    Policy,
    Rejected,
    Service,
    ServiceName,
    Specified,
    TrafficTarget,
)
from meshfed.catalog.ranges import NO_RANGES, Ranges
from meshfed.catalog.resolved import resolve
from meshfed.catalog.rows import KINDS
from meshfed.federation.certificates import issuer as issuers
from meshfed.federation.certificates.issuer import UnknownIssuer
from meshfed.federation.certificates.keys import Unsealable
from meshfed.federation.findings import nearest, unknown
from meshfed.federation.sections import (
    Certificates,
    KubernetesEntry,
    ProviderEntry,
    SpecificationEntry,
)
from meshfed.federation.settings import Refused, Settings, known_keys, only
from meshfed.federation.specification.files import Held, Text, held, piped, scan
from meshfed.providers import hostfile
from meshfed.providers.kubernetes.kubeconfig import lacking
from meshfed.providers.kubernetes.options import Where, options
from meshfed.providers.provider import load

STDIN = Path("-")
POLICY_KEYS = frozenset({"apiVersion", "kind", "metadata", "spec"})
HOSTS_KEYS = frozenset({"services", "hosts", "_meta"})
LONG = 4_000_000  # characters of one file: some seconds
EMPTY = "empty: there is nothing in it to check"


class Kind(StrEnum):
    """What a file is for."""

    CONFIGURATION = "configuration"
    HOSTS = "host list"
    POLICY = "policy"
    NOTHING = "nothing"  # no document in it


@dataclass(frozen=True, slots=True)
class Checked:
    """What was read, and what was found."""

    read: tuple[tuple[str, Kind], ...] = ()
    rejected: tuple[Rejected, ...] = ()
    unresolved: tuple[Rejected, ...] = ()  # right, and without effect


@dataclass(frozen=True, slots=True)
class HostText:
    """A host list, and how its provider would read it."""

    text: Text
    provider: str = "hosts"
    format: str = ""
    virtual: Ranges = NO_RANGES  # of the mesh whose configuration names it


@dataclass(frozen=True, slots=True)
class Input:
    """Everything that is to be checked together."""

    configurations: tuple[Text, ...] = ()
    host_lists: tuple[HostText, ...] = ()
    policies: tuple[Text, ...] = ()
    rejected: tuple[Rejected, ...] = ()
    partial: bool = False  # some providers can only be asked when they run
    elsewhere: bool = False  # there are policies that are in no file

    def __add__(self, other: "Input") -> "Input":
        hosts = {each.text.file: each for each in (*self.host_lists, *other.host_lists)}
        return Input(
            (*self.configurations, *other.configurations),
            tuple(hosts.values()),
            tuple(dict.fromkeys((*self.policies, *other.policies))),
            (*self.rejected, *other.rejected),
            self.partial or other.partial,
            self.elsewhere or other.elsewhere,
        )

    @property
    def long(self) -> Iterator[Text]:
        """What takes a while."""
        hosts = (each.text for each in self.host_lists)
        return (each for each in (*hosts, *self.policies) if len(each.text) > LONG)

    @property
    def read(self) -> Iterator[tuple[str, Kind]]:
        yield from ((text.file, Kind.CONFIGURATION) for text in self.configurations)
        yield from ((each.text.file, Kind.HOSTS) for each in self.host_lists)
        yield from ((text.file, Kind.POLICY) for text in self.policies)


def kind(text: Text) -> Kind:
    """What a file is for, by what is in it. Raises Unreadable."""
    key = first_key(text.text)
    if key is None or key in HOSTS_KEYS:
        return Kind.HOSTS  # a long list is read once, by whoever checks it
    first = next(documents(text.text, text.file), None)
    if first is None:
        return Kind.NOTHING
    if not isinstance(first.data, dict):
        return Kind.HOSTS  # a table, or a list of targets
    keys = {str(key) for key in first.data}
    if keys & POLICY_KEYS:
        return Kind.POLICY
    if keys & HOSTS_KEYS:
        return Kind.HOSTS
    if any(nearest(key, known_keys(), cutoff=0.8) for key in keys):
        return Kind.CONFIGURATION
    every = [*known_keys(), *sorted(HOSTS_KEYS | POLICY_KEYS)]
    if misspelt := next((str(key) for key in first.data if nearest(str(key), every)), ""):
        raise Unreadable(first.reject((misspelt,), unknown(misspelt, every)))
    why = "neither a configuration nor a host list nor SMI"
    raise Unreadable(first.reject((), why))


def sorted_out(texts: Iterable[Text]) -> Input:
    """Each file where it belongs."""
    found = Input()
    for text in texts:
        try:
            if text.fault:
                found += Input(rejected=(Rejected(text.file, "", text.fault),))
                continue
            match kind(text):
                case Kind.CONFIGURATION:
                    found += Input(configurations=(text,))
                case Kind.HOSTS:
                    found += Input(host_lists=(HostText(text),))
                case Kind.POLICY:
                    found += Input(policies=(text,))
        except Unreadable as unreadable:
            found += Input(rejected=(unreadable.rejected,))
    return found


def checked(given: Input) -> Checked:
    """Everything together: each file by itself, then what they say of each other."""
    seen = [
        hostfile.check(each.text.text, each.text.file, each.provider, each.format, each.virtual)
        for each in given.host_lists
    ]
    specified = held(Held(), given.policies).specified("files")
    rejected = (
        *given.rejected,
        *chain.from_iterable(_said(each) for each in seen),
        *(why for _, _, why in specified.rejected),
    )
    whole = bool(seen) and not given.partial and not any(each.fault for each in seen)
    found = unresolved(specified, seen, whole=whole, elsewhere=given.elsewhere)
    return Checked(tuple(given.read), rejected, tuple(found))


def _said(seen: Observation) -> Iterator[Rejected]:
    yield from seen.rejected
    if seen.fault:
        yield Rejected("", "", seen.fault)  # it names its line


def unresolved(
    specified: Specified, seen: Sequence[Observation], *, whole: bool, elsewhere: bool
) -> Iterator[Rejected]:
    """Policies that have no effect; about identities and services only where all are known.

    Where there are policies `elsewhere`, what a policy refers to may be there.
    """
    where = {(KINDS[type(policy)], str(policy.name)): at for policy, at in specified.policies}
    policies = tuple(policy for policy, _ in specified.policies)
    if elsewhere:
        found: Iterable[Unresolved] = ()
    elif not whole:
        found = access(policies).unresolved
    else:
        found = resolve(Mesh("mesh.local", services=_services(seen), policies=policies)).unresolved
    for each in found:
        yield Rejected(where.get((each.kind, each.name), ""), each.name, each.why)
    if whole:
        known = {w.identity for each in seen for w in each.workloads}
        for policy, at in specified.policies:
            for identity in _nobodies(policy, known):
                yield Rejected(at, str(policy.name), f"nobody is {identity}")


def _nobodies(policy: Policy, known: set[Identity | None]) -> list[Identity]:
    if not isinstance(policy, TrafficTarget):
        return []
    return sorted({policy.destination, *policy.sources} - known)


def _services(seen: Iterable[Observation]) -> Mapping[ServiceName, Service]:
    services: dict[ServiceName, Service] = {}
    for service in (service for each in seen for service in each.services):
        known = services.get(service.name, service)
        ports = {port.number: port for port in (*service.ports, *known.ports)}
        services[service.name] = Service(service.name, tuple(ports[n] for n in sorted(ports)))
    return services


def named(written: Document, base: Path, environ: Mapping[str, str]) -> Input:
    """The files that a configuration names, or what is wrong in it."""
    try:
        settings = Settings.of(written, base, environ)
    except Refused as refused:
        return Input(rejected=refused.rejected, partial=True)
    found = Input(rejected=tuple(_certificates(written, settings.certificates)))
    for n, entry in enumerate(settings.providers):
        found += _observed(written, n, entry, settings)
    for n, source in enumerate(settings.specification):
        found += _specified(written, n, source, settings.base)
    return found


def _certificates(written: Document, entry: Certificates) -> Iterator[Rejected]:
    """Whether there is such an issuer, and a key that stands is one; it may be made later."""
    try:
        issuers.load(entry.issuer)
    except UnknownIssuer as error:
        yield written.reject(("certificates", "issuer"), str(error).removeprefix("issuer: "))
    try:
        entry.seal.key()
    except Unsealable as error:
        if not isinstance(error.__cause__, PermissionError):  # its owner alone may read it
            yield written.reject(("certificates", "key_file"), str(error))


def _observed(written: Document, n: int, entry: ProviderEntry, settings: Settings) -> Input:
    base = settings.base
    try:
        if entry.type != "hosts":
            load(entry.type)(name=entry.name, options=entry.options, base=base)
        else:
            path, form = hostfile.chosen(entry.options)
    except ValueError as error:
        key, _, why = str(error).partition(": ")
        at: Keys = ("providers", n, *key.split("."))
        return Input(rejected=(written.reject(at, why),), partial=True)
    if entry.type == "kubernetes":
        where = options(entry.name, entry.options, base).where
        return Input(rejected=_reached(written, ("providers", n), where), partial=True)
    if entry.type != "hosts":
        return Input(partial=True)
    try:
        text = Text(shown(base / path), hostfile.read(base / path, path))
    except Unreadable as unreadable:
        why = str(unreadable.rejected)
        return Input(rejected=(written.reject(("providers", n, "path"), why),), partial=True)
    listed = HostText(text, entry.name, form, settings.mesh.ranges)
    return Input(host_lists=(listed,))


def _specified(written: Document, n: int, entry: SpecificationEntry, base: Path) -> Input:
    if isinstance(entry, KubernetesEntry):
        where, _ = entry.reached(base)
        return Input(rejected=_reached(written, ("specification", n), where), elsewhere=True)
    path = shown(base / entry.path)
    seen = scan(Path(path))
    if seen.fault:
        why = f"{path}: {seen.fault}"
        return Input(rejected=(written.reject(("specification", n, "path"), why),))
    return Input(policies=seen.texts)


def _reached(written: Document, at: Keys, where: Where) -> tuple[Rejected, ...]:
    """What a kubeconfig lacks; no cluster is asked."""
    if not (why := lacking(where, shown)):
        return ()
    context = why.removeprefix("context: ")
    key = "kubeconfig" if context == why else "context"
    return (written.reject((*at, key), context),)


def shown(path: Path) -> str:
    """A path as short as it can be from here."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def check(paths: Iterable[Path], stdin: TextIO, environ: Mapping[str, str]) -> Checked:
    return checked(gathered(paths, stdin, environ))


def gathered(paths: Iterable[Path], stdin: TextIO, environ: Mapping[str, str]) -> Input:
    """Files, folders and `-`, each taken for what it looks like; a configuration with its files."""
    given = sorted_out(chain.from_iterable(_texts(path, stdin) for path in paths))
    for text in given.configurations:
        try:
            given += named(only(text.text, text.file), _folder(text.file), environ)
        except Refused as refused:
            given += Input(rejected=refused.rejected, partial=True)
    return given


def _texts(path: Path, stdin: TextIO) -> Iterator[Text]:
    if path == STDIN:
        text = piped(stdin)
        yield replace(text, fault=EMPTY) if not text.fault and _empty(text) else text
        return
    seen = scan(path)
    if seen.fault:
        yield Text(str(path), fault=seen.fault)
    for text in seen.texts:
        # In a folder it is nobody's mistake; by its name it was meant to be something.
        yield (
            text if path.is_dir() or text.fault or not _empty(text) else replace(text, fault=EMPTY)
        )


def _empty(text: Text) -> bool:
    return all(not line.strip() or line.lstrip().startswith("#") for line in text.text.splitlines())


def _folder(file: str) -> Path:
    return Path.cwd() if file == "stdin" else Path(file).absolute().parent
