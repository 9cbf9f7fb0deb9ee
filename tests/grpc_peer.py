"""A gRPC server, or a client that is told on its standard input whom to call; for tests.

gRPC reads its bootstrap once in a process, so each of them is one.
"""

import json
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import grpc.experimental


class Named(grpc.GenericRpcHandler):
    """Answers every method, with its own name and what it knows of the caller."""

    def __init__(self, name: str) -> None:
        self.name = name

    def service(self, handler_call_details):
        def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
            del request
            who = [each.decode() for each in context.peer_identities() or ()]
            return f"{self.name} {' '.join(who)}".strip().encode()

        del handler_call_details
        return grpc.unary_unary_rpc_method_handler(answer)


def serve(name: str, where: str, how: str) -> None:
    """By the mesh, in plaintext, or with the certificate in a folder and no leave of anybody."""
    server = grpc.server(ThreadPoolExecutor(8), handlers=[Named(name)], xds=how == "mesh")
    plain = grpc.insecure_server_credentials()
    match how:
        case "mesh":
            server.add_secure_port(where, grpc.xds_server_credentials(plain))
        case "bare":
            server.add_secure_port(where, plain)
        case papers:
            files = ("key.pem", "certificate.pem", "bundle.pem")
            key, chain, roots = ((Path(papers) / file).read_bytes() for file in files)
            own = grpc.ssl_server_credentials([(key, chain)], roots, require_client_auth=True)
            server.add_secure_port(where, own)
    server.start()
    print(json.dumps({"serving": where}), flush=True)
    server.wait_for_termination()


def call() -> None:
    channels: dict[str, grpc.Channel] = {}
    plain = grpc.experimental.insecure_channel_credentials()
    for line in sys.stdin:
        asked = json.loads(line)
        target = asked["target"]
        if target not in channels:
            options = (
                [("grpc.default_authority", asked["authority"])] if "authority" in asked else []
            )
            credentials = grpc.xds_channel_credentials(plain) if "xds:" in target else plain
            channels[target] = grpc.secure_channel(target, credentials, options)
        method = channels[target].unary_unary(asked.get("method", "/shop.Books/Buy"))
        answers: Counter[str] = Counter()
        errors: Counter[str] = Counter()
        for _ in range(asked.get("times", 1)):
            try:
                metadata = asked.get("metadata", {}).items()
                told = method(b"", timeout=asked.get("seconds", 5), metadata=tuple(metadata))
                answers[told.decode()] += 1
            except grpc.RpcError as error:
                errors[f"{error.code().name}: {error.details()}"] += 1
        print(json.dumps({"answers": answers, "errors": errors}), flush=True)


if __name__ == "__main__":
    match sys.argv[1:]:
        case "serve", name, where, how:
            serve(name, where, how)
        case _:
            call()
