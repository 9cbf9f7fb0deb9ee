"""When streams and connections of the xDS server end, and what many at once cost it."""

import asyncio
import errno
import socket
import ssl
import time
from dataclasses import replace

import grpc
import pytest
from peers import CONTROL_PLANE, SERVER_NAME, STORE, Authority, Source, Tally, serving
from streaming import clusters, connecting, ending, opened, streaming, world

from meshfed.xds.server import Server, Tls


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority()


@pytest.fixture(scope="module")
def control_plane(authority) -> Tls:
    return authority.tls(CONTROL_PLANE, SERVER_NAME)


@pytest.fixture(scope="module")
def proxy(authority) -> Tls:
    return authority.tls(STORE, "abc.workload.shop.example")


async def test_the_stream_ends_when_the_certificate_expires(authority, control_plane):
    source = Source(world(1, "a"))
    # Certificates count whole seconds.
    short = authority.tls(STORE, seconds=2)
    async with (
        serving(source, control_plane) as server,
        streaming(server, short, authority.root) as call,
    ):
        await call.write(clusters())
        await call.read()
        code, details = await ending(call)
    assert (code, details) == (grpc.StatusCode.UNAUTHENTICATED, "the certificate has expired")
    assert source.peers[0].not_after <= time.time()


async def test_a_renewed_certificate_is_shown_to_the_next_and_disturbs_nobody(authority, proxy):
    source = Source(world(1, "a"))
    shown = [authority.tls(CONTROL_PLANE, SERVER_NAME)]
    elsewhere = Authority()
    async with (
        serving(source, lambda: shown[-1]) as server,
        streaming(server, proxy, authority.root) as old,
    ):
        await old.write(clusters())
        await old.read()
        renewed = elsewhere.tls(CONTROL_PLANE, SERVER_NAME)
        shown.append(replace(renewed, roots=authority.root))
        async with streaming(server, proxy, elsewhere.root) as new:
            await new.write(clusters())
            assert len((await new.read()).resources) == 1
        source.feeds[0].show(world(2, "a:2"))
        await old.write(clusters(response_nonce="1"))
        assert len((await old.read()).resources) == 1


async def test_draining_ends_streams_at_once_and_frees_the_port(authority, control_plane, proxy):
    source = Source(world(1, "a"))
    async with (
        serving(source, control_plane) as server,
        streaming(server, proxy, authority.root) as call,
    ):
        await call.write(clusters())
        await call.read()
        began = time.monotonic()
        await server.stop(10)
        assert time.monotonic() - began < 1
        code, details = await ending(call)
        assert code == grpc.StatusCode.UNAVAILABLE
        assert "draining" in details
        again = Server(source, lambda: control_plane, Tally())
        await again.start(f"127.0.0.1:{server.port}")
        await again.stop(0)


async def test_a_taken_port_is_an_error_in_one_line(control_plane, capfd):
    with socket.create_server(("127.0.0.1", 0)) as other:
        listen = f"127.0.0.1:{other.getsockname()[1]}"
        server = Server(Source(world(1)), lambda: control_plane, Tally())
        with pytest.raises(OSError, match="cannot listen on") as caught:
            await server.start(listen)
        await server.stop(0)
    assert caught.value.errno == errno.EADDRINUSE
    assert str(caught.value).endswith(f"cannot listen on {listen} for xDS: Address already in use")
    assert capfd.readouterr().err == ""


async def test_f4_f5_a_client_that_does_not_read_is_cut_off_and_costs_the_others_nothing(
    authority, control_plane, proxy, monkeypatch
):
    monkeypatch.setattr("meshfed.xds.conversation.UNREAD", 0.3)
    source = Source(world(1, *(f"c{number}:{'x' * 500_000}" for number in range(40))))
    async with (
        serving(source, control_plane) as server,
        streaming(server, proxy, authority.root) as stuck,
    ):
        await stuck.write(clusters())
        await source.opened.wait()
        await source.feeds[0].closed.wait()
        assert server.streams == 0
        assert set(source.feeds[0].settlements) == set()


async def test_finding_7_streams_that_open_all_at_once_are_all_answered(
    authority, control_plane, proxy
):
    source = Source(world(1, "a"))
    many = 1500  # grpc drops some beyond 1,000 that wait, unless told otherwise
    async with (
        serving(source, control_plane) as server,
        connecting(server, proxy, authority.root) as channel,
    ):
        calls = [opened(channel) for _ in range(many)]
        for call in calls:
            await call.write(clusters())
        answers = await asyncio.gather(*(call.read() for call in calls))
        assert all(len(answer.resources) == 1 for answer in answers)
        assert server.streams == many
        for call in calls:
            call.cancel()


def anybody() -> ssl.SSLContext:
    """Of whoever asks for no certificate, and shows none."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname, made.verify_mode = False, ssl.CERT_NONE
    made.set_alpn_protocols(["h2"])
    return made


async def test_who_does_not_end_its_handshake_has_a_descriptor_for_a_while_alone(
    authority, control_plane, proxy
):
    source = Source(world(1, "a"))
    async with (
        serving(source, control_plane, tokens="127.0.0.1:0", shaking=0.5) as server,
        streaming(server, proxy, authority.root) as call,
    ):
        await call.write(clusters())
        assert await call.read()
        ports = server.port, server.port, server.port_of_tokens
        lines = [await asyncio.open_connection("127.0.0.1", port) for port in ports]
        lines[0][1].write(b"\x16\x03\x01\x02\x00")  # the head of a ClientHello
        # TLS, and no word of HTTP/2.
        shaken = await asyncio.open_connection("127.0.0.1", server.port_of_tokens, ssl=anybody())
        async with asyncio.timeout(5):  # by itself grpc takes 120
            await asyncio.gather(*(reading.read() for reading, _ in (*lines, shaken)))
        for _, writing in (*lines, shaken):
            writing.close()
        assert not call.done()


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))  # RFC 9113, 3.4


async def test_a_connection_without_a_stream_ends_and_who_has_one_stays(
    authority, control_plane, proxy
):
    source = Source(world(1, "a"))
    async with (
        serving(source, control_plane, tokens="127.0.0.1:0", idle=0.5) as server,
        streaming(server, proxy, authority.root) as call,
        connecting(server, proxy, authority.root) as between,
    ):
        await call.write(clusters())
        assert await call.read()
        first = opened(between)
        await first.write(clusters())
        assert await first.read()
        first.cancel()
        reading, writing = await asyncio.open_connection(
            "127.0.0.1", server.port_of_tokens, ssl=anybody()
        )
        writing.write(PREFACE)
        async with asyncio.timeout(5):  # by itself for as long as the age of a connection
            await reading.read()
            while (state := between.get_state()) is grpc.ChannelConnectivity.READY:
                await between.wait_for_state_change(state)
        writing.close()
        again = opened(between)
        await again.write(clusters())
        assert await again.read()
        assert not call.done()
        again.cancel()
