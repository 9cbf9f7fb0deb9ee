"""The little HTTP that the applications share: a page to serve, and a sidecar to call through."""

from http.client import HTTPConnection, HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from urllib.parse import urlsplit

TIMEOUT = 10.0  # seconds; slower is failed


class Page(BaseHTTPRequestHandler):
    """One keep-alive connection of a caller."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else a delayed ACK costs 40 ms per answer
    wbufsize = -1

    @property
    def page(self) -> str:
        return urlsplit(self.path).path  # absolute-form is for origins too (RFC 9112, 3.2.2)

    def answer(self, status: int, text: str, **headers: str) -> None:
        body = text.encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def body(self) -> str:
        return self.rfile.read(int(self.headers.get("content-length", 0))).decode()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # its name upstream
        """Quiet: what happened is in the report."""


class Shop(ThreadingHTTPServer):
    daemon_threads = True

    def server_bind(self) -> None:
        TCPServer.server_bind(self)  # HTTPServer's asks DNS for its own name: seconds, offline


class Sidecar:
    """A connection to one's own sidecar, which is an HTTP proxy that routes by authority."""

    def __init__(self, address: str) -> None:
        self.connection = HTTPConnection(*host_and_port(address), timeout=TIMEOUT)

    def request(self, method: str, url: str, body: str | None = None) -> tuple[HTTPResponse, str]:
        """The answer to a request for an absolute URL. Raises OSError or HTTPException."""
        try:
            self.connection.request(method, url, body)
            response = self.connection.getresponse()
            return response, response.read().decode()
        except BaseException:
            self.connection.close()  # what is left on it belongs to nobody
            raise


def host_and_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host, int(port)
