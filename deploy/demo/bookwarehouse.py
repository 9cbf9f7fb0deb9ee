"""Restocks bookstores, and enters each delivery in the ledger over TCP."""

import socket
import threading
import time
from argparse import ArgumentParser

from meshfed.demo.report import Report
from meshfed.demo.web import TIMEOUT, Page, Shop, host_and_port


def entered(ledger: tuple[str, int], books: str) -> bool:
    """Whether the ledger, at the sidecar's local port, took the entry."""
    try:
        with socket.create_connection(ledger, TIMEOUT) as connection:
            connection.sendall(f"delivered {books}\n".encode())
            return connection.recv(64).startswith(b"ok")
    except OSError:
        return False


def gate(ledger: tuple[str, int], report: Report) -> type[Page]:
    """Where bookstores ask for books."""

    class Gate(Page):
        def do_POST(self) -> None:  # noqa: N802  # http.server's name
            books = self.body()
            started = time.time()
            ok = self.page == "/restock-books" and entered(ledger, books)
            report.call(started, "ledger", "ok" if ok else "failed")
            self.answer(200 if ok else 503, "delivered\n" if ok else "the ledger is shut\n")

    return Gate


def main() -> None:
    asked = ArgumentParser(description=__doc__)
    asked.add_argument("--bind", required=True, help="its own address:port")
    asked.add_argument("--ledger", required=True, help="its sidecar's local address:port")
    options = asked.parse_args()
    report = Report()
    shop = Shop(host_and_port(options.bind), gate(host_and_port(options.ledger), report))
    threading.Thread(target=shop.serve_forever, daemon=True).start()
    report.until_stopped()
    report.flush()


if __name__ == "__main__":
    main()
