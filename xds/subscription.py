"""What one client asked for of one resource type, what it holds, and what it has yet to answer."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import blake2b
from types import MappingProxyType
from weakref import WeakValueDictionary

from msgspec import Struct

from meshfed.xds.resource import Asked, Resource, Resources, Type, differences
from meshfed.xds.wire import batches

# Without names the first request for these means all of them; in SotW, what is absent is deleted.
WHOLE = frozenset({Type.CLUSTER, Type.LISTENER})

# Envoy withholds the answer to a CDS response until its clusters are warm, which ends by itself
# after initial_fetch_timeout (15 s). Whoever waits for an answer waits a little longer than that.
GATE = 16.0

# A client that reads but never answers must not cost memory for ever.
MOST_UNANSWERED = 16

# What is `current` of a type that was sent in part: it is no world's, so there is something to do.
PARTLY: Resources = MappingProxyType({})

UNSURE = ""  # the version of a resource whose update was rejected: never equal to a real one


class Push(Struct, frozen=True):
    """One update of one type, before it is bytes. `changed` are those of them that are news."""

    resources: tuple[Resource, ...]
    removed: tuple[str, ...] = ()
    changed: tuple[Resource, ...] = ()


class Sent(Struct, frozen=True):
    """A response that the client has not answered yet."""

    number: int
    at: float
    version: str
    resources: tuple[Resource, ...]


class Answer(Struct, frozen=True):
    """The client's word on one response. Times are of the clock that was passed in."""

    kind: str  # a type URL
    oldest: int  # number of the first response that it answers
    version: str
    sent_at: float
    answered_at: float
    rejected: str = ""
    about: tuple[str, ...] = ()  # the names that it rejects, as far as that is known


@dataclass(slots=True)
class Past:
    """What a client accepted and rejected of one type: true of it, whatever becomes of its stream.

    Whoever comes back is not sent again what it rejected, which would hold up its clusters (N4);
    and should it reject what is new, the last good one is at hand.
    """

    good: dict[str, Resource] = field(default_factory=dict)  # last accepted
    rejected: dict[str, frozenset[str]] = field(default_factory=dict)  # versions, by name
    words: str = ""  # of the last rejection

    def refuses(self, name: str, resources: Resources) -> bool:
        """Whether what the client should have under this name now is what it rejected."""
        return name in resources and resources[name].version in self.rejected.get(name, ())


Memory = dict[str, Past]  # by type URL, for one client


