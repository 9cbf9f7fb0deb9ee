"""Finding out what `doctor` tells of: the database, the ports, the clock, and who answers."""

import asyncio
import os
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from cryptography import x509

from meshfed.catalog import file as files
from meshfed.catalog import virtual
from meshfed.catalog.bearings import unwritable
from meshfed.catalog.ranges import Ranges
from meshfed.catalog.store import Away, Catalog, Unfit, pending
from meshfed.federation.certificates.keys import Unsealable
from meshfed.federation.explain import doctor, probes, seen
from meshfed.federation.explain.doctor import Door, Store
from meshfed.federation.explain.facts import Facts, gathered
from meshfed.federation.explain.step import Step
from meshfed.federation.fields import Address, CatalogUrl
from meshfed.federation.lead import host
from meshfed.federation.settings import Settings
from meshfed.providers import provider
from meshfed.providers.provider import Examinable, Examined

PATIENCE = 1.0  # seconds for an answer of a control plane on this machine


def examined(settings: Settings, url: str) -> Iterator[Step]:
    """Part by part; after a database that cannot be read there is little to add."""
    store = _store(url)
    yield from doctor.database(store)
    if store.away or store.pending:
        yield from doctor.ports(_doors(settings), running_here=None)
        return
    facts = gathered(url)
    yield doctor.clock(time.time(), facts.bearings.now, _newest(facts))
    yield from doctor.control_plane(facts)
    yield from doctor.ports(_doors(settings), running_here=_here(facts))
    yield from doctor.providers(seen.provided(url))
    yield from doctor.platforms(asyncio.run(_platforms(settings)))
    yield from doctor.platforms(asyncio.run(_webhooks(settings, url)))
    yield from doctor.policies(facts, seen.refused(url))
    yield from doctor.virtual_ips(facts.mesh.services.values(), asyncio.run(_ranges(url)))
    yield from _certificates(settings, url, facts.now)
    yield from doctor.proxies(facts)
    endpoints = [e for there in facts.mesh.endpoints.values() for e in there]
    wanted = probes.places(endpoints)
    yield from doctor.applications(endpoints, probes.answering(wanted), len(wanted))


async def _platforms(settings: Settings) -> list[tuple[str, Examined]]:
    """What providers find out about their platforms from here, with this environment."""
    found: list[tuple[str, Examined]] = []
    for entry in settings.providers:
        try:
            made = provider.load(entry.type)(
                name=entry.name, options=entry.options, base=settings.base
            )
        except ValueError as error:
            remedy = "correct it; `meshfed validate` says where it stands"
            found.append((entry.name, Examined("its configuration", str(error), remedy)))
            continue
        if isinstance(made, Examinable):
            found += [(entry.name, each) async for each in made.examine()]
    return found


async def _webhooks(settings: Settings, url: str) -> list[tuple[str, Examined]]:
    """What API servers say of the webhook that the configuration has, if any."""
    if settings.injection.listen is None:
        return []
    # With it comes the client of Kubernetes, for whoever needs it.
    from meshfed.federation.inject.examine import examined as webhooks

    with closing(Catalog(url)) as catalog:
        standing = await catalog.authority()
    return [each async for each in webhooks(settings, standing[0] if standing else "")]


def _here(facts: Facts) -> bool:
    return socket.gethostname() in map(host, facts.alive)


def _newest(facts: Facts) -> float | None:
    """The latest moment that anybody wrote down."""
    moments = [replica.seen_at for replica in facts.bearings.replicas]
    if facts.bearings.committed_at is not None:
        moments.append(facts.bearings.committed_at)
    return max(moments, default=None)


def _store(url: str) -> Store:
    where = shown(url)
    file = sqlite_file(url)
    if file is not None and not file.is_file():
        there = files.DIRECTORY if file.is_dir() else "there is no catalog here"
        return Store(where, f"{file}: {there}")
    try:
        lacking, why_deaf = tuple(pending(url)), asyncio.run(_deaf(url))
    except (Away, Unfit) as why:
        return Store(where, f"{why}{_denied(file)}")
    free = None
    if file is not None:
        usage = shutil.disk_usage(file.absolute().parent)
        free = usage.free / usage.total
    unwritable = "" if lacking else _unwritable(url, file)
    return Store(where, "", lacking, why_deaf, unwritable, free)


async def _ranges(url: str) -> Ranges:
    with closing(Catalog(url)) as catalog:
        return await catalog.ask(virtual.ranges)


async def _deaf(url: str) -> str:
    with closing(Catalog(url)) as catalog:
        return await catalog.deaf()


def _unwritable(url: str, file: Path | None) -> str:
    why = unwritable(url)
    return f"{why}{_denied(file)}" if why else ""


def _denied(file: Path | None) -> str:
    """What the file system has against it, where that is the cause."""
    if file is None:
        return ""
    for path, wanted, what in (
        (file, os.R_OK, "may not be read"),
        (file, os.W_OK, "may not be written"),
        (file.absolute().parent, os.W_OK | os.X_OK, "is a folder that may not be written"),
    ):
        if path.exists() and not os.access(path, wanted, effective_ids=True):
            return f" ({path} {what} by this user)"
    return ""


def shown(url: str) -> str:
    """A database's URL without its password."""
    return CatalogUrl(url).shown


def sqlite_file(url: str) -> Path | None:
    file = files.sqlite_file(url)
    return None if file is None else Path(file)


def _doors(settings: Settings) -> tuple[Door, ...]:
    """The ports of a configuration; port 0 is any free one, which nobody can look for."""
    admin, xds = settings.admin.listen, settings.xds.listen
    ours = _healthy(admin) if admin.port else False
    named = {
        "admin.listen": admin,
        "xds.listen": xds,
        "xds.tokens": settings.xds.tokens,
        "injection.listen": settings.injection.listen,
    }
    return tuple(
        Door(name, str(listen), _answers(listen), ours)
        for name, listen in named.items()
        if listen is not None and listen.port
    )


def _answers(listen: Address) -> bool:
    return asyncio.run(probes.answers(_dialled(listen), listen.port, PATIENCE))


def _dialled(listen: Address) -> str:
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(listen.host, listen.host)


def _healthy(listen: Address) -> bool | None:
    """Whether a control plane answers; None where nothing is said, as by one that is stopped."""
    connection = HTTPConnection(_dialled(listen), listen.port, timeout=PATIENCE)
    try:
        connection.request("GET", "/healthz")
        response = connection.getresponse()
        return response.status == 200 and response.read() == b"ok\n"
    except TimeoutError:
        return None
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def _certificates(settings: Settings, url: str, now: float) -> Iterator[Step]:
    async def authority() -> tuple[str, bytes] | None:
        with closing(Catalog(url)) as catalog:
            return await catalog.authority()

    standing = asyncio.run(authority())
    ends, sealed = None, ""
    if standing is not None:
        certificate = x509.load_pem_x509_certificate(standing[0].encode())
        ends = certificate.not_valid_after_utc.timestamp()
        sealed = _sealed(settings, standing[1])
    yield from doctor.certificates(ends, sealed, seen.certified(url), now)


def _sealed(settings: Settings, secret: bytes) -> str:
    """Why the root's key cannot be opened here; not asked where no key of it ever was."""
    seal = settings.certificates.seal
    try:
        if seal.key() is None:
            return "" if settings.file is None else f"{seal.path}: the key is missing"
        seal.open(secret)
    except Unsealable as why:
        return str(why)
    return ""
