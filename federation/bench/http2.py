"""One gRPC call over HTTP/2 from the client's side, in as few microseconds as Python needs.

grpcio cannot be this client: it checks a server's DNS name, and the control plane's certificate
has its SPIFFE id alone; nor is what clients cost to be measured. No Envoy is as cheap as this.
"""

from collections.abc import Iterator, Sequence

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RESET, SETTINGS, PING, GOAWAY, WINDOW = 0, 1, 3, 4, 6, 7, 8  # RFC 9113, section 6
END_STREAM = ACK = 1
END_HEADERS = 4
INITIAL_WINDOW, LARGEST_FRAME = 4, 5  # settings
HEAD = 9  # bytes before a frame's payload
FRAME = 16_384  # bytes that every peer takes
WIDE = (1 << 31) - 1  # no response waits for a window
REFILL = 1 << 29
STREAM = 1


class Closed(Exception):
    """The call is over; the message is what the server said of it, as far as it can be read."""


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return (
        len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload
    )


def setting(number: int, value: int) -> bytes:
    return number.to_bytes(2, "big") + value.to_bytes(4, "big")


def widened(stream: int, by: int) -> bytes:
    return frame(WINDOW, 0, stream, by.to_bytes(4, "big"))


def literals(headers: Sequence[tuple[str, str]]) -> bytes:
    """Headers spelt out (RFC 7541, section 6.2.2), each name and value under 127 bytes."""
    parts = []
    for each in headers:
        parts.append(b"\0")
        parts += [bytes((len(text),)) + text.encode() for text in each]
    return b"".join(parts)


def opening(path: str) -> bytes:
    """All that a client says before its first message."""
    headers = (
        (":method", "POST"),
        (":scheme", "https"),
        (":path", path),
        (":authority", "control-plane"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
    )
    settings = setting(INITIAL_WINDOW, WIDE) + setting(LARGEST_FRAME, 1 << 20)
    return b"".join(
        (
            PREFACE,
            frame(SETTINGS, 0, 0, settings),
            widened(0, WIDE - 0xFFFF),
            frame(HEADERS, END_HEADERS, STREAM, literals(headers)),
        )
    )


class Call:
    """Bytes from the server in, messages out; `outgoing` is what must be written meanwhile."""

    def __init__(self, path: str) -> None:
        self.outgoing = [opening(path)]
        self._raw = bytearray()
        self._messages = bytearray()
        self._window = self._stream_window = 0xFFFF  # for what we send
        self._initial = 0xFFFF
        self._waiting = bytearray()  # for a window
        self._taken = 0

    def send(self, message: bytes) -> None:
        self._waiting += b"\0" + len(message).to_bytes(4, "big") + message
        self._advance()

    def _advance(self) -> None:
        while self._waiting and (room := min(self._window, self._stream_window, FRAME)) > 0:
            part = bytes(self._waiting[:room])
            del self._waiting[:room]
            self._window -= len(part)
            self._stream_window -= len(part)
            self.outgoing.append(frame(DATA, 0, STREAM, part))

    def receive(self, data: bytes) -> Iterator[bytes]:
        """The messages that are whole now. Raises Closed."""
        raw, start = self._raw, 0
        raw += data
        while len(raw) - start >= HEAD:
            end = start + HEAD + int.from_bytes(raw[start : start + 3], "big")
            if len(raw) < end:
                break
            self._take(raw[start + 3], raw[start + 4], raw, start + HEAD, end)
            start = end
        del raw[:start]
        yield from self._whole()

    def _take(self, kind: int, flags: int, raw: bytearray, start: int, end: int) -> None:
        match kind:
            case 0:
                self._messages += raw[start:end]
                self._taken += end - start
                if self._taken > REFILL:
                    self.outgoing += [widened(0, self._taken), widened(STREAM, self._taken)]
                    self._taken = 0
            case 1 if flags & END_STREAM:
                raise Closed(bytes(raw[start:end]).decode("ascii", "replace"))
            case 3 | 7:
                raise Closed("reset" if kind == RESET else "the server goes away")
            case 4 if not flags & ACK:
                self._heed(bytes(raw[start:end]))
                self.outgoing.append(frame(SETTINGS, ACK, 0, b""))
            case 6 if not flags & ACK:
                self.outgoing.append(frame(PING, ACK, 0, bytes(raw[start:end])))
            case 8:
                more = int.from_bytes(raw[start:end], "big")
                if raw[start - 4 : start] == b"\0\0\0\0":
                    self._window += more
                else:
                    self._stream_window += more
                self._advance()

    def _heed(self, settings: bytes) -> None:
        for at in range(0, len(settings), 6):
            if int.from_bytes(settings[at : at + 2], "big") == INITIAL_WINDOW:
                initial = int.from_bytes(settings[at + 2 : at + 6], "big")
                self._stream_window += initial - self._initial
                self._initial = initial
        self._advance()

    def _whole(self) -> Iterator[bytes]:
        data, start = self._messages, 0
        while len(data) - start >= 5:
            end = start + 5 + int.from_bytes(data[start + 1 : start + 5], "big")
            if len(data) < end:
                break
            yield bytes(data[start + 5 : end])
            start = end
        del data[:start]
