"""The state-of-the-world dialect of xDS: what a request means, and what a response says."""

from collections.abc import Iterator
from functools import lru_cache

from envoy.config.core.v3 import base_pb2
from envoy.service.discovery.v3 import discovery_pb2

from meshfed.xds.resource import Resources
from meshfed.xds.subscription import Push, Subscription, alike
from meshfed.xds.wire import CONTROL_PLANE, frames


def read(subscription: Subscription, request: discovery_pb2.DiscoveryRequest) -> None:
    """Every request carries the whole subscription, so the newest is believed, whatever its nonce
    (S7): a name added while a response was under way is not lost (envoy#10363)."""
    names = frozenset(request.resource_names)
    subscription.named |= bool(names)
    # An empty list means everything until names were given once, then nothing (S3).
    wildcard = "*" in names or (subscription.whole and not subscription.named)
    names -= {"*", ""}  # xds-test-harness says that it wants nothing with an empty name
    if not subscription.introduced:
        _begin(subscription, names, wildcard=wildcard, again=bool(request.version_info))
    elif _repeats(subscription, request, names, wildcard=wildcard):
        # The same answer twice is Envoy asking again, for a cluster that it warms (S8).
        subscription.ask_again()
        return
    _subscribe(subscription, names, wildcard=wildcard)


def _begin(
    subscription: Subscription, names: frozenset[str], *, wildcard: bool, again: bool
) -> None:
    subscription.introduced = True
    subscription.greeting = subscription.whole  # a first answer is due, even if empty
    # A gRPC process has a stream for each channel: what is not known here another may have brought.
    subscription.unmet = again
    if not subscription.whole:
        return
    # It does not say what it has: what it accepted. Its old routes still lead there (O2).
    for name, resource in subscription.past.good.items():
        if wildcard or name in names:
            subscription.hold(name, resource.version)


def _repeats(
    subscription: Subscription,
    request: discovery_pb2.DiscoveryRequest,
    names: frozenset[str],
    *,
    wildcard: bool,
) -> bool:
    return (
        request.response_nonce == subscription.answered != ""
        and not subscription.unanswered  # else it met the answer on its way
        and not request.HasField("error_detail")
        and (names, wildcard) == (subscription.names, subscription.wildcard)
    )


def _subscribe(subscription: Subscription, names: frozenset[str], *, wildcard: bool) -> None:
    lost, added = subscription.names - names, names - subscription.names
    if wildcard and not subscription.wildcard:
        subscription.widen()
        subscription.greeting = subscription.whole
    subscription.names = alike(subscription.names - lost)
    if added:
        subscription.ask(added)
    if subscription.wildcard and not wildcard:
        subscription.narrow()
    elif lost and not wildcard:
        subscription.forget(lost)


def due(subscription: Subscription, resources: Resources, *, breaking: bool) -> Push | None:
    changed = tuple(subscription.changed(resources).values())
    gone = subscription.gone(resources)
    if not subscription.whole:
        # Absence means nothing here (S2): what is gone is only not held any more.
        for name in gone if breaking else ():
            subscription.drop(name)
        return Push(changed, changed=changed) if changed else None
    if not (changed or subscription.owed or subscription.greeting or (breaking and gone)):
        return None
    told = [subscription.kept(resource) for resource in subscription.asked(resources)]
    # Absence is removal: until routes have moved away, the old stay beside the new (O2).
    told += [] if breaking else [subscription.past.good.get(name) for name in gone]
    whole = tuple(resource for resource in told if resource)
    removed = subscription.held.keys() - {resource.name for resource in whole}
    return Push(whole, tuple(sorted(removed)), changed)


def parts(push: Push, subscription: Subscription) -> Iterator[Push]:
    """Whole types in one message, as absence is removal; the others in sizes that all take."""
    if subscription.whole:
        yield push
        return
    yield from map(Push, subscription.batches(push.resources, lambda each: len(each.any)))


def body(kind: str, push: Push, version: str, nonce: str) -> bytes:
    return frames(header(kind, version), [resource.any for resource in push.resources], nonce)


@lru_cache(maxsize=1 << 10)
def header(kind: str, version: str) -> bytes:
    """The rest of a response, which all streams share that are told the same."""
    return discovery_pb2.DiscoveryResponse(
        type_url=kind,
        version_info=version,
        control_plane=base_pb2.ControlPlane(identifier=CONTROL_PLANE),
    ).SerializeToString()
