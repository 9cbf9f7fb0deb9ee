"""A client of delta xDS that remembers only what it was sent."""

from dataclasses import dataclass, field

from envoy.service.discovery.v3.discovery_pb2 import DeltaDiscoveryRequest, DeltaDiscoveryResponse

from meshfed.xds.resource import SHORT, Type


@dataclass
class Client:
    """Holds what it is sent, asks for what that refers to, and now and then rejects some."""

    has: dict[Type, dict[str, str]] = field(default_factory=lambda: {kind: {} for kind in Type})
    accepted: dict[Type, dict[str, str]] = field(
        default_factory=lambda: {kind: {} for kind in Type}
    )
    rejects: set[Type] = field(default_factory=set)
    asked: dict[Type, set[str]] = field(default_factory=lambda: {kind: set() for kind in Type})

    def hello(self) -> list[DeltaDiscoveryRequest]:
        first = [self._first(kind) for kind in (Type.CLUSTER, Type.LISTENER)]
        return [*first, *self._wants()]

    def _first(self, kind: Type) -> DeltaDiscoveryRequest:
        request = DeltaDiscoveryRequest(
            type_url=kind, initial_resource_versions=self.accepted[kind]
        )
        request.node.id = "x"
        return request

    def takes(self, response: DeltaDiscoveryResponse) -> list[DeltaDiscoveryRequest]:
        kind = Type(response.type_url)
        # What crossed an unsubscription on its way is dropped, as Envoy does.
        wanted = self.asked[kind] if kind in (Type.ENDPOINTS, Type.SECRET) else None
        new = {
            each.name: each.version
            for each in response.resources
            if wanted is None or each.name in wanted
        }
        self.has[kind].update(new)
        for name in response.removed_resources:
            self.has[kind].pop(name, None)
            self.accepted[kind].pop(name, None)
        answer = DeltaDiscoveryRequest(type_url=kind, response_nonce=response.nonce)
        if kind in self.rejects and new:
            self.rejects.discard(kind)
            answer.error_detail.message = "no"
        else:
            self.accepted[kind].update(new)
        return [answer, *self._wants()]

    def _wants(self) -> list[DeltaDiscoveryRequest]:
        """Endpoints and secrets of the clusters that it has, and its own certificate."""
        clusters = set(self.has[Type.CLUSTER])
        secrets = {"certificate", *(f"validation/{name}" for name in clusters)}
        return [
            request
            for kind, names in ((Type.ENDPOINTS, clusters), (Type.SECRET, secrets))
            for request in self._subscribes(kind, names)
        ]

    def _subscribes(self, kind: Type, names: set[str]) -> list[DeltaDiscoveryRequest]:
        more, less = names - self.asked[kind], self.asked[kind] - names
        if not (more or less):
            return []
        first = not self.asked[kind]
        self.asked[kind] = names
        for name in less:
            self.has[kind].pop(name, None)
            self.accepted[kind].pop(name, None)
        request = DeltaDiscoveryRequest(
            type_url=kind,
            resource_names_subscribe=sorted(more),
            resource_names_unsubscribe=sorted(less),
        )
        if first:
            request.initial_resource_versions.update(self.accepted[kind])
        return [request]

    def again(self) -> "Client":
        """The same one on a new stream: it keeps what it had accepted."""
        kept = {kind: dict(versions) for kind, versions in self.accepted.items()}
        return Client({kind: dict(v) for kind, v in kept.items()}, kept)

    def told(self) -> dict[tuple[str, str], str]:
        return {(SHORT[k], name): v for k, of in self.has.items() for name, v in of.items()}
