"""What `meshfed proxy bootstrap` leaves on a machine: a key, its certificate, and a start."""

import json
import os
import shutil
from collections.abc import Mapping
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path
from stat import S_ISGID
from tempfile import mkdtemp

import yaml
from cryptography.hazmat.primitives.asymmetric import ec

from meshfed.catalog.model import Identity, Workload
from meshfed.federation.certificates.issuer import Issuer, Names, Unissuable
from meshfed.federation.certificates.keypair import key_pem, pem, request
from meshfed.xds.bootstrap import BUNDLE, CERTIFICATE, KEY, bootstrap, secret_files
from meshfed.xds.grpc_bootstrap import grpc_bootstrap

ENVOY = "envoy.yaml"
GRPC = "grpc.json"
VARIABLE = "GRPC_XDS_BOOTSTRAP"  # gRPC reads the file that it names, once in a process (gRFC A27)
ADMIN = 15000  # ARCHITECTURE.md, section 6
DATA = "..data"  # the link that is swapped, as kubelet does for mounted secrets
ROOM = 64 * 1024  # bytes, more than all files of a proxy have: 7,300 with one root

Files = Mapping[str, bytes]


def identity(workload: Workload) -> Identity:
    """Who the workload is. Raises Unissuable."""
    if workload.identity is None:
        raise Unissuable(f"{workload.name} has no identity: give it one where it is declared")
    return workload.identity


def names(workload: Workload, trust_domain: str) -> Names:
    """The pair of names that a proxy shows at xDS. Raises Unissuable."""
    dns = f"{workload.id}.workload.{trust_domain}"
    return Names(identity(workload).uri(trust_domain), dns)


def admin(workload: Workload) -> str:
    """Where a sidecar's own pages are: loopback only, apart from its neighbours' on one machine."""
    try:
        own = ip_address(workload.bind).is_loopback
    except ValueError:
        own = False
    host = workload.bind if own else "127.0.0.1"
    return f"[{host}]:{ADMIN}" if ":" in host else f"{host}:{ADMIN}"


def start(
    workload: Workload, trust_domain: str, control_plane: str, admin: str, folder: Path
) -> Files:
    """Envoy's bootstrap and the file SDS that it names; the same at every renewal.

    Addresses are `host:port`. Raises ValueError when one is not.
    """
    home = folder.absolute()  # Envoy may be started from anywhere
    envoy = bootstrap(
        node_id=workload.id,
        identity=str(identity(workload)),
        control_plane=control_plane,
        trust_domain=trust_domain,
        folder=home,
        admin=admin,
        bind=workload.bind,
    )
    secrets = {name: json.dumps(text).encode() for name, text in secret_files(home).items()}
    return {ENVOY: yaml.safe_dump(envoy, sort_keys=False).encode(), **secrets}


def start_grpc(workload: Workload, control_plane: str, folder: Path) -> Files:
    """The bootstrap of a gRPC library; the same at every renewal.

    The address is `host:port`. Raises ValueError when it is not.
    """
    said = grpc_bootstrap(
        node_id=workload.id,
        identity=str(identity(workload)),
        control_plane=control_plane,
        folder=folder.absolute(),  # the application may be started from anywhere
    )
    return {GRPC: (json.dumps(said, indent=2) + "\n").encode()}


async def credentials(
    issuer: Issuer, workload: Workload, trust_domain: str, lifetime: timedelta
) -> Files:
    """A new key, its certificate, and the roots of the others'. Raises Unissuable."""
    return await papers(issuer, names(workload, trust_domain), lifetime)


async def papers(issuer: Issuer, names: Names, lifetime: timedelta) -> Files:
    """The same for whoever has these names. Raises Unissuable."""
    key = ec.generate_private_key(ec.SECP256R1())
    chain = await issuer.sign(request(key), names, lifetime)
    texts = {KEY: key_pem(key), CERTIFICATE: pem(chain), BUNDLE: pem(await issuer.roots())}
    return {name: text.encode() for name, text in texts.items()}


def write(folder: Path, files: Files) -> None:
    """Put all of them in place at once, readable by the folder's owner alone. Raises OSError.

    Envoy reads again when something is *moved* into the folder that it watches. Were the files
    moved one by one, it would meet the new key with the old certificate; so they stand in a folder
    of their own behind one link, and that link is what moves.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    version = Path(mkdtemp(prefix="..", dir=folder))  # 0700
    try:
        for name, content in files.items():
            put(version / name, content)
        give(folder, version)
    except OSError:
        shutil.rmtree(version)  # half a version may hold a whole key
        raise
    link(folder / DATA, version.name)
    for name in files:
        link(folder / name, f"{DATA}/{name}")
    for other in folder.glob("..*/"):
        if other.name not in (DATA, version.name):
            shutil.rmtree(other)


def room(folder: Path, size: int = ROOM) -> None:
    """Try whether so many bytes can be written there, and leave all as it was.

    Raises OSError, which names a path: of a full disk, a write alone says none.
    """
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    trial = folder / f"..trial-{os.getpid()}"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        put(trial, bytes(size))
    except OSError as error:
        at = error.filename or str(folder)
        raise OSError(error.errno, error.strerror, str(at)) from error
    finally:
        if folder.is_dir():
            trial.unlink(missing_ok=True)
        for each in missing:
            if each.is_dir():
                each.rmdir()


def put(path: Path, content: bytes) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def give(folder: Path, version: Path) -> None:
    """Renewed by root, the files stay readable by the Envoy whose folder it is, or its group's."""
    owner = folder.stat()
    shared = owner.st_mode & S_ISGID
    for path in (version, *version.iterdir()):
        if shared or owner.st_uid != os.geteuid():
            os.chown(path, owner.st_uid, owner.st_gid)
        if shared:
            path.chmod(0o750 if path.is_dir() else 0o640)


def share(folder: Path, group: int) -> None:
    """Let a group read what is there, and what will be: a bit of the folder says so.

    Raises OSError.
    """
    os.chown(folder, -1, group)
    folder.chmod(0o750 | S_ISGID)
    give(folder, folder / (folder / DATA).readlink())


def link(path: Path, target: str) -> None:
    """Make a path lead to a target, in one step; a link that does already is left alone."""
    if path.is_symlink() and str(path.readlink()) == target:
        return
    draft = path.with_name(f"..link-{os.getpid()}")
    draft.unlink(missing_ok=True)
    draft.symlink_to(target)
    draft.replace(path)
