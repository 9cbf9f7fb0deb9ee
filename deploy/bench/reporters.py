"""Proxies that only report: a load report each, every few seconds, over mutual TLS of its own.

`python reporters.py HOST:PORT CLUSTERS FOLDER…`, a folder for each with what `proxy bootstrap`
writes; each says that it called so many services. A process of its own, as proxies.py.
"""

import asyncio
import random
import sys
from collections.abc import Iterable
from pathlib import Path

from envoy.service.load_stats.v3.lrs_pb2 import LoadStatsRequest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, StreamEnded, StreamReset, TrailersReceived
from proxies import HEADERS, STREAM, tls

from meshfed.xds.loads import INTERVAL

METHOD = "/envoy.service.load_stats.v3.LoadReportingService/StreamLoadStats"
APART = 0.005  # seconds between two that connect


def report(name: str, services: Iterable[str]) -> bytes:
    """A gRPC message: one second of a busy caller, and one call that has not ended."""
    made = LoadStatsRequest()
    made.node.id = name
    for service in services:
        cluster = made.cluster_stats.add(cluster_name=f"{service}.bench|80")
        cluster.load_report_interval.seconds = INTERVAL
        each = cluster.upstream_locality_stats.add(
            total_successful_requests=99,
            total_error_requests=1,
            total_issued_requests=100,
            total_requests_in_progress=1,
        )
        each.locality.region, each.locality.zone = "onprem", "rack-1"
        each.locality.sub_zone = "host"
    body = made.SerializeToString()
    return b"\0" + len(body).to_bytes(4, "big") + body


class Reporter(asyncio.Protocol):
    """One conversation, for as long as it is let; `ended` is why it was over."""

    def __init__(self, message: bytes) -> None:
        self._message = message
        self._http = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._http.initiate_connection()
        headers = [(k, METHOD if k == ":path" else v) for k, v in HEADERS]
        self._http.send_headers(STREAM, headers)
        self.report()

    def data_received(self, data: bytes) -> None:
        for event in self._http.receive_data(data):
            match event:
                case DataReceived():
                    self._http.acknowledge_received_data(event.flow_controlled_length, STREAM)
                case TrailersReceived():
                    self._end(str(dict(event.headers or ())))
                case StreamEnded() | StreamReset():
                    self._end("the stream ended")
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(f"the connection is gone: {exc}")

    def report(self) -> None:
        self._http.send_data(STREAM, self._message)
        self._flush()

    def _flush(self) -> None:
        if said := self._http.data_to_send():
            self._transport.write(said)

    def _end(self, why: str) -> None:
        if not self.ended.done():
            self.ended.set_result(why)


async def repeat(reporter: Reporter) -> str:
    """Why it was over."""
    await asyncio.sleep(random.uniform(0, INTERVAL))  # as if they had started at any time
    while not reporter.ended.done():
        reporter.report()
        await asyncio.sleep(INTERVAL)
    return reporter.ended.result()


async def everyone(address: str, clusters: int, folders: list[str]) -> str:
    """All of them until the first one's conversation is over; why that was."""
    host, _, port = address.rpartition(":")
    loop, running = asyncio.get_running_loop(), []
    for papers in map(Path, folders):
        services = [f"app-{n}" for n in range(clusters)]
        _, reporter = await loop.create_connection(
            lambda name=papers.name, called=services: Reporter(report(name, called)),
            host,
            int(port),
            ssl=tls(papers),
        )
        running.append(asyncio.create_task(repeat(reporter)))
        await asyncio.sleep(APART)
    done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
    return done.pop().result()


if __name__ == "__main__":
    sys.exit(asyncio.run(everyone(sys.argv[1], int(sys.argv[2]), sys.argv[3:])))
