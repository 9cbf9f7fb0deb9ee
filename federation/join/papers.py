"""What a machine has of joining: a folder with its certificate, and where it joined with which."""

import json
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from cryptography import x509

from meshfed.catalog.times import stamp
from meshfed.federation.certificates import proxyfiles
from meshfed.xds.bootstrap import (
    BUNDLE,
    BUNDLE_SDS,
    CERTIFICATE,
    CERTIFICATE_SDS,
    KEY,
)

PORT = 15129
LATEST = 1e11  # seconds since the epoch, in year 5138: no certificate is issued after it
OURS = "meshfed"  # the folder in /etc
JOINED = "join.json"  # where it joined, for renewing and leaving
TOKEN = "token"  # one that was kept, for joining again
CAPTURE = "capture.json"  # what of its traffic goes through its sidecar, where it is intercepted
WRITTEN = (
    proxyfiles.ENVOY,
    *(KEY, CERTIFICATE, BUNDLE, CERTIFICATE_SDS, BUNDLE_SDS, JOINED, TOKEN, CAPTURE),
)


class Unjoinable(Exception):
    """Why this machine did not join; one line. The server's status, where it was the server."""

    def __init__(self, why: str, status: int = 0) -> None:
        super().__init__(why)
        self.status = status


@dataclass(frozen=True, slots=True)
class Server:
    """Where the join server is, and the roots that its certificate must lead to (PEM).

    Where those are not known yet, the SHA-256 of one of them.
    """

    host: str
    port: int
    roots: str = ""
    pin: bytes = b""

    @classmethod
    def parse(cls, url: str) -> Self:
        """Raises ValueError."""
        parts = urlsplit(url)
        if parts.scheme != "https" or not parts.hostname or parts.path.strip("/") or parts.query:
            raise ValueError(f"{url!r} is not https://HOST:PORT")
        return cls(parts.hostname, parts.port or PORT)

    def believed_by(self, pin: bytes) -> Self:
        """The same, whose roots are not known yet: one of them has this SHA-256."""
        return replace(self, pin=pin)

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"https://{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Papers:
    """What this machine has from joining before."""

    url: str
    trust_domain: str
    name: str
    folder: Path
    bundle: str = field(repr=False)
    issued_at: float  # seconds since the epoch, by this machine's clock
    not_before: float
    not_after: float
    addresses: tuple[str, ...] = ()  # which it gave for its own
    probes: tuple[str, ...] = ()
    imds: str = ""  # where Azure attested what this machine is, if that let it in
    interception: str = "explicit"
    ports: tuple[int, ...] = ()  # of its applications, if it is called

    @classmethod
    def read(cls, folder: Path) -> "Papers | None":
        """None when it never joined. Raises Unjoinable when they are of no use."""
        try:
            said = json.loads((folder / JOINED).read_text())
            certificate = x509.load_pem_x509_certificate((folder / CERTIFICATE).read_bytes())
            bundle = (folder / BUNDLE).read_text()
            begins = certificate.not_valid_before_utc.timestamp()
            ends = certificate.not_valid_after_utc.timestamp()
            who = str(said["url"]), str(said["trust_domain"]), str(said["name"])
            issued_at = float(said.get("issued_at", begins))
            if not abs(issued_at) < LATEST:
                raise ValueError("issued at no moment")
            addresses = tuple(map(str, said.get("addresses", ())))
            probes = tuple(map(str, said.get("probes", ())))
            imds = str(said.get("imds", ""))
            life = issued_at, begins, ends
            interception = str(said.get("interception", "explicit"))
            ports = tuple(map(int, said.get("ports", ())))
            return cls(*who, folder, bundle, *life, addresses, probes, imds, interception, ports)
        except FileNotFoundError:
            return None
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise Unjoinable(f"{folder}: damaged: remove it, and join with a token") from error

    @property
    def server(self) -> Server:
        """Where it joined, believed by the roots it has. Raises Unjoinable."""
        try:
            return replace(Server.parse(self.url), roots=self.bundle)
        except ValueError as error:
            raise Unjoinable(f"{self.folder / JOINED}: url: {error}") from error

    def valid(self, now: float) -> bool:
        return now < self.not_after

    def due(self, now: float) -> bool:
        """Two thirds of its life are over, or the clock says that it has not begun."""
        renew_at = self.issued_at + (self.not_after - self.issued_at) * 2 / 3
        return not self.not_before <= now < renew_at

    @property
    def ended(self) -> str:
        """What to do once it has."""
        ended = f"the certificate of {self.name} ended at {stamp(self.not_after)}"
        return f"{ended}: join with a new token, after `meshfed deregister {self.name}` if need be"


def keep(folder: Path, token: str) -> None:
    """Keep a token, readable by the folder's owner alone. Raises OSError."""
    (folder / TOKEN).unlink(missing_ok=True)
    proxyfiles.put(folder / TOKEN, token.encode())


def remove(folder: Path) -> None:
    """Take away what joining wrote, and the folder if nothing else is in it. Raises OSError."""
    ours = (*(folder / name for name in WRITTEN), *folder.glob("..*"))
    for path in ours:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    for each in (folder, folder.parent):
        if not any(each.iterdir()) and each.name in (folder.name, OURS):
            each.rmdir()