@dataclass(slots=True)
class Subscription:
    """One type's half of a conversation; knows nothing of the other types."""

    kind: str
    wildcard: bool = False
    names: frozenset[str] = frozenset()
    introduced: bool = False  # the first request of this type was seen
    named: bool = False  # names were given once: an empty list is no longer a wildcard (S3)
    greeting: bool = False  # the first answer is due even if it is empty (D10)
    owed: set[str] = field(default_factory=set)  # to be answered, whether or not they changed
    held: dict[str, str] = field(default_factory=dict)  # name to the version last sent
    past: Past = field(default_factory=Past)
    unmet: bool = False  # it came back from a stream that we know nothing of,
    inherited: set[str] = field(default_factory=set)  # and has these, in bytes we do not know
    suspects: set[str] = field(default_factory=set)  # some of these were: sent one by one
    unanswered: dict[str, Sent] = field(default_factory=dict)  # by nonce, oldest first
    answered: str = ""  # the nonce last answered
    missed: int = 0  # the number of the response whose answer was last found to be overdue
    current: Resources | None = None  # nothing is left to send of these
    within: Resources | None = None  # no name is held that these have not
    basis: Resources | None = None  # what of these was asked was sent, is owed, or was rejected
    digest: int = 0  # over `held`

    @property
    def whole(self) -> bool:
        return self.kind in WHOLE

    @property
    def version(self) -> str:
        """What the client holds, as a hash that does not depend on how it came to hold it."""
        return f"{self.digest:016x}"

    # What is asked for

    def ask(self, names: Iterable[str]) -> None:
        names = frozenset(names)
        self.names = alike(self.names | names)
        self.owed |= names
        self.current = None

    def ask_again(self) -> None:
        self.owed |= self.names
        if self.wildcard:
            self.owed |= self.held.keys()
        self.current = None

    def forget(self, names: Iterable[str]) -> None:
        """The client dropped these: if it asks again it needs them again (D9)."""
        gone = frozenset(names)
        self.names = alike(self.names - gone)
        self.owed -= gone
        for name in gone:
            self.drop(name)
        self.current = None

    def widen(self) -> None:
        self.wildcard = True
        self.current = self.basis = self.within = None
        # What it meets on its way, sent before an unsubscription, it will keep now.
        under_way = {r.name for sent in self.unanswered.values() for r in sent.resources}
        for name in under_way - self.held.keys():
            self.hold(name, UNSURE)

    def narrow(self) -> None:
        """No longer everything: only what was asked for by name stays (S4)."""
        self.wildcard = False
        self.forget(self.held.keys() - self.names)

    # What is due

    def asked(self, resources: Resources) -> Iterable[Resource]:
        if self.wildcard:
            return resources.values()
        return (resources[name] for name in self.names if name in resources)

    def _news(self, resources: Resources) -> Iterable[Resource]:
        """What of these it may lack: a difference costs every stream what changed, not what is."""
        if self.basis is None:
            return self.asked(resources)
        return differences.between(self.basis, resources, self._scope).new

    @property
    def _scope(self) -> Asked:
        return None if self.wildcard else self.names

    def changed(self, resources: Resources) -> dict[str, Resource]:
        """What is news to the client, and what it is owed; never what it rejected before."""
        if self.past.rejected:
            # Not where there is nothing now: the same may be back, and is not sent again.
            for name in self.past.rejected.keys() & resources.keys():
                if not self.past.refuses(name, resources):
                    del self.past.rejected[name]
        news = {r.name: r for r in self._news(resources) if self.held.get(r.name) != r.version}
        for name in self.past.rejected:
            news.pop(name, None)
        for name in self.owed:
            if answer := self.acceptable(resources.get(name)):
                news[name] = answer
        return news

    def step(self, resources: Resources) -> Push | None:
        """Mostly: what changed is all that is due, of what was all sent before. Else None."""
        basis = self.basis
        if basis is None or basis is not self.within:
            return None
        if self.owed or self.greeting or self.unmet or self.suspects or self.past.rejected:
            return None
        new, gone = differences.between(basis, resources, self._scope)
        return None if gone or not new else Push(new, (), new)

    def acceptable(self, resource: Resource | None) -> Resource | None:
        """It, or the last good one in place of one that was rejected."""
        if resource and resource.version in self.past.rejected.get(resource.name, ()):
            return self.past.good.get(resource.name)
        return resource

    def kept(self, resource: Resource) -> Resource | None:
        """As `acceptable`, where absence is removal: what the client has of somebody else stays
        in force while it is sent what it rejected, and would be gone without."""
        return self.acceptable(resource) or (resource if resource.name in self.inherited else None)

    def gone(self, resources: Resources) -> list[str]:
        within = self.within
        if within is not None and not differences.between(within, resources, self._scope).gone:
            return []
        return sorted(self.held.keys() - resources.keys())

    @property
    def gate(self) -> float | None:
        """Until when a push waits for the answer to the one before."""
        if not self.unanswered:
            return None
        return self.unanswered[next(reversed(self.unanswered))].at + GATE

    @property
    def oldest(self) -> int:
        """The number of the first response that has no answer, of those there are."""
        return next(iter(self.unanswered.values())).number

    def late(self, now: float) -> bool:
        """Whether the oldest answer is overdue; said once of each."""
        oldest = next(iter(self.unanswered.values()), None)
        if oldest is None or now < oldest.at + GATE or oldest.number == self.missed:
            return False
        self.missed = oldest.number
        return True

    def standing(self, resources: Resources) -> bool:
        """Whether the client refuses something of what it should have now."""
        return any(
            self.past.refuses(name, resources) and (self.wildcard or name in self.names)
            for name in self.past.rejected
        )

    def batches(
        self, resources: Iterable[Resource], size: Callable[[Resource], int]
    ) -> list[tuple[Resource, ...]]:
        """What may be what was rejected goes alone: the answer is about nothing else then."""
        alone = [resource for resource in resources if resource.name in self.suspects]
        others = (resource for resource in resources if resource.name not in self.suspects)
        return [*((each,) for each in alone), *batches(others, size)]

    # What was sent and answered

    def hold(self, name: str, version: str) -> None:
        before = self.held.get(name)
        if before == version:  # of a client that comes back all is sent again
            return
        if before is not None:
            self.digest ^= fold(name, before)
        self.held[name] = version
        self.digest ^= fold(name, version)

    def drop(self, name: str) -> None:
        if name in self.held:
            self.digest ^= fold(name, self.held.pop(name))
        self.past.good.pop(name, None)
        self.inherited.discard(name)
        self.suspects.discard(name)

    def send(self, push: Push, number: int, now: float) -> Sent:
        if self.unmet:
            self.inherited = {r.name for r in push.resources if r.name not in self.past.good}
            self.unmet = False
        for resource in push.resources:
            self.hold(resource.name, resource.version)
            self.suspects.discard(resource.name)
        for name in push.removed:
            self.drop(name)
        self.greeting = False
        self.owed.clear()
        sent = self.unanswered[str(number)] = Sent(number, now, self.version, push.resources)
        if len(self.unanswered) > MOST_UNANSWERED:
            oldest = next(iter(self.unanswered.values()))
            if oldest.at < now:  # not a part of this one
                del self.unanswered[str(oldest.number)]
        return sent

    def answer(self, nonce: str, rejected: str | None, now: float) -> Answer | None:
        """Take an acknowledgement or a rejection; None for a nonce that nothing waits for."""
        sent = self.unanswered.pop(nonce, None)
        if sent is None:
            return None
        older: list[Sent] = []
        if self.unanswered:  # answers come in order, and a SotW client gives only the last of some
            numbers = [n for n, other in self.unanswered.items() if other.number < sent.number]
            older = [self.unanswered.pop(number) for number in numbers]
        oldest = older[0].number if older else sent.number
        self.answered = nonce
        if rejected is None:
            for one in (*older, sent):
                self._accept(one.resources)
            return Answer(self.kind, oldest, sent.version, sent.at, now)
        about = self._judge(sent, older, rejected)
        self.past.words = said(rejected)
        return Answer(self.kind, oldest, sent.version, sent.at, now, self.past.words, about)

    def _judge(self, sent: Sent, older: list[Sent], words: str) -> tuple[str, ...]:
        """Returns the names that are, or may be, at fault."""
        before = {r.name: r for one in older for r in one.resources}
        named = {r for r in sent.resources if mentions(words, r.name)}
        others = set(sent.resources) - named
        names = {r.name for r in sent.resources}
        past = {r for r in before.values() if r.name not in names and mentions(words, r.name)}
        if self.whole and (named or past):
            # Envoy names the bad ones and takes the others (xds.md, N3)
            self._accept(others)
        elif self.whole or len(sent.resources) == 1:
            named = others
        else:  # it stopped at the first bad one, and does not say which that was
            self._doubt(others)
        # Words that Envoy held back come with the last nonce, and may be about what came before.
        unclear = {r for r in named if before.get(r.name, r).version != r.version}
        self._doubt(unclear)
        self._reject((named - unclear) | past)
        return tuple(sorted(r.name for r in named | past or others))

    def _doubt(self, resources: Iterable[Resource]) -> None:
        for resource in resources:
            if self.held.get(resource.name) == resource.version:
                self.hold(resource.name, UNSURE)
                self.suspects.add(resource.name)
                self.current = self.basis = None

    def _accept(self, resources: Iterable[Resource]) -> None:
        for resource in resources:
            if self.held.get(resource.name) == resource.version:  # not dropped or outdated since
                self.past.good[resource.name] = resource

    def _reject(self, resources: Iterable[Resource]) -> None:
        for resource in resources:
            name, version = resource.name, resource.version
            self.past.rejected[name] = self.past.rejected.get(name, frozenset()) | {version}
            if name in self.past.good and self.past.good[name].version == version:
                del self.past.good[name]
                self.inherited.add(name)  # it has something, and we do not know what
            if self.held.get(name) != version:
                continue
            self.hold(name, UNSURE)
            # A rejected cluster keeps warming, and withholds the answers to all later ones, until
            # its name is replaced or removed (tried with Envoy 1.40; envoy#14598). What the client
            # had from somebody else is left alone: those bytes are not ours to repeat.
            if self.kind == Type.CLUSTER and (name in self.past.good or name not in self.inherited):
                self.owed.add(name)
                self.current = None


# By their hashes: two that have the same one are not shared. The names in them are not, either.
_asked: WeakValueDictionary[int, frozenset[str]] = WeakValueDictionary()


def alike(names: frozenset[str]) -> frozenset[str]:
    """The same names, as one object for all streams that ask for them: 200 of them are 25 kB."""
    found = _asked.setdefault(hash(names), names)
    return found if found == names else names


@lru_cache(maxsize=1 << 14)  # every stream folds the same ones
def fold(name: str, version: str) -> int:
    return int.from_bytes(blake2b(f"{name}\0{version}".encode(), digest_size=8).digest())


def mentions(words: str, name: str) -> bool:
    """Whether a rejection is about this name: `c1` is not in `cluster(s) c10: …`."""
    return name in words and bool(
        re.search(rf"(?<![\w|/.-]){re.escape(name)}(?!\.?[\w|/-])", words)
    )


def said(words: str) -> str:
    """A rejection in one short line, as any database takes it: Postgres refuses a NUL.

    Envoy may append a dump of the response, keys and all.
    """
    short = " ".join(words.partition("goo.gle/debugonly")[0].replace("\0", " ").split())
    return short[:500] or "rejected"
