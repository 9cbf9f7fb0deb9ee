"""How long the parts take by themselves, called as the control plane calls them."""

import asyncio
import time
from collections.abc import Callable
from contextlib import closing
from itertools import cycle, islice
from pathlib import Path
from typing import TypeVar

import given
from figures import Figure

from meshfed.catalog.model import Known, Mesh, Observation
from meshfed.catalog.resolved import resolve
from meshfed.catalog.store import Catalog, migrate
from meshfed.catalog.view import proxy_class, view
from meshfed.federation.admit import admit
from meshfed.federation.specification.files import Held, Text, held
from meshfed.providers.hostfile import check
from meshfed.providers.hosts import uncollected
from meshfed.xds.snapshot import snapshot

SCOPE = 1_000  # endpoints of the scope in which one changes
SERVICES = 100  # that a proxy may call
HOSTS = 10_000  # of the list that is parsed

T = TypeVar("T")


def timed(act: Callable[[], T]) -> tuple[float, T]:
    """Milliseconds, and what came of it."""
    began = time.perf_counter()
    made = act()
    return 1000 * (time.perf_counter() - began), made


def listed(text: str) -> Observation:
    return check(text, "hosts.yaml", provider="rack", kind="meshfed")


def parsing(times: int) -> Figure:
    text = given.host_list(HOSTS)
    with uncollected():  # as the provider reads it
        taken = [timed(lambda: listed(text))[0] for _ in range(times)]
    return Figure(
        f"a list of {HOSTS:,} hosts parsed",
        tuple(taken),
        f"{len(text) >> 10} KiB of YAML to services, workloads and endpoints, with their lines",
    )


async def believing(catalog: Catalog, times: int) -> list[Figure]:
    """The catalog knows a scope already; its list then differs in one endpoint."""
    lists = cycle([listed(given.host_list(SCOPE, weight=weight)) for weight in (2, 1)])
    reading, deciding, writing = [], [], []
    for seen in islice(lists, times):
        began = time.perf_counter()
        before = await catalog.known("rack", seen.scope) or Known("rack", seen.scope)
        read = time.perf_counter()
        after = admit(before, seen).known
        decided = time.perf_counter()
        await catalog.believe(after, kind="hosts", cause="")
        written = time.perf_counter()
        reading.append(1000 * (read - began))
        deciding.append(1000 * (decided - read))
        writing.append(1000 * (written - decided))
    scope = f"one endpoint of a scope of {SCOPE:,} changes"
    return [
        Figure(f"{scope}: known read", tuple(reading), "what is known of the scope, from SQLite"),
        Figure(f"{scope}: admit", tuple(deciding), "the guardrail alone, pure"),
        Figure(f"{scope}: believe", tuple(writing), "difference, rows, history, commit in SQLite"),
    ]


def viewing(mesh: Mesh, times: int) -> list[Figure]:
    """One proxy's class may call every service of the mesh."""
    resolved = resolve(mesh)
    workload = next(each for each in mesh.workloads.values() if each.name == "host-0")
    kind = proxy_class(mesh, workload, resolved)
    resolving = [timed(lambda: resolve(mesh))[0] for _ in range(times)]
    making = [timed(lambda: snapshot(view(mesh, kind, resolved)))[0] for _ in range(times)]
    return [
        Figure(
            f"{SERVICES} services: view + snapshot of a proxy class",
            tuple(making),
            "clusters, listeners and routes of a proxy that may call all of them, as bytes",
        ),
        Figure(
            f"{SERVICES} services: policies resolved",
            tuple(resolving),
            "once for all classes, whenever services or policies change",
        ),
    ]


async def inside(folder: Path, times: int) -> list[Figure]:
    url = f"sqlite:///{folder / 'inside.db'}"
    await asyncio.to_thread(migrate, url)
    policies = held(Held(), [Text("access.yaml", given.access(SCOPE))])
    with closing(Catalog(url)) as catalog:
        await catalog.configure(given.DOMAIN, permissive=False)
        await catalog.specify(policies.specified("files:policy"))
        await believing(catalog, 1)  # the first is a thousand endpoints
        believed = await believing(catalog, times)
        mesh = await catalog.read()
    return [*believed, *viewing(mesh, times), parsing(max(5, times // 4))]
