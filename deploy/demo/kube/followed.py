"""A cluster whose objects are those of a file: `python -m meshfed.demo.kube.followed FOLDER FILE`.

It leaves its papers and a kubeconfig in the folder, and says as JSON in one line what a
configuration is to have.
"""

import json
from argparse import ArgumentParser
from pathlib import Path

import yaml

from meshfed.demo.follow import follow
from meshfed.demo.kube.kubeconfig import kubeconfig
from meshfed.demo.kube.objects import Object
from meshfed.demo.kube.papers import Authority
from meshfed.demo.kube.server import Server

CONTEXT = "demo"


class Held:
    """The objects of the file, as the server has them."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.objects: dict[tuple[str, ...], Object] = {}

    def take(self, text: str) -> None:
        found = {named(thing): thing for thing in yaml.load_all(text, yaml.CSafeLoader)}
        gone = [thing for name, thing in self.objects.items() if name not in found]
        changed = [thing for name, thing in found.items() if self.objects.get(name) != thing]
        self.server.plant(*changed)
        self.server.uproot(*gone)
        self.objects = found


def named(thing: Object) -> tuple[str, ...]:
    metadata = thing["metadata"]
    return thing["apiVersion"], thing["kind"], metadata.get("namespace", ""), metadata["name"]


def main() -> None:
    asked = ArgumentParser(prog="meshfed.demo.kube.followed", description=__doc__)
    asked.add_argument("folder", type=Path)
    asked.add_argument("file", type=Path)
    said = asked.parse_args()
    authority = Authority.make(said.folder)
    server = Server(authority.file, authority.serves())
    server.start()
    file = said.folder / "kubeconfig.yaml"
    users = {CONTEXT: {"token": server.token}}
    file.write_text(json.dumps(kubeconfig(CONTEXT, server.host, authority.file, users)))
    held = Held(server)
    held.take(said.file.read_text())
    print(json.dumps({"options": {"kubeconfig": str(file), "context": CONTEXT}}), flush=True)
    follow(said.file, held.take)
    server.close()


if __name__ == "__main__":
    main()
