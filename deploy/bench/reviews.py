"""What an injection review takes: `python deploy/bench/reviews.py [--rate 200] [--seconds 20]`.

The webhook's app in a process of its own, over TLS, is asked for the pods of tests/golden-inject at
a steady rate, whether or not it has answered. Times are from when a review was due to its answer.
"""

import asyncio
import json
import os
import socket
import ssl
import sys
from dataclasses import replace
from itertools import cycle, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import aiohttp
import typer
import uvicorn
import yaml
from figures import Figure, told

from meshfed.demo.kube.papers import LOOPBACK, Authority, Paper
from meshfed.federation.inject.app import INJECT, app
from meshfed.federation.inject.decide import Namespace
from meshfed.federation.inject.injection import Injection

GOLDEN = Path(__file__).parents[2] / "tests" / "golden-inject"
NAMESPACE = {"meshfed.io/mesh": "shop", "meshfed.io/inject": "enabled"}
CONNECTIONS = 16
WARM = 200  # reviews before any is counted


class Known:
    """What the webhook would have watched."""

    async def told(self, name: str) -> Namespace:
        return Namespace(name, NAMESPACE)

    async def native(self) -> bool:
        return True


def serve(number: int, certificate: Path, key: Path, roots: Path) -> None:
    """The process that is measured."""
    pem, injection = roots.read_text(), Injection()
    api = app(lambda: injection, lambda: pem, {"aks": Known()})
    config = uvicorn.Config(
        api, ssl_certfile=certificate, ssl_keyfile=key, log_config=None, access_log=False,
        lifespan="off",
    )  # fmt: skip
    # Not uvicorn's own `fd`: that takes it for a Unix socket, which delays small answers by 40 ms.
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=number)])


def reviews() -> list[bytes]:
    """One for each pod shape; the API server fills in nothing that injection looks at."""
    made = []
    for case in sorted(GOLDEN.iterdir()):
        pod = yaml.safe_load((case / "given.yaml").read_text())["pod"]
        request = {
            "uid": case.name, "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"}, "namespace": "shop",
            "operation": "CREATE", "dryRun": False, "object": pod,
        }  # fmt: skip
        said = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}
        made.append(json.dumps(said).encode())
    return made


async def asked(url: str, tls: ssl.SSLContext, rate: float, times: int) -> Figure:
    """Raises ValueError for an answer that is none."""
    loop, taken, patches = asyncio.get_running_loop(), [], 0
    connector = aiohttp.TCPConnector(limit=CONNECTIONS, ssl=tls)
    async with aiohttp.ClientSession(connector=connector) as client:

        async def ask(body: bytes, due: float) -> None:
            nonlocal patches
            async with client.post(url, data=body) as answer:
                response = json.loads(await answer.read())["response"]
            taken.append(1000 * (loop.time() - due))
            patches += "patch" in response

        every = cycle(reviews())
        for body in islice(every, WARM):
            await ask(body, loop.time())
        taken.clear()
        patches, began = 0, loop.time() + 0.1
        async with asyncio.TaskGroup() as tasks:
            for n, body in enumerate(islice(every, times)):
                due = began + n / rate
                await asyncio.sleep(due - loop.time())
                tasks.create_task(ask(body, due))
    if len(taken) != times:
        raise ValueError(f"{len(taken)} answers to {times} reviews")
    how = f"{rate:g} a second over {CONNECTIONS} connections with TLS; {patches} had a patch"
    return Figure("an injection review", tuple(taken), how)


def cpu(pid: int) -> float:
    """Seconds that a process has used: what its neighbours on the machine cannot change."""
    after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(after_name[11]) + int(after_name[12])) / os.sysconf("SC_CLK_TCK")


async def measured(rate: float, seconds: float) -> Figure:
    with TemporaryDirectory(prefix="meshfed-bench-") as name, socket.socket() as listener:
        listener.bind((LOOPBACK, 0))
        listener.listen(1024)
        authority = Authority.make(Path(name))
        paper: Paper = authority.serves()
        number = listener.fileno()
        process = await asyncio.create_subprocess_exec(
            sys.executable, __file__, "--serve", str(number), str(paper.certificate),
            str(paper.key), str(authority.file), pass_fds=(number,),
        )  # fmt: skip
        try:
            tls = ssl.create_default_context(cafile=str(authority.file))
            url = f"https://{LOOPBACK}:{listener.getsockname()[1]}{INJECT}?timeout=10s"
            figure = await asked(url, tls, rate, int(rate * seconds))
            spent = 1000 * cpu(process.pid) / (len(figure.milliseconds) + WARM)
            return replace(figure, how=f"{figure.how}; {spent:.2f} ms of CPU each, with its start")
        finally:
            process.terminate()
            await process.wait()


def main(
    rate: Annotated[float, typer.Option(help="Reviews a second.")] = 200.0,
    seconds: Annotated[float, typer.Option(help="For how long.")] = 20.0,
) -> None:
    print(json.dumps(told(asyncio.run(measured(rate, seconds))), indent=2))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(int(sys.argv[2]), *map(Path, sys.argv[3:6]))
    else:
        typer.run(main)
