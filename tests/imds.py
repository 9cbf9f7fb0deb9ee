"""Azure's instance metadata service, as far as it announces events, for tests.

As https://learn.microsoft.com/azure/virtual-machines/linux/scheduled-events has it: the header
`Metadata: true` is needed, an event that was approved begins, and one that is over is not there.
"""

import json
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

KNOWN = (
    "/metadata/scheduledevents",
    "/metadata/instance/compute",
    "/metadata/attested/document",
)


class Service:
    """One machine's view of what will happen."""

    def __init__(self, machine: str) -> None:
        self.machine = machine
        self.incarnation = 1
        self.events: list[dict[str, Any]] = []
        self.approved: list[str] = []
        self.refused: list[str] = []  # requests that the real one would refuse
        self.url = ""
        self.attests: Callable[[str], bytes] = lambda nonce: nonce.encode()  # DER
        self._lock = threading.Lock()

    def announce(
        self, id_: str, kind: str, *machines: str, not_before: str = "Mon, 30 Nov 2026 18:29:47 GMT"
    ) -> None:
        event = {
            "EventId": id_,
            "EventType": kind,
            "ResourceType": "VirtualMachine",
            "Resources": list(machines or (self.machine,)),
            "EventStatus": "Scheduled",
            "NotBefore": not_before,
            "Description": "",
            "EventSource": "Platform",
            "DurationInSeconds": -1,
        }
        with self._lock:
            self.events.append(event)
            self.incarnation += 1

    def over(self) -> None:
        """They have happened, or were called off."""
        with self._lock:
            self.events.clear()
            self.incarnation += 1

    def approve(self, ids: list[str]) -> None:
        with self._lock:
            for event in self.events:
                if event["EventId"] in ids:
                    event |= {"EventStatus": "Started", "NotBefore": ""}
            self.approved += ids
            self.incarnation += 1

    def document(self) -> dict[str, Any]:
        with self._lock:
            return {"DocumentIncarnation": self.incarnation, "Events": [*map(dict, self.events)]}


@contextmanager
def serving(machine: str) -> Iterator[Service]:
    service = Service(machine)

    class Handler(BaseHTTPRequestHandler):
        def answer(self, body: str = "") -> None:
            """By the rules: 400 where a header or a version is missing, 404 elsewhere."""
            parts = urlsplit(self.path)
            length = int(self.headers.get("content-length") or 0)
            said = self.rfile.read(length).decode()
            known = parts.path in KNOWN
            sound = self.headers.get("Metadata") == "true" and parse_qs(parts.query).get(
                "api-version"
            )
            forwarded = self.headers.get("X-Forwarded-For")
            if not known or not sound or forwarded:
                service.refused.append(f"{self.command} {self.path}")
                self.send_error(404 if not known else 400)
                return
            if self.command == "POST":
                service.approve([each["EventId"] for each in json.loads(said)["StartRequests"]])
                content = b""
            elif parts.path.endswith("document"):
                (nonce,) = parse_qs(parts.query)["nonce"]
                signed = b64encode(service.attests(nonce)).decode()
                content = json.dumps({"encoding": "pkcs7", "signature": signed}).encode()
            elif parts.path.endswith("compute"):
                content = json.dumps({"name": service.machine, "location": "westeurope"}).encode()
            else:
                content = json.dumps(service.document()).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json; charset=utf-8")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = answer  # noqa: N815  # http.server's names

        def log_message(self, *words: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    service.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield service
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
