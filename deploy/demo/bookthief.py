"""Tries to get books without paying: through its own sidecar, and past it to other people's."""

import socket
import ssl
import time
from argparse import ArgumentParser
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPException
from itertools import cycle
from pathlib import Path
from threading import Thread

from meshfed.demo.report import Report
from meshfed.demo.web import TIMEOUT, Sidecar, host_and_port

PAGES = ("http://bookstore.shop:8080/buy-a-book/new", "http://bookstore.shop:8080/books-bought")
PAUSE = 0.05  # seconds between two attempts at its sidecar
BREAK_IN_EVERY = 10  # attempts


def asked_nicely(through: Sidecar, page: str) -> str:
    """What its own sidecar makes of a request it has no business making."""
    try:
        response, _ = through.request("GET", page)
    except (OSError, HTTPException):
        return "failed"
    return verdict(response.status)


def verdict(status: int) -> str:
    if status in (403, 404):
        return "denied"
    return "allowed" if status == 200 else "failed"


class Burglar:
    """Connects straight to other sidecars' inbound ports, with the thief's own certificate."""

    def __init__(self, papers: Path, domain: str) -> None:
        self.domain = domain
        self.tls = ssl.create_default_context(cafile=str(papers / "bundle.pem"))
        self.tls.check_hostname = False  # mesh certificates name identities, not hosts
        self.tls.load_cert_chain(papers / "certificate.pem", papers / "key.pem")

    def connect(self, door: tuple[str, int], service: str, alpn: str) -> ssl.SSLSocket:
        """`service` is `<port>.<name>.<namespace>`: with the right SNI the door does open."""
        self.tls.set_alpn_protocols([alpn])
        name = f"{service}.mesh.{self.domain}"
        return self.tls.wrap_socket(socket.create_connection(door, TIMEOUT), server_hostname=name)

    def steal_a_book(self, door: tuple[str, int], store: str) -> str:
        connection = HTTPConnection(*door, timeout=TIMEOUT)
        try:
            connection.sock = self.connect(door, f"8080.{store}.shop", "http/1.1")
            connection.request("GET", "/buy-a-book/new", headers={"host": f"{store}.shop:8080"})
            return verdict(connection.getresponse().status)
        except (OSError, HTTPException):
            return "failed"
        finally:
            connection.close()

    def forge_an_entry(self, door: tuple[str, int]) -> str:
        try:
            connection = self.connect(door, "3306.ledger.shop", "meshfed")
        except OSError:
            return "failed"
        with connection:
            return answer_to_a_forgery(connection)


def answer_to_a_forgery(connection: socket.socket) -> str:
    """A connection that is cut without a word was refused, though TLS 1.3 let it begin."""
    try:
        connection.sendall(b"delivered 0\n")
        return "allowed" if connection.recv(64) else "denied"
    except OSError:
        return "denied"


def local_ledger(address: tuple[str, int]) -> str:
    """The ledger's port at its own sidecar, which should not be there at all."""
    try:
        with socket.create_connection(address, TIMEOUT) as connection:
            return answer_to_a_forgery(connection)
    except ConnectionRefusedError:
        return "denied"
    except OSError:
        return "failed"


Attempts = Iterator[tuple[str, str]]  # path, outcome


def prowl(
    sidecar: Sidecar,
    local: tuple[str, int],
    burglar: Burglar,
    stores: list[str],
    ledger: tuple[str, int],
) -> Attempts:
    """Attempts without end, each made when it is asked for."""
    doors = cycle(tuple(store.split("@")) for store in stores)
    for number, page in enumerate(cycle(PAGES)):
        yield "sidecar", asked_nicely(sidecar, page)
        if number % BREAK_IN_EVERY == 0:
            store, door = next(doors)
            yield "store", burglar.steal_a_book(host_and_port(door), store)
            yield "local ledger", local_ledger(local)
            yield "ledger", burglar.forge_an_entry(ledger)


def work(report: Report, attempts: Attempts) -> None:
    while not report.stopping.is_set():
        started = time.time()
        path, outcome = next(attempts)
        report.call(started, path, outcome)
        if path == "sidecar":
            report.stopping.wait(PAUSE)


def main() -> None:
    asked = ArgumentParser(description=__doc__)
    asked.add_argument("--sidecar", required=True, help="its outbound address:port")
    asked.add_argument("--local", required=True, help="the ledger's address:port at its sidecar")
    asked.add_argument("--papers", type=Path, required=True, help="folder of its xDS certificate")
    asked.add_argument("--domain", required=True, help="the trust domain")
    asked.add_argument("--store", action="append", required=True, help="service@address:port")
    asked.add_argument("--ledger", required=True, help="the ledger's inbound address:port")
    options = asked.parse_args()
    report = Report()
    attempts = prowl(
        Sidecar(options.sidecar),
        host_and_port(options.local),
        Burglar(options.papers, options.domain),
        options.store,
        host_and_port(options.ledger),
    )
    thief = Thread(target=work, args=(report, attempts))
    thief.start()
    report.until_stopped()
    thief.join()
    report.flush()


if __name__ == "__main__":
    main()
