"""Health is answered from a thread of its own: while the mesh is busy, and until it hangs."""

import asyncio
import threading
import time
from functools import partial

import httpx
import pytest
from answering import COUNTED, Running
from prometheus_client import CollectorRegistry

from meshfed.federation.admin.app import HUNG, app, bound, serve
from meshfed.federation.admin.aside import BEAT, Home, aside

PATIENCE = 5.0  # seconds


def test_who_asks_is_answered_while_the_loop_of_the_mesh_is_held() -> None:
    answers: list[int] = []

    async def mesh() -> None:
        listener = bound("127.0.0.1:0")
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/healthz"
        api = app(Running(), CollectorRegistry(), Home())
        answered = threading.Event()

        def ask() -> None:
            with httpx.Client(trust_env=False, timeout=PATIENCE) as client:
                answers.append(client.get(url).status_code)
            answered.set()

        serving = asyncio.create_task(aside(partial(serve, api, listener, refused=COUNTED)))
        asking = threading.Thread(target=ask)
        asking.start()
        while not serving.done() and not answers:
            await asyncio.sleep(0)  # until it has begun
            answered.wait(PATIENCE)  # nothing else runs on this loop
        asking.join()
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)
        listener.close()

    asyncio.run(mesh())
    assert answers == [200]


async def test_how_late_the_loop_of_the_mesh_is_is_told() -> None:
    heard, told = asyncio.Event(), list[float]()

    def late(seconds: float) -> None:
        told.append(seconds)
        heard.set()

    beating = asyncio.create_task(Home().beat(late))
    for held in (0.0, 3 * BEAT):
        heard.clear()
        asyncio.get_running_loop().call_later(BEAT / 2, time.sleep, held)
        await heard.wait()
    beating.cancel()
    assert told[1] >= 1.5 * BEAT > BEAT > told[0] >= 0


async def test_what_is_asked_of_the_mesh_is_asked_on_its_loop() -> None:
    threads: list[threading.Thread] = []

    async def act(word: str) -> str:
        threads.append(threading.current_thread())
        return word

    there = Home().does(act)

    async def elsewhere() -> None:
        threads.append(threading.current_thread())
        assert await there("hello") == "hello"

    await aside(elsewhere)
    assert threads[0] is not threading.main_thread()
    assert threads[1] is threading.main_thread()


async def test_what_fails_aside_fails_here() -> None:
    async def fail() -> None:
        raise OSError("a port is taken")

    with pytest.raises(OSError, match="a port is taken"):
        await aside(fail)


async def test_what_is_given_up_has_ended_by_then() -> None:
    ended = threading.Event()

    async def act() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    running = asyncio.create_task(aside(act))
    await asyncio.sleep(0)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert ended.is_set()
    assert "aside" not in {each.name.split("_")[0] for each in threading.enumerate()}


@pytest.mark.parametrize(("silent", "status"), [(HUNG - 1, 200), (HUNG, 503)])
async def test_a_mesh_that_hangs_is_not_alive(silent: float, status: int) -> None:
    clock = [0.0]
    api = app(Running(), CollectorRegistry(), Home(lambda: clock[0]))
    clock[0] = silent
    transport = httpx.ASGITransport(api)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        answer = await client.get("/healthz")
    assert answer.status_code == status
    assert status == 200 or answer.text == f"nothing has moved for {HUNG:.0f} s\n"
