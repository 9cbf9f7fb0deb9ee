"""The API server as a process of its own: `python -m meshfed.demo.kube`.

It takes kube-apiserver's flags. A launcher of the real one can be tried with it, and speed can be
measured against it: its work is not on the loop of the one that is measured. `--plant FILE` stores
the objects of a file first, one as JSON in each line.
"""

import argparse
import csv
import json
import signal
from pathlib import Path

from meshfed.demo.kube.access import AUTHENTICATED, User
from meshfed.demo.kube.papers import Paper
from meshfed.demo.kube.server import Server


def main() -> None:
    parser = argparse.ArgumentParser(prog="meshfed.demo.kube", allow_abbrev=False)
    parser.add_argument("--secure-port", type=int, required=True)
    for name in ("client-ca-file", "tls-cert-file", "tls-private-key-file", "token-auth-file"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--plant", type=Path)
    said, _ = parser.parse_known_args()
    paper = Paper(said.tls_cert_file, said.tls_private_key_file)
    server = Server(said.client_ca_file, paper, port=said.secure_port)
    with said.token_auth_file.open(newline="") as lines:
        for token, user, _uid, *groups in csv.reader(lines):
            named = frozenset(",".join(groups).split(",")) | {AUTHENTICATED}
            server.tokens.users[token] = User(user, named)
    if said.plant:
        with said.plant.open() as lines:
            server.plant(*map(json.loads, lines))
    server.start()
    print(server.host, flush=True)
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    server.close()


main()
