"""A pooler before Postgres that gives each transaction another session, as PgBouncer's may be set.

It speaks as much of the wire protocol as that needs: https://www.postgresql.org/docs/current/protocol-flow.html
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from itertools import cycle
from struct import unpack

from sqlalchemy.engine import make_url

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]

ASKS_FOR_TLS = (80877103, 80877104)  # SSLRequest, GSSENCRequest
ENDS_A_BATCH = b"QS"  # Query and Sync: an answer follows, and ReadyForQuery
READY, TERMINATE, IDLE = b"Z", b"X", b"I"
SESSIONS = 2


async def message(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    """Its type, and all of it."""
    head = await reader.readexactly(5)
    return head[:1], head + await reader.readexactly(unpack("!I", head[1:])[0] - 4)


async def startup(client: Streams) -> bytes:
    while True:
        head = await client[0].readexactly(4)
        said = head + await client[0].readexactly(unpack("!I", head)[0] - 4)
        if unpack("!I", said[4:8])[0] not in ASKS_FOR_TLS:
            return said
        client[1].write(b"N")


async def until_ready(session: Streams, client: asyncio.StreamWriter | None) -> bool:
    """Carry an answer to whom it is for; whether the transaction is over."""
    while True:
        kind, said = await message(session[0])
        if client:
            client.write(said)
        if kind == READY:
            return said[-1:] == IDLE


async def drop(session: Streams) -> None:
    """What the server said meanwhile to nobody in particular: notifications."""
    with suppress(TimeoutError):
        async with asyncio.timeout(0.01):
            while True:
                await message(session[0])


async def transactions(client: Streams, sessions: list[Streams]) -> None:
    for session in cycle(sessions):
        await drop(session)
        over = False
        while not over:
            kind, said = await message(client[0])
            if kind == TERMINATE:
                return
            session[1].write(said)
            if kind in ENDS_A_BATCH:
                over = await until_ready(session, client[1])


@asynccontextmanager
async def pooled(url: str) -> AsyncIterator[str]:
    """The catalog's URL through the pooler."""
    address = make_url(url)
    socket = f"{address.query['host']}/.s.PGSQL.5432"
    tasks: set[asyncio.Task[None]] = set()

    async def connected(*client: *Streams) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        hello = await startup(client)
        sessions = [await asyncio.open_unix_connection(socket) for _ in range(SESSIONS)]
        try:
            for n, session in enumerate(sessions):
                session[1].write(hello)
                await until_ready(session, None if n else client[1])
            await transactions(client, sessions)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            for _, writer in (client, *sessions):
                writer.close()
            tasks.discard(task)

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    through = address.difference_update_query(["host"]).set(host="127.0.0.1", port=port)
    try:
        yield through.render_as_string(hide_password=False)
    finally:
        server.close()
        for task in tuple(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
