"""What the tests' Resource Manager answers, and the faults that it can be told to have."""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from meshfed.demo.arm.resources import SUBSCRIPTION, Resources, Row

LISTS = re.compile(
    r"/subscriptions/(?P<subscription>[^/]+)/providers/microsoft\.(?P<kind>compute/virtualmachines"
    r"|compute/virtualmachinescalesets|network/networkinterfaces|network/publicipaddresses)"
)
OF_SET = re.compile(
    r"/subscriptions/(?P<subscription>[^/]+)/resourcegroups/(?P<group>[^/]+)/providers"
    r"/microsoft\.compute/virtualmachinescalesets/(?P<name>[^/]+)"
    r"/(?P<kind>virtualmachines|networkinterfaces|publicipaddresses)"
)
# What it takes to read a list; the states of machines take a right more.
RIGHTS = {
    "compute/virtualmachines": "Microsoft.Compute/virtualMachines",
    "compute/virtualmachinescalesets": "Microsoft.Compute/virtualMachineScaleSets",
    "network/networkinterfaces": "Microsoft.Network/networkInterfaces",
    "network/publicipaddresses": "Microsoft.Network/publicIPAddresses",
    "virtualmachines": "Microsoft.Compute/virtualMachineScaleSets/virtualMachines",
    "networkinterfaces": "Microsoft.Compute/virtualMachineScaleSets/networkInterfaces",
    "publicipaddresses": "Microsoft.Compute/virtualMachineScaleSets/publicIPAddresses",
}
VERSIONS = {"compute": "2026-04-01", "network": "2026-03-01"}
OF_SETS = {"virtualmachines": "2026-04-01"}  # the others know only one that is old
OLD = "2018-10-01"
NOT_ALLOWED = (
    "Operation 'VirtualMachineScaleSets.virtualMachines.GET' is not allowed on Virtual Machine"
    " Scale Set since it has orchestration mode flexible"
)


@dataclass(frozen=True)
class Said:
    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Fault:
    """What is answered to some calls instead: to all whose path has `where` in it, for a time."""

    status: int
    code: str = ""
    where: str = ""
    times: int = -1  # for ever
    headers: Mapping[str, str] = field(default_factory=dict)
    message: str = ""
    target: str = ""

    def said(self) -> Said:
        error: Row = {"code": self.code, "message": self.message}
        if self.target:
            error["details"] = [{"code": "TooManyRequests", "target": self.target}]
        return Said(self.status, json.dumps({"error": error}).encode(), self.headers)


def throttled(after: int | None = None, *, where: str = "", times: int = -1) -> Fault:
    headers = {} if after is None else {"Retry-After": str(after)}
    message = "The server rejected the request because too many requests have been received."
    return Fault(429, "OperationNotAllowed", where, times, headers, message, "HighCostGet30Min")


