"""A follower in a process of its own: `python follower.py CATALOG`.

It says, for each revision once it has the mesh of it: the revision, when by the monotonic clock
that all processes share, and the CPU seconds that it had used before it heard of it.
"""

import asyncio
import sys
import time
from contextlib import closing

from meshfed.catalog.store import Catalog


async def follow(url: str) -> None:
    with closing(Catalog(url)) as catalog:
        mesh = await catalog.read()
        async for _ in catalog.follow():
            spent = time.process_time()
            mesh, _ = await catalog.advance(mesh)
            print(mesh.revision, time.monotonic(), spent, flush=True)


if __name__ == "__main__":
    asyncio.run(follow(sys.argv[1]))
