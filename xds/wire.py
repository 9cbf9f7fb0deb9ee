"""Responses as concatenations of bytes that all streams share."""

from collections.abc import Iterable

CONTROL_PLANE = "meshfed"

RESOURCES = b"\x12"  # field 2, length-delimited: `resources`, in both kinds of response


def frames(header: bytes, resources: Iterable[bytes]) -> bytes:
    """Protobuf messages merge by concatenation, so nothing is serialised again per stream."""
    parts = [header]
    for resource in resources:
        parts += (RESOURCES, varint(len(resource)), resource)
    return b"".join(parts)


def varint(number: int) -> bytes:
    low = bytearray()
    while number > 0x7F:
        low.append(number & 0x7F | 0x80)
        number >>= 7
    low.append(number)
    return bytes(low)
