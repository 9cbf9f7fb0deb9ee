"""Stores one observation after another, and says which are stored: a program made to be killed.

`python ingest.py URL` waits for lines with the number to begin at. Each is done by a child of its
own, whose pid is said first, and whose end is said last: to start Python anew would cost a second.
"""

import asyncio
import os
import sys
from contextlib import closing

from meshfed.catalog.model import Endpoint, Identity, Known, Port, Service, ServiceName, Workload
from meshfed.catalog.store import Away, Catalog

SCOPES = 3
AGAIN = 0.02  # seconds, where the database is away


def cause(n: int) -> str:
    return f"observation {n}"


def observation(n: int) -> Known:
    """Every one differs from the one before it, of the same scope, in each of its endpoints."""
    scope, place = f"rack/{n % SCOPES}", n % SCOPES
    service, identity = ServiceName(f"store-{place}", "shop"), Identity("store", "shop")
    hosts = [
        Workload(f"store-{place}-{i}", "rack", scope, identity=identity, addresses=(address,))
        for i in range(20 + n % 7)
        for address in (f"10.0.{place}.{i}",)
    ]
    endpoints = [
        Endpoint(service, 80, host.addresses[0], 80, host.id, "rack", scope,
                 identity=identity, weight=n + 1)
        for host in hosts
    ]  # fmt: skip
    services = {Service(service, (Port(80, "http"),))}
    return Known("rack", scope, frozenset(services), frozenset(hosts), frozenset(endpoints))


async def ingest(url: str, n: int) -> None:
    with closing(Catalog(url)) as catalog:
        while True:
            try:
                revision = await catalog.believe(observation(n), kind="hosts", cause=cause(n))
            except Away:
                await asyncio.sleep(AGAIN)
                continue
            # In one piece: where nothing is buffered, `print` writes the end of a line by itself.
            print(f"{n} {revision}\n", end="", flush=True)
            n += 1


def main() -> None:
    for line in sys.stdin:
        if pid := os.fork():
            os.waitpid(pid, 0)
            print("ended", flush=True)
        else:
            print(f"pid {os.getpid()}", flush=True)
            asyncio.run(ingest(sys.argv[1], int(line)))


if __name__ == "__main__":
    main()
