"""What the configuration says of the whole mesh, made so; it may be edited while the mesh runs."""

import asyncio
import os

import structlog

from meshfed.catalog.store import Away, Catalog
from meshfed.federation.presence import Presence
from meshfed.federation.settings import Refused, Settings
from meshfed.providers import watch

PAUSE = 1.0  # seconds before a catalog that is away is asked again

log = structlog.get_logger()


async def heed(settings: Settings, catalog: Catalog, presence: Presence) -> None:
    """`mesh.permissive`, `mesh.virtual_ranges` and `federation`, now and whenever edited."""
    changed = asyncio.Event()
    try:
        async with asyncio.TaskGroup() as tasks:
            if settings.file is not None:
                tasks.create_task(watch.follow(settings.file, changed))
            tasks.create_task(_heed(settings, changed, catalog, presence))
    finally:
        presence.forget("configuration")


async def _heed(
    settings: Settings, changed: asyncio.Event, catalog: Catalog, presence: Presence
) -> None:
    seen: watch.Mark | None = None
    await _configure(settings, catalog, presence)
    while True:
        if settings.file is not None:
            before, seen = seen, await watch.quiet(settings.file, seen)
            # What wakes is any word of its folder, and a catalog may be written to in there.
            if seen != before:
                settings = _reread(settings)
                await _configure(settings, catalog, presence)
        await changed.wait()
        changed.clear()


def _reread(settings: Settings) -> Settings:
    """The configuration that runs, with what of it may change as the file has it now."""
    try:
        now = Settings.read(settings.file, os.environ)
    except Refused as refused:
        log.warning("configuration refused", reason=str(refused), kept="the one before")
        return settings
    live = {name: getattr(now.mesh, name) for name in ("permissive", "virtual_ranges")}
    mesh = settings.mesh.model_copy(update=live)
    heeded = settings.model_copy(update={"mesh": mesh, "federation": now.federation})
    if keys := differing(heeded, now):
        log.warning("restart needed", keys=", ".join(keys), why="only a start reads them")
    return heeded


def differing(running: Settings, now: Settings) -> list[str]:
    """The keys, down to the second level, that have another value."""
    old, new = running.model_dump(), now.model_dump()
    return [
        f"{key}.{name}" if name else key
        for key in new
        for name in (new[key] if isinstance(new[key], dict) else [""])
        if (old[key][name] != new[key][name] if name else old[key] != new[key])
    ]


async def _configure(settings: Settings, catalog: Catalog, presence: Presence) -> None:
    while True:
        try:
            revision = await configure(settings, catalog)
        except Away as away:
            presence.lost("configuration", away)
            await asyncio.sleep(PAUSE)
        else:
            presence.found("configuration")
            break
    if revision is not None:
        log.info("configured", permissive=settings.mesh.permissive, revision=revision)


async def configure(settings: Settings, catalog: Catalog) -> int | None:
    """The new revision, or None when the mesh was so already. Raises Away."""
    mesh, federation = settings.mesh, settings.federation
    return await catalog.configure(
        mesh.trust_domain, mesh.permissive, federation.preferences, mesh.ranges
    )
