"""The incremental dialect of xDS: what a request means, and what a response says."""

from collections.abc import Iterable
from functools import lru_cache

from envoy.config.core.v3 import base_pb2
from envoy.service.discovery.v3 import discovery_pb2

from meshfed.xds.resource import Resources
from meshfed.xds.subscription import Push, Subscription, alike
from meshfed.xds.wire import CONTROL_PLANE, batches, frames


def read(
    subscription: Subscription,
    request: discovery_pb2.DeltaDiscoveryRequest,
    resources: Resources,
) -> None:
    """Subscriptions are believed whatever the nonce says: only the answer may be stale (D2)."""
    subscribed, unsubscribed = request.resource_names_subscribe, request.resource_names_unsubscribe
    if subscription.introduced and not (subscribed or unsubscribed):
        return  # mostly: an answer, and nothing else
    subscribe, unsubscribe = set(subscribed), set(unsubscribed)
    if not subscription.introduced:
        _begin(subscription, subscribe, dict(request.initial_resource_versions), resources)
        subscribe = set()
    if "*" in unsubscribe:
        subscription.narrow()
    if names := unsubscribe & subscription.names:
        _unsubscribe(subscription, names)
    if "*" in subscribe:
        subscription.widen()
    if names := subscribe - {"*"}:
        subscription.ask(names)


def _begin(
    subscription: Subscription, subscribe: set[str], initial: dict[str, str], resources: Resources
) -> None:
    subscription.introduced = True
    subscription.wildcard = "*" in subscribe or (subscription.whole and not subscribe)
    subscription.greeting = subscription.wildcard and not initial
    subscription.ask(subscribe - {"*"})
    good = subscription.past.good
    for name, version in initial.items():
        if subscription.wildcard or name in subscription.names:
            known = resources.get(name)
            if known and known.version == version:
                good[name] = known
                subscription.hold(known.name, known.version)  # words that all streams share
                continue
            subscription.hold(name, version)
            if name not in good or good[name].version != version:
                good.pop(name, None)  # another replica told it something else since
                subscription.inherited.add(name)
    if subscription.whole:
        subscription.owed -= initial.keys()
    else:
        # Whoever was warming when the stream broke waits for a response, whatever it holds (D7).
        subscription.owed |= subscription.held.keys()


def _unsubscribe(subscription: Subscription, names: set[str]) -> None:
    if not subscription.wildcard:
        subscription.forget(names)
    else:
        # Still wanted by the wildcard: the client must be told what it is now (D8).
        subscription.names = alike(subscription.names - names)
        subscription.owed |= names
        subscription.current = None


def due(subscription: Subscription, resources: Resources, *, breaking: bool) -> Push | None:
    changed = subscription.changed(resources)
    removed = subscription.owed - changed.keys()
    if breaking:
        removed.update(subscription.gone(resources))
    if not (changed or removed or subscription.greeting):
        return None
    upserts = tuple(changed.values())
    return Push(upserts, tuple(sorted(removed)), upserts)


def parts(push: Push, subscription: Subscription) -> Iterable[Push]:
    """The same in messages of a size that every client takes; removals come last, and with what
    replaces them (O9) if that fits."""
    if len(push.resources) == 1 and not push.removed:  # mostly
        return (push,)
    told = subscription.batches(push.resources, lambda each: len(each.delta)) or [()]
    gone = batches(push.removed, len) or [()]
    together = [*(len(each.delta) for each in told[-1]), *map(len, gone[0])]
    if len(batches(together, int)) > 1:
        told.append(())
    return (*map(Push, told[:-1]), Push(told[-1], gone[0]), *(Push((), n) for n in gone[1:]))


def body(kind: str, push: Push, version: str, nonce: str) -> bytes:
    resources = [resource.delta for resource in push.resources]
    return frames(header(kind, version, push.removed), resources, nonce)


@lru_cache(maxsize=1 << 10)
def header(kind: str, version: str, removed: tuple[str, ...]) -> bytes:
    """The rest of a response, which all streams share that are told the same."""
    return discovery_pb2.DeltaDiscoveryResponse(
        type_url=kind,
        system_version_info=version,
        removed_resources=removed,
        control_plane=base_pb2.ControlPlane(identifier=CONTROL_PLANE),
    ).SerializeToString()
