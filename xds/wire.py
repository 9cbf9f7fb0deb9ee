"""Responses as concatenations of bytes that all streams share."""

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import TypeVar

CONTROL_PLANE = "meshfed"

# Fields 2 and 5, length-delimited, in both kinds of response.
RESOURCES = b"\x12"
NONCE = b"\x2a"

# gRPC clients, and Envoy's Google-gRPC streams, refuse messages over 4 MB; small ones also let
# a slow client's answers come in between.
MOST_BYTES = 1_000_000
HEADER = 1_000  # bytes left for the rest of a response
FRAME = 6  # bytes around each of its resources or names, at most

Thing = TypeVar("Thing")


def batches(things: Iterable[Thing], size: Callable[[Thing], int]) -> list[tuple[Thing, ...]]:
    """The same in messages that every client takes; what is larger is alone in its own."""
    done: list[tuple[Thing, ...]] = []
    some: list[Thing] = []
    room = MOST_BYTES - HEADER
    for thing in things:
        needed = size(thing) + FRAME
        if some and needed > room:
            done.append(tuple(some))
            some, room = [], MOST_BYTES - HEADER
        some.append(thing)
        room -= needed
    return [*done, tuple(some)] if some else done


def frames(header: bytes, resources: Iterable[bytes], nonce: str) -> bytes:
    """Protobuf messages merge by concatenation, so nothing is serialised again per stream."""
    parts = [header]
    for resource in resources:
        parts += (RESOURCES, varint(len(resource)), resource)
    own = nonce.encode()
    return b"".join((*parts, NONCE, varint(len(own)), own))


@lru_cache(maxsize=1 << 12)
def varint(number: int) -> bytes:
    low = bytearray()
    while number > 0x7F:
        low.append(number & 0x7F | 0x80)
        number >>= 7
    low.append(number)
    return bytes(low)
