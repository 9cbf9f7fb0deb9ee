"""What gRPC alone costs here: the same bytes to as many streams, with nothing behind them.

`python -m meshfed.xds.floor` is a process with a bare grpc.aio server, with the options and the
mutual TLS of the control plane's. It says its port, and is told what to do by lines of JSON.
"""

import asyncio
import base64
import json
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import grpc

from meshfed.xds.door import Call
from meshfed.xds.listening import OPTIONS, Tls, credentials
from meshfed.xds.server import METHODS, SERVICE


class Bare:
    """Accepts streams, greets them, and writes the same to all of them when told to."""

    def __init__(self) -> None:
        self.greeting: list[bytes] = []
        self._streams: list[Call] = []
        self._expected = 0
        self._met = asyncio.Event()

    async def serve(self, _: object, call: Call) -> None:
        await call.read()
        for body in self.greeting:
            await call.write(body)
        self._streams.append(call)
        try:
            while await call.read() is not grpc.aio.EOF:
                self._expected -= 1
                if self._expected == 0:
                    self._met.set()
        finally:
            self._streams.remove(call)

    async def push(self, body: bytes, streams: int) -> dict[str, float]:
        """To so many, until each has answered; seconds of the wall clock and of CPU."""
        some = self._streams[:streams]
        self._met.clear()
        self._expected = len(some)
        began, cpu = time.monotonic(), time.process_time()
        async with asyncio.TaskGroup() as tasks:
            for call in some:
                tasks.create_task(self._write(call, body))
        await self._met.wait()
        return {"began": began, "cpu": time.process_time() - cpu, "streams": len(some)}

    async def _write(self, call: Call, body: bytes) -> None:
        await call.write(body)


async def main(papers: Iterable[Path]) -> None:
    chain, key, roots = (path.read_bytes() for path in papers)
    bare = Bare()
    server = grpc.aio.server(options=OPTIONS)
    handler = grpc.stream_stream_rpc_method_handler(bare.serve)
    handlers = dict.fromkeys(METHODS, handler)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
    port = server.add_secure_port("127.0.0.1:0", credentials(lambda: Tls(chain, key, roots)))
    await server.start()
    print(json.dumps({"port": port}), flush=True)
    loop, lines = asyncio.get_running_loop(), asyncio.StreamReader(limit=1 << 26)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    while line := await lines.readline():
        order = json.loads(line)
        bodies = [base64.b64decode(body) for body in order["bodies"]]
        if order["do"] == "greet":
            bare.greeting = bodies
            print("{}", flush=True)
        else:
            taken = await bare.push(b"".join(bodies), order["streams"])
            print(json.dumps(taken), flush=True)
    await server.stop(0)


if __name__ == "__main__":
    asyncio.run(main(map(Path, sys.argv[1:])))