@dataclass
class World:
    """Some subscriptions. Whatever is changed in `of` is listed from the next call on."""

    of: dict[str, Resources] = field(default_factory=lambda: {SUBSCRIPTION: Resources()})
    page: int = 2
    empty_pages: bool = False  # before each page there is an empty one
    elsewhere: str = ""  # the host at which lists go on
    hidden: set[str] = field(default_factory=set)  # groups that nobody may read: they are not there
    granted: frozenset[str] | None = None  # the rights of whoever asks; None: all
    faults: list[Fault] = field(default_factory=list)
    left: dict[str, int] = field(default_factory=dict)  # rate limit headers
    calls: Counter[str] = field(default_factory=Counter)  # by what was listed
    asked: list[tuple[str, str]] = field(default_factory=list)  # path and api-version
    kept: dict[str, Said] | None = None  # answers, until `moved`: a large world is slow to write
    rendered: dict[str, list[Row]] = field(default_factory=dict)

    @property
    def resources(self) -> Resources:
        return self.of[SUBSCRIPTION]

    @property
    def total(self) -> int:
        return sum(self.calls.values())

    def moved(self) -> None:
        """What was kept is not so any more."""
        self.kept, self.rendered = {}, {}

    def answer(self, url: str, path: str, query: Mapping[str, str]) -> Said:
        """`url` is scheme and host."""
        self.asked.append((path, query.get("api-version", "")))
        self.calls[counted(path, query)] += 1
        for fault in self.faults:
            if fault.times and fault.where.lower() in path.lower():
                fault.times -= 1
                return fault.said()
        if self.granted is not None and not needed(path, query) <= self.granted:
            return Fault(403, "AuthorizationFailed").said()
        key = f"{url}{path}{sorted(query.items())}"
        if self.kept is not None and key in self.kept:
            return self.kept[key]
        said = self._answer(url, path, query)
        if self.kept is not None:
            self.kept[key] = said
        return said

    def _answer(self, url: str, path: str, query: Mapping[str, str]) -> Said:
        lower = path.lower()
        if found := LISTS.fullmatch(lower):
            area = found["kind"].partition("/")[0]
            if said := wrong_version(query, VERSIONS[area]):
                return said
            resources = self.of.get(found["subscription"])
            if resources is None:
                return Fault(404, "SubscriptionNotFound").said()
            return self._pages(url, path, query, rows(resources, found["kind"], query))
        if found := OF_SET.fullmatch(lower):
            if said := wrong_version(query, OF_SETS.get(found["kind"], OLD)):
                return said
            return self._of_set(url, path, query, found)
        return Fault(404, "NotFound", message=path).said()

    def _of_set(self, url: str, path: str, query: Mapping[str, str], found: re.Match[str]) -> Said:
        resources = self.of[found["subscription"]]
        one = resources.find(found["name"], found["group"])
        if one is None:
            return Fault(404, "ResourceNotFound").said()
        if one.mode == "Flexible":
            if found["kind"] == "virtualmachines":
                return Fault(409, "OperationNotAllowed", message=NOT_ALLOWED).said()
            return self._pages(url, path, query, [])
        if found["kind"] == "virtualmachines":
            expanded = query.get("$expand") == "instanceView"
            return self._pages(url, path, query, resources.instance_rows(one, expanded=expanded))
        if not one.instances:
            return Fault(404, "NotFound", message="no instances").said()
        listed = found["kind"] == "networkinterfaces"
        rows = resources.set_nic_rows(one) if listed else resources.set_public_rows(one)
        return self._pages(url, path, query, rows)

    def _pages(self, url: str, path: str, query: Mapping[str, str], rows: Iterable[Row]) -> Said:
        listed = f"{path}{query.get('statusOnly', '')}"
        there = self.rendered.get(listed) if self.kept is not None else None
        if there is None:
            there = [row for row in rows if not self._is_hidden(row["id"])]
            self.rendered[listed] = there
        token = query.get("$skiptoken", "")
        start = int(token.removeprefix("e") or 0)
        empty = self.empty_pages and not token.startswith("e")
        page = [] if empty else there[start : start + self.page]
        after = f"e{start}" if empty else str(start + self.page)
        body: Row = {"value": page}
        if empty or start + self.page < len(there):
            rest = {k: v for k, v in query.items() if k != "$skiptoken"} | {"$skiptoken": after}
            body["nextLink"] = f"{self.elsewhere or url}{path}?" + "&".join(
                f"{name}={value}" for name, value in rest.items()
            )
        headers = {name: str(left) for name, left in self.left.items()}
        return Said(200, json.dumps(body).encode(), headers)

    def _is_hidden(self, resource: str) -> bool:
        return any(f"/resourcegroups/{one.lower()}/" in resource.lower() for one in self.hidden)


def rows(resources: Resources, kind: str, query: Mapping[str, str]) -> Iterator[Row]:
    made: dict[str, Callable[[], Iterator[Row]]] = {
        "compute/virtualmachines": resources.machine_rows,
        "compute/virtualmachinescalesets": resources.set_rows,
        "network/networkinterfaces": resources.nic_rows,
        "network/publicipaddresses": resources.public_rows,
    }
    states = query.get("statusOnly", "").lower() == "true"
    return resources.state_rows() if states else made[kind]()


def needed(path: str, query: Mapping[str, str]) -> frozenset[str]:
    """The rights that a call takes."""
    found = OF_SET.fullmatch(path.lower()) or LISTS.fullmatch(path.lower())
    if found is None:
        return frozenset()
    what = RIGHTS[found["kind"]]
    states = query.get("statusOnly") == "true" or query.get("$expand") == "instanceView"
    return frozenset({f"{what}/read", *([f"{what}/instanceView/read"] if states else ())})


def wrong_version(query: Mapping[str, str], known: str) -> Said | None:
    """Azure knows many; these are the ones that its SDK asks for."""
    if query.get("api-version") == known:
        return None
    why = f"the api-version {query.get('api-version')!r} is not supported: {known} is"
    return Fault(400, "InvalidResourceType", message=why).said()


def counted(path: str, query: Mapping[str, str]) -> str:
    """What was listed: the last word of the path, and whether it was of a set, or only states."""
    kind = path.lower().rpartition("/")[2]
    of = "set " if OF_SET.fullmatch(path.lower()) else ""
    return f"{of}{kind}{' states' if 'statusOnly' in query else ''}"
