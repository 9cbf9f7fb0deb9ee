"""What `doctor` finds out about the webhook of a cluster, by asking its API server.

Whether anybody answers, only the API server can say, as it is who asks: it is told to make a pod,
in a dry run, which makes nothing.
"""

from collections.abc import AsyncIterator

import msgspec

from meshfed.federation.inject.cluster import NAMESPACES
from meshfed.federation.inject.decide import OSM_IGNORE, PROXY
from meshfed.federation.inject.raw import Object
from meshfed.federation.inject.serve import KUBERNETES
from meshfed.federation.inject.trust import PATH, Configuration, repaired
from meshfed.federation.settings import Settings
from meshfed.providers.kubernetes.access import Line, line
from meshfed.providers.kubernetes.messages import Refused, Unreachable, status
from meshfed.providers.kubernetes.options import INJECT, options
from meshfed.providers.kubernetes.reflect import PACE
from meshfed.providers.provider import Examined

ABOUT = "webhook"
NEW_PODS = "new pods in meshed namespaces wait"
APPLY = "kubectl apply -f deploy/inject/webhook.yaml"
FORBIDDEN = "cannot create resource"  # in the words of RBAC
POD: Object = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"generateName": "meshfed-doctor-"},
    "spec": {"containers": [{"name": "doctor", "image": "doctor"}]},
}


class Named(msgspec.Struct):
    name: str = ""


class Listed(msgspec.Struct):
    metadata: Named


class Namespaces(msgspec.Struct):
    items: tuple[Listed, ...] = ()


class Spec(msgspec.Struct, rename="camel"):
    containers: tuple[Named, ...] = ()
    init_containers: tuple[Named, ...] = ()


class Made(msgspec.Struct):
    spec: Spec


async def examined(settings: Settings, roots_pem: str) -> AsyncIterator[tuple[str, Examined]]:
    """Cluster by cluster, where the configuration has a webhook. No roots: they are not known."""
    for each in settings.providers if settings.injection.listen else ():
        if each.type != KUBERNETES:
            continue
        try:
            api = line(options(each.name, each.options, settings.base).where, PACE)
        except ValueError:  # which is said of the provider
            continue
        try:
            yield each.name, await looked_at(api, settings.injection.webhook, roots_pem)
        except (Unreachable, Refused, msgspec.DecodeError) as error:
            remedy = "is the cluster there, and may this user read its webhooks?"
            yield each.name, Examined(ABOUT, f"cannot be looked at: {error}", remedy)
        finally:
            await api.close()


async def looked_at(api: Line, name: str, roots_pem: str) -> Examined:
    """Raises Unreachable, Refused and msgspec.DecodeError."""
    code, body = await got(api, f"{PATH}/{name}")
    if code == 404:
        why = f"MutatingWebhookConfiguration {name} is missing: no pod gets a sidecar"
        return Examined(ABOUT, why, APPLY)
    found = msgspec.json.decode(taken(code, body), type=Configuration)
    wrong = [each for each in repaired(found, roots_pem) if each["op"] == "add"]
    if roots_pem and wrong:
        why = f"{name}: {len(wrong)} of {len(found.webhooks or ())} caBundles are not the mesh's"
        remedy = "the `meshfed serve` that leads puts them right: see `webhook not trusted` there"
        return Examined(ABOUT, f"{why} root: {NEW_PODS}", remedy)
    query = {"labelSelector": f"{INJECT}=enabled,!{OSM_IGNORE}", "limit": "1"}
    homes = msgspec.json.decode(taken(*await got(api, NAMESPACES, query)), type=Namespaces)
    if not homes.items:
        return Examined(ABOUT, f"{name} is there; no namespace asks for sidecars")
    return await tried(api, homes.items[0].metadata.name)


async def tried(api: Line, namespace: str) -> Examined:
    """What becomes of a pod there. Raises Unreachable, and msgspec.DecodeError."""
    path = f"/api/v1/namespaces/{namespace}/pods"
    async with api.post(path, POD, {"dryRun": "All"}) as answer:
        body = await answer.read()
    if answer.status not in (200, 201):
        why = " ".join(status(body).message.split())
        if FORBIDDEN in why:
            return Examined(ABOUT, f"is there; whether it answers was not tried: {why}")
        remedy = "does `meshfed serve` run, and can the API server reach its `injection.listen`?"
        return Examined(ABOUT, f"{NEW_PODS}: a pod in {namespace}: {why}", remedy)
    spec = msgspec.json.decode(body, type=Made).spec
    if PROXY in (each.name for each in (*spec.init_containers, *spec.containers)):
        return Examined(ABOUT, f"answers: a pod in {namespace} gets its sidecar")
    why = f"a pod in {namespace} gets no sidecar, though the namespace asks for it"
    return Examined(ABOUT, why, f"compare the webhook's selectors: {APPLY}")


async def got(api: Line, path: str, query: dict[str, str] | None = None) -> tuple[int, bytes]:
    """Raises Unreachable."""
    async with api.get(path, query or {}) as answer:
        return answer.status, await answer.read()


def taken(code: int, body: bytes) -> bytes:
    """Raises Refused."""
    if code != 200:
        raise Refused(code, status(body).message)
    return body
