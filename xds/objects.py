"""Which of the user's objects a resource is of, as its name tells."""

import re
from collections.abc import Iterable

# `<service>.<namespace>|<port>` is in the name of whatever is of a service (catalog/reach.py).
SERVICE = re.compile(r"(?<![\w.-])([\w-]+(?:\.[\w-]+)+)\|\d+")


def objects(names: Iterable[str], words: str = "") -> tuple[str, ...]:
    """The services in these names, and in words about them; where there is none, the names."""
    names = tuple(names)
    found = {service for text in (*names, words) for service in SERVICE.findall(text)}
    return tuple(sorted(found)) or names
