"""Proxies that only listen: delta ADS streams over mutual TLS that acknowledge everything at once.

`python proxies.py HOST:PORT FOLDER…`, a folder for each with what `proxy bootstrap` writes. It runs
in a process of its own: what clients cost is not the control plane's. They speak HTTP/2 by
themselves because grpcio checks a server's DNS name, and the control plane's certificate has its
SPIFFE id alone.
"""

import asyncio
import ssl
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.listener.v3.listener_pb2 import Listener
from envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2 as http,
)
from envoy.service.discovery.v3.discovery_pb2 import (
    DeltaDiscoveryRequest,
    DeltaDiscoveryResponse,
)
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, StreamEnded, StreamReset, TrailersReceived

from meshfed.xds.bootstrap import BUNDLE, CERTIFICATE, KEY
from meshfed.xds.resource import Type
from meshfed.xds.secrets import OWN

METHOD = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
HEADERS = (
    (":method", "POST"),
    (":scheme", "https"),
    (":path", METHOD),
    (":authority", "control-plane"),
    ("te", "trailers"),
    ("content-type", "application/grpc"),
)
STREAM = 1
WINDOW = 1 << 30  # no response ever waits for a window
FIRST = ((Type.CLUSTER, "*"), (Type.LISTENER, "*"), (Type.SECRET, OWN))


def framed(message: DeltaDiscoveryRequest) -> bytes:
    """A gRPC message: uncompressed, its length, itself."""
    body = message.SerializeToString()
    return b"\0" + len(body).to_bytes(4, "big") + body


def unframed(data: bytearray) -> Iterator[bytes]:
    """The whole messages at the head of a buffer, taken out of it."""
    while len(data) >= 5 and len(data) >= (end := 5 + int.from_bytes(data[1:5], "big")):
        yield bytes(data[5:end])
        del data[:end]


def routes(listeners: Iterable[Listener]) -> Iterator[str]:
    """The names that listeners take their routes from."""
    for listener in listeners:
        for chain in listener.filter_chains:
            for each in chain.filters:
                manager = http.HttpConnectionManager()
                if each.typed_config.Unpack(manager) and manager.HasField("rds"):
                    yield manager.rds.route_config_name


def wanted(response: DeltaDiscoveryResponse) -> tuple[Type, set[str]] | None:
    """What a proxy asks for once it has been told this."""
    packed = [resource.resource.value for resource in response.resources]
    match response.type_url:
        case Type.CLUSTER:
            clusters = map(Cluster.FromString, packed)
            fed = (each for each in clusters if each.type == Cluster.EDS)
            return Type.ENDPOINTS, {c.eds_cluster_config.service_name or c.name for c in fed}
        case Type.LISTENER:
            return Type.ROUTES, set(routes(map(Listener.FromString, packed)))
    return None


class Proxy(asyncio.Protocol):
    """One conversation, for as long as it is let; `ended` is why it was over."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._http = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        self._received = bytearray()
        self._subscribed: dict[Type, set[str]] = {Type.ENDPOINTS: set(), Type.ROUTES: set()}
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._http.initiate_connection()
        self._http.increment_flow_control_window(WINDOW)
        self._http.send_headers(STREAM, HEADERS)
        self._http.increment_flow_control_window(WINDOW, STREAM)
        for kind, name in FIRST:
            request = DeltaDiscoveryRequest(type_url=kind, resource_names_subscribe=[name])
            request.node.id = self._name
            self._say(request)
        self._flush()

    def data_received(self, data: bytes) -> None:
        for event in self._http.receive_data(data):
            match event:
                case DataReceived():
                    self._received += event.data
                    self._http.acknowledge_received_data(event.flow_controlled_length, STREAM)
                case TrailersReceived():
                    self._end(str(dict(event.headers or ())))
                case StreamEnded() | StreamReset():
                    self._end("the stream ended")
        for message in unframed(self._received):
            self._answer(DeltaDiscoveryResponse.FromString(message))
        self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(f"the connection is gone: {exc}")

    def _answer(self, response: DeltaDiscoveryResponse) -> None:
        kind, nonce = response.type_url, response.nonce
        self._say(DeltaDiscoveryRequest(type_url=kind, response_nonce=nonce))
        self._flush()  # before anything else is looked at
        if found := wanted(response):
            asked, names = found
            if more := names - self._subscribed[asked]:
                self._subscribed[asked] |= more
                self._say(
                    DeltaDiscoveryRequest(type_url=asked, resource_names_subscribe=sorted(more))
                )

    def _say(self, request: DeltaDiscoveryRequest) -> None:
        message = framed(request)
        size = self._http.max_outbound_frame_size
        for start in range(0, len(message), size):
            self._http.send_data(STREAM, message[start : start + size])

    def _flush(self) -> None:
        if said := self._http.data_to_send():
            self._transport.write(said)

    def _end(self, why: str) -> None:
        if not self.ended.done():
            self.ended.set_result(why)


def tls(papers: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(papers / BUNDLE))
    context.check_hostname = False  # it has none
    context.load_cert_chain(papers / CERTIFICATE, papers / KEY)
    context.set_alpn_protocols(["h2"])
    return context


async def everyone(address: str, folders: Iterable[str]) -> str:
    """All of them until the first one's conversation is over; why that was."""
    host, _, port = address.rpartition(":")
    loop, proxies = asyncio.get_running_loop(), []
    for papers in map(Path, folders):
        _, proxy = await loop.create_connection(
            lambda name=papers.name: Proxy(name), host, int(port), ssl=tls(papers)
        )
        proxies.append(proxy)
    done, _ = await asyncio.wait(
        [proxy.ended for proxy in proxies], return_when=asyncio.FIRST_COMPLETED
    )
    return done.pop().result()


if __name__ == "__main__":
    sys.exit(asyncio.run(everyone(sys.argv[1], sys.argv[2:])))
