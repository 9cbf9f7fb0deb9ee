"""Sells books over gRPC, and is told by the mesh itself who may buy: it has no sidecar.

All of the mesh in it is `xds=True`, the credentials, and GRPC_XDS_BOOTSTRAP in its environment.
"""

from argparse import ArgumentParser
from concurrent.futures import ThreadPoolExecutor

import grpc

from meshfed.demo.report import Report

SERVICE, METHODS = "shop.Bookstore", ("Buy", "Steal")


def bookstore(name: str) -> grpc.GenericRpcHandler:
    """Answers with its own name; it needs no generated code, for messages are bytes."""
    handler = grpc.unary_unary_rpc_method_handler(lambda request, context: name.encode())
    return grpc.method_handlers_generic_handler(SERVICE, dict.fromkeys(METHODS, handler))


def main() -> None:
    asked = ArgumentParser(description=__doc__)
    asked.add_argument("--name", required=True, help="what it answers")
    asked.add_argument("--bind", required=True, help="its own address:port")
    options = asked.parse_args()
    server = grpc.server(ThreadPoolExecutor(8), handlers=[bookstore(options.name)], xds=True)
    server.add_secure_port(
        options.bind, grpc.xds_server_credentials(grpc.insecure_server_credentials())
    )
    server.start()
    Report().until_stopped()
    server.stop(0)


if __name__ == "__main__":
    main()
