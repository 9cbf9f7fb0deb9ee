"""What the configuration says of an Azure: which subscriptions, as whom, and what is chosen."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from meshfed.providers.azure.resolve import Choice
from meshfed.providers.azure.tags import SERVICE
from meshfed.providers.hostlist import nearest

KEYS = (
    "subscriptions",
    "resource_groups",
    "cloud",
    "auth",
    "refresh",
    "select",
    "address",
    "network",
    "include_aks_nodes",
)
AUTH = ("workload_identity", "managed_identity", "client_secret", "default")
CUSTOM = ("endpoint", "authority", "audience", "ca")
GUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
GROUP = re.compile(r"[-\w._()]{1,90}")
NETWORK = re.compile(r"[-._A-Za-z0-9]{0,63}")
DURATION = re.compile(r"(\d{1,5})(s|m|h)")
SECONDS = {"s": 1, "m": 60, "h": 3600}


@dataclass(frozen=True, slots=True)
class Cloud:
    """Where one Azure is, and who gives tokens for it."""

    endpoint: str  # of its resource manager
    authority: str
    audience: str
    ca: Path | None = None  # whom to trust there; else whom this machine trusts

    @property
    def custom(self) -> bool:
        return self not in CLOUDS.values()

    @property
    def scope(self) -> str:
        return f"{self.audience}/.default"


CLOUDS = {
    "public": Cloud(
        "https://management.azure.com",
        "https://login.microsoftonline.com",
        "https://management.azure.com",
    ),
    "usgov": Cloud(
        "https://management.usgovcloudapi.net",
        "https://login.microsoftonline.us",
        "https://management.core.usgovcloudapi.net",  # by another name than its endpoint
    ),
    "china": Cloud(
        "https://management.chinacloudapi.cn",
        "https://login.chinacloudapi.cn",
        "https://management.chinacloudapi.cn",
    ),
}


@dataclass(frozen=True, slots=True)
class Options:
    subscriptions: tuple[str, ...]
    cloud: Cloud
    auth: str  # empty: what the environment is made for
    refresh: float  # seconds
    choice: Choice


def options(name: str, said: Mapping[str, object], base: Path) -> Options:
    """Raises ValueError: `key: why`."""
    for key in said:
        if key not in KEYS:
            raise ValueError(f"{key}: unknown key; {nearest(key, KEYS)}")
    return Options(
        subscriptions(said.get("subscriptions")),
        cloud(said.get("cloud", "public"), base),
        one_of("auth", said.get("auth", ""), AUTH) if "auth" in said else "",
        refresh(said.get("refresh", "30s")),
        Choice(
            name,
            tag(said.get("select", {"tag": SERVICE})),
            one_of("address", said.get("address", "private"), ("private", "public")) == "public",
            network(said.get("network", "")),
            flag("include_aks_nodes", said.get("include_aks_nodes", False)),
            groups(said.get("resource_groups", ())),
        ),
    )


def subscriptions(said: object) -> tuple[str, ...]:
    if said is None:
        raise ValueError("subscriptions: missing: list the ids of the subscriptions to look at")
    found = texts("subscriptions", said)
    for each in found:
        if not GUID.fullmatch(each.lower()):
            why = "is no id of a subscription: `az account list -o table` shows them"
            raise ValueError(f"subscriptions: {each!r} {why}")
    return tuple(dict.fromkeys(each.lower() for each in found))


def groups(said: object) -> frozenset[str]:
    if said == ():
        return frozenset()
    found = texts("resource_groups", said)
    for each in found:
        if not GROUP.fullmatch(each):
            raise ValueError(f"resource_groups: {each!r} is no name of a resource group")
    return frozenset(each.lower() for each in found)


def texts(key: str, said: object) -> list[str]:
    if not isinstance(said, list) or not said:
        raise ValueError(f"{key}: {said!r} is not a list of names: name at least one")
    for each in said:
        if not isinstance(each, str):
            raise ValueError(f"{key}: {each!r} is not text: put it in quotes")
    return [str(each) for each in said]


def cloud(said: object, base: Path) -> Cloud:
    if isinstance(said, str) and said in CLOUDS:
        return CLOUDS[said]
    if not isinstance(said, dict):
        why = f"is none of {', '.join(CLOUDS)}, and no mapping with the endpoint of another"
        raise ValueError(f"cloud: {said!r} {why}")
    for key in said:
        if key not in CUSTOM:
            raise ValueError(f"cloud.{key}: unknown key; {nearest(str(key), CUSTOM)}")
    endpoint = https("endpoint", said.get("endpoint"))
    authority = https("authority", said.get("authority"))
    audience = said.get("audience", endpoint)
    if not isinstance(audience, str) or not audience:
        raise ValueError(f"cloud.audience: {audience!r} is not the name of whom tokens are for")
    return Cloud(endpoint, authority, audience.rstrip("/"), ca(said.get("ca"), base))


def https(key: str, said: object) -> str:
    if not isinstance(said, str) or urlsplit(said).scheme != "https" or not urlsplit(said).netloc:
        # Tokens are sent there.
        raise ValueError(f"cloud.{key}: {said!r} is no https:// address")
    return said.rstrip("/")


def ca(said: object, base: Path) -> Path | None:
    if said is None:
        return None
    if not isinstance(said, str) or not (base / said).is_file():
        raise ValueError(f"cloud.ca: {said!r} is no file with certificates")
    return base / said


def refresh(said: object) -> float:
    found = DURATION.fullmatch(said) if isinstance(said, str) else None
    seconds = int(found[1]) * SECONDS[found[2]] if found else 0
    if not 1 <= seconds <= 3600:
        raise ValueError(f"refresh: {said!r} is no time from 1s to 1h: write 30s")
    return float(seconds)


def tag(said: object) -> str:
    name = said.get("tag") if isinstance(said, dict) and set(said) == {"tag"} else None
    if not isinstance(name, str) or not name or len(name) > 512 or set(name) & set("<>%&\\?/"):
        raise ValueError(f'select: {said!r} is not {{tag: "{SERVICE}"}}, the name of a tag')
    return name.lower()


def network(said: object) -> str:
    if not isinstance(said, str) or not NETWORK.fullmatch(said):
        raise ValueError(f"network: {said!r} is no name: letters, digits, '-', '.' and '_'")
    return said


def one_of(key: str, said: object, known: tuple[str, ...]) -> str:
    if not isinstance(said, str) or said not in known:
        raise ValueError(f"{key}: {said!r} is none of {', '.join(known)}")
    return said


def flag(key: str, said: object) -> bool:
    if not isinstance(said, bool):
        raise ValueError(f"{key}: {said!r} is neither true nor false")
    return said
