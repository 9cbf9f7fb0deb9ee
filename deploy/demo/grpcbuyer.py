"""Calls the bookstore over gRPC, again and again, and notes who answered: it has no sidecar.

All of the mesh in it is the name that it dials, the credentials, and GRPC_XDS_BOOTSTRAP in its
environment.
"""

import threading
import time
from argparse import ArgumentParser

import grpc
import grpc.experimental

from meshfed.demo.report import Report

TARGET = "xds:///bookstore.shop"
METHODS = {"buy": "/shop.Bookstore/Buy", "steal": "/shop.Bookstore/Steal"}
DENIED = (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.DEADLINE_EXCEEDED)
PATIENCE = 1.0  # seconds; of a name that is none of its business gRPC waits for longer


def call(channel: grpc.Channel, method: str) -> str:
    """Who answered, `denied` or `failed`."""
    try:
        answer: bytes = channel.unary_unary(METHODS[method])(b"", timeout=PATIENCE)
    except grpc.RpcError as error:
        return "denied" if error.code() in DENIED else "failed"
    return answer.decode()


def calling(report: Report, channel: grpc.Channel, method: str, pause: float) -> None:
    while not report.stopping.is_set():
        started = time.time()
        report.call(started, method, call(channel, method))
        report.stopping.wait(max(0.0, started + pause - time.time()))


def main() -> None:
    asked = ArgumentParser(description=__doc__)
    asked.add_argument("--rate", type=float, default=200.0, help="purchases per second, at most")
    options = asked.parse_args()
    report = Report()
    plain = grpc.experimental.insecure_channel_credentials()
    with grpc.secure_channel(TARGET, grpc.xds_channel_credentials(plain)) as channel:
        # Each tenth call tries what the policy does not grant.
        paces = {"buy": 1 / options.rate, "steal": 10 / options.rate}
        threads = [
            threading.Thread(target=calling, args=(report, channel, method, pause))
            for method, pause in paces.items()
        ]
        for thread in threads:
            thread.start()
        report.until_stopped()
        for thread in threads:
            thread.join()
    report.flush()


if __name__ == "__main__":
    main()
