"""A proxy that cannot help itself is begun again, with nobody doing anything."""

import asyncio
import re
import socket

import live
import pytest

from meshfed.catalog.reader import query
from meshfed.federation.demo.folder import replace

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.soak]

GRANT = """\
apiVersion: access.smi-spec.io/v1alpha3
kind: TrafficTarget
metadata: {name: stranger-server, namespace: live}
spec:
  destination: {kind: ServiceAccount, name: server, namespace: live}
  sources: [{kind: ServiceAccount, name: stranger, namespace: live}]
  rules: [{kind: TCPRoute, name: open}]
"""
STATE = "select state, reason from mesh_proxies where workload = 'stranger'"


async def test_a_listener_is_tried_again_once_its_port_is_free(world):
    access = world.mesh.folder / "policy" / "recovery.yaml"
    with socket.create_server(("127.0.4.2", 14306)):
        replace(access, GRANT)
        await state(world, "rejecting", 10)
    assert re.search(r"127.0.4.2:14306", (await asked(world))[1])
    await state(world, "synced", 60)
    assert await live.answer(b"hello", "127.0.4.2", 14306) == b"hello"
    access.unlink()
    await live.until_refused("127.0.4.2", 14306)


async def asked(world) -> tuple[str, str]:
    answer = await asyncio.to_thread(query, world.url, STATE)
    return answer.rows[0] if answer.rows else ("", "")


async def state(world, wanted: str, seconds: float) -> None:
    async with asyncio.timeout(seconds):
        while (await asked(world))[0] != wanted:  # noqa: ASYNC110  # another process
            await asyncio.sleep(0.2)
