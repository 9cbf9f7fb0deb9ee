"""Whether a kubeconfig says what cluster is meant and how it is reached, before any is asked."""

import base64
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from meshfed.catalog.document import Document, Unreadable, documents
from meshfed.catalog.document import Path as Keys
from meshfed.catalog.model import Rejected
from meshfed.providers.hostlist import nearest
from meshfed.providers.kubernetes.options import Where

NONE = "no kubeconfig: it has `contexts`, `clusters` and `users`"
FILES = ("certificate-authority", "client-certificate", "client-key", "tokenFile")
TEXTS = ("proxy-url", "tls-server-name")  # of a cluster
PEM = ("certificate-authority-data", "client-certificate-data", "client-key-data")


@dataclass(frozen=True, slots=True)
class Entry:
    """A context, a cluster or a user, and where it stands."""

    document: Document
    at: Keys
    said: Mapping[str, object]

    def wrong(self, key: str, why: str) -> Unreadable:
        return Unreadable(self.document.reject((*self.at, key), why))


def parsed(text: str, file: str) -> Document:
    """Raises Unreadable."""
    found = list(documents(text, file))
    if len(found) != 1 or not isinstance(found[0].data, dict):
        raise Unreadable(Rejected(f"{file}:1", "", NONE))
    return found[0]


def entries(found: Iterable[Document], kind: str) -> dict[str, Entry]:
    """The contexts, clusters or users by name; of two of one name the first counts.

    Raises Unreadable.
    """
    named: dict[str, Entry] = {}
    for each in found:
        several = _mapping(each.data).get(kind) or ()
        if not isinstance(several, Sequence) or isinstance(several, str):
            raise Unreadable(each.reject((kind,), "not a list: begin each with `-`"))
        for number, one in enumerate(several):
            at: Keys = (kind, number)
            name, said = (_mapping(one).get(key) for key in ("name", kind[:-1]))
            if not isinstance(name, str):
                raise Unreadable(each.reject((*at, "name"), "missing: it cannot be left out"))
            if not isinstance(said, dict | None):
                raise Unreadable(each.reject((*at, kind[:-1]), "not a mapping of keys to values"))
            named.setdefault(name, Entry(each, (*at, kind[:-1]), said or {}))
    return named


def current(found: Iterable[Document]) -> str:
    said = (_mapping(each.data).get("current-context") for each in found)
    return next((str(name) for name in said if name), "")


def agree(found: Sequence[Document], context: str) -> None:
    """That a context that is there leads to a cluster that can be asked. Raises Unreadable."""
    here = entries(found, "contexts")[context]
    cluster = _named(found, here, "cluster")
    server = cluster.said.get("server")
    if not str(server).startswith(("https://", "http://")):
        raise cluster.wrong("server", f"{server!r} is no URL: it begins with https://")
    for key in TEXTS:
        if (said := cluster.said.get(key)) and not isinstance(said, str):
            raise cluster.wrong(key, f"{said!r} is no text")
    for each in (cluster, *([_named(found, here, "user")] if here.said.get("user") else ())):
        for key in PEM:
            held = each.said.get(key, "")
            if held is None:  # kubectl takes that for absent, and the client of `serve` refuses it
                raise each.wrong(key, "null: take the key away")
            if held and b"-----BEGIN" not in _decoded(held):
                raise each.wrong(key, "no PEM in base64")
        for key in FILES:
            if why := _unreadable(each, key):
                raise each.wrong(key, why)


def _named(found: Iterable[Document], here: Entry, kind: str) -> Entry:
    name, known = here.said.get(kind), entries(found, f"{kind}s")
    if name in known:
        return known[str(name)]
    why = nearest(str(name), known) if known else "there are none"
    raise here.wrong(kind, f"{name!r} is none of its {kind}s; {why}")


def _mapping(said: object) -> Mapping[str, object]:
    return said if isinstance(said, dict) else {}


def _decoded(text: object) -> bytes:
    try:
        return base64.b64decode(str(text))
    except ValueError:
        return b""


def _unreadable(entry: Entry, key: str) -> str:
    """Why a file is not there, which is meant from where the kubeconfig is."""
    if not entry.said.get(key):
        return ""
    path = Path(entry.document.file).parent / str(entry.said[key])
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError) as error:
        return f"{path}: {error.strerror}"
    except OSError:  # its owner alone may look
        return ""
    return ""


def files(named: Path | None) -> str:
    """The file, or those of this user, as kubectl finds them; several with `:` in between."""
    own = os.environ.get("KUBECONFIG") or str(Path.home() / ".kube" / "config")
    return str(named) if named else own


def there(where: Where) -> list[Path]:
    """Of several only those that exist count."""
    paths = [Path(each) for each in files(where.kubeconfig).split(os.pathsep) if each]
    return [each for each in paths if where.kubeconfig or each.exists()]


def lacking(where: Where, shown: Callable[[Path], str] = str) -> str:
    """Why no cluster would be found; nothing where only its user can know. Raises nothing.

    `file:line: field: why`, or `context: why`. Without a file that is named it is that of whoever
    runs `serve`, who may be somebody else.
    """
    if where.in_cluster:
        return ""
    try:
        return wrong([(shown(path), path.read_text()) for path in there(where)], where.context)
    except PermissionError:  # its owner alone may read it
        return ""
    except OSError as error:
        return f"{shown(Path(str(error.filename)))}: {error.strerror}"
    except ValueError as error:
        return f"kubeconfig: not UTF-8 ({error}): save the file as UTF-8"


def wrong(texts: Iterable[tuple[str, str]], context: str) -> str:
    """What is wrong with these texts, each with its name: as `lacking` says it."""
    try:
        found = [parsed(text, name) for name, text in texts]
        contexts = entries(found, "contexts")
        wanted, names = context or current(found), ", ".join(each.file for each in found)
        if found and not wanted:
            return f"context: missing: {names} has no current-context"
        if found and wanted not in contexts:
            why = nearest(wanted, contexts) if contexts else "there are none"
            return f"context: {wanted!r} is none of {names}; {why}"
        if found:
            agree(found, wanted)
    except Unreadable as unreadable:
        return str(unreadable.rejected)
    return ""
