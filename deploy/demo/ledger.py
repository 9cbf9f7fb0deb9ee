"""Writes down what it is told, one line of TCP each: `ok` and the number of the entry."""

import threading
from argparse import ArgumentParser
from itertools import count
from socketserver import StreamRequestHandler, ThreadingTCPServer

from meshfed.demo.report import Report
from meshfed.demo.web import host_and_port

NUMBERS = count(1)


class Entry(StreamRequestHandler):
    def handle(self) -> None:
        while self.rfile.readline(1024):
            self.wfile.write(f"ok {next(NUMBERS)}\n".encode())


class Book(ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True


def main() -> None:
    asked = ArgumentParser(description=__doc__)
    asked.add_argument("--bind", required=True, help="its own address:port")
    options = asked.parse_args()
    book = Book(host_and_port(options.bind), Entry)
    threading.Thread(target=book.serve_forever, daemon=True).start()
    Report().until_stopped()


if __name__ == "__main__":
    main()
