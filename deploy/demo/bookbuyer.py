"""Buys books at bookstore.shop, again and again, and notes which version sold each."""

import threading
import time
from argparse import ArgumentParser
from http.client import HTTPException

from meshfed.demo.report import Report
from meshfed.demo.web import Sidecar

SHELF = "http://bookstore.shop:8080/buy-a-book/new"


def shop(report: Report, sidecar: str, pause: float) -> None:
    """One customer with one keep-alive connection, buying at most once per `pause`."""
    through = Sidecar(sidecar)
    while not report.stopping.is_set():
        started = time.time()
        report.call(started, "bookstore", purchase(through))
        report.stopping.wait(max(0.0, started + pause - time.time()))


def purchase(through: Sidecar) -> str:
    """The version that sold a book, or `failed`."""
    try:
        response, _ = through.request("GET", SHELF)
    except (OSError, HTTPException):
        return "failed"
    return response.getheader("bookstore", "failed") if response.status == 200 else "failed"


def main() -> None:
    asked = ArgumentParser(description=__doc__)
    asked.add_argument("--sidecar", required=True, help="its outbound address:port")
    asked.add_argument("--customers", type=int, default=4)
    asked.add_argument("--rate", type=float, default=400.0, help="purchases per second, at most")
    options = asked.parse_args()
    report = Report()
    pause = options.customers / options.rate
    customers = [
        threading.Thread(target=shop, args=(report, options.sidecar, pause))
        for _ in range(options.customers)
    ]
    for customer in customers:
        customer.start()
    report.until_stopped()
    for customer in customers:
        customer.join()
    report.flush()


if __name__ == "__main__":
    main()
