"""The Resource Manager with the machines of a file: `python -m meshfed.demo.arm FOLDER FILE`.

It leaves the certificate of its authority in the folder, and says as JSON in one line what a
configuration and the environment of who asks it are to have.
"""

import json
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

import yaml

from meshfed.demo.arm.resources import SUBSCRIPTION, Ip, Nic, Resources, ScaleSet, Vm
from meshfed.demo.arm.server import ENVIRONMENT, Server
from meshfed.demo.follow import follow

PAGE = 200  # rows, more than the demo has


def resources(text: str) -> Resources:
    said = yaml.safe_load(text)
    return Resources(
        vms=[machine(each) for each in said["machines"]],
        sets=[
            ScaleSet(
                each["name"],
                mode=each["mode"],
                tags=each.get("tags"),
                instances=[machine(one) for one in each.get("instances", [])],
            )
            for each in said["sets"]
        ],
    )


def machine(said: dict[str, Any]) -> Vm:
    return Vm(
        said["name"],
        [Nic(f"{said['name']}-nic", [Ip(said["address"])])],
        tags=said.get("tags"),
        power=said["power"],
        scale_set=said.get("set", ""),
    )


def main() -> None:
    asked = ArgumentParser(prog="meshfed.demo.arm", description=__doc__)
    asked.add_argument("folder", type=Path)
    asked.add_argument("file", type=Path)
    said = asked.parse_args()
    server = Server(said.folder)
    server.fresh().page = PAGE

    def take(text: str) -> None:
        server.world.of = {SUBSCRIPTION: resources(text)}

    take(said.file.read_text())
    server.begin()
    options = {"subscriptions": [SUBSCRIPTION], "cloud": server.cloud}
    print(json.dumps({"options": options, "environment": ENVIRONMENT}), flush=True)
    follow(said.file, take)
    server.end()


main()
