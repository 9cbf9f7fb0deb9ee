"""Sells books, and has the bookwarehouse restock when the shelf is empty."""

import threading
import time
from argparse import ArgumentParser
from http.client import HTTPException

from meshfed.demo.report import Report
from meshfed.demo.web import Page, Shop, Sidecar, host_and_port

RESTOCK = "http://bookwarehouse.shop:8080/restock-books"
SHELF = 40  # books


class Stock:
    """The shelf, and how many books were sold from it."""

    def __init__(self, sidecar: str) -> None:
        self.through = Sidecar(sidecar)
        self.lock = threading.Lock()
        self.shelf = SHELF
        self.sold = 0

    def sell(self) -> bool:
        """One book; false when the shelf is empty and the bookwarehouse does not restock it."""
        with self.lock:
            if not self.shelf and not self.restocked():
                return False
            self.shelf -= 1
            self.sold += 1
            return True

    def restocked(self) -> bool:
        try:
            response, _ = self.through.request("POST", RESTOCK, str(SHELF))
        except (OSError, HTTPException):
            return False
        if response.status != 200:
            return False
        self.shelf = SHELF
        return True


def counter(name: str, stock: Stock, report: Report) -> type[Page]:
    """What one store's customers see."""

    class Counter(Page):
        def do_GET(self) -> None:  # noqa: N802  # http.server's name
            started = time.time()
            if self.page == "/books-bought":
                self.answer(200, f"{stock.sold}\n", bookstore=name)
            elif self.page != "/buy-a-book/new":
                self.answer(404, "no such page\n", bookstore=name)
            elif stock.sell():
                self.answer(200, "a book\n", bookstore=name, booksbought=str(stock.sold))
            else:
                self.answer(503, "the bookwarehouse does not restock\n", bookstore=name)
            report.call(started, "counter", "served")

    return Counter


def main() -> None:
    asked = ArgumentParser(description=__doc__)
    asked.add_argument("--name", required=True, help="bookstore-v1 or bookstore-v2")
    asked.add_argument("--bind", required=True, help="its own address:port")
    asked.add_argument("--sidecar", required=True, help="its outbound address:port")
    options = asked.parse_args()
    report = Report()
    shop = Shop(host_and_port(options.bind), counter(options.name, Stock(options.sidecar), report))
    threading.Thread(target=shop.serve_forever, daemon=True).start()
    report.until_stopped()
    report.flush()


if __name__ == "__main__":
    main()
