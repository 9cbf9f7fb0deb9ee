"""Mutating webhooks, as an API server asks them before it creates an object.

https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/
Creates alone are put to them, of any kind; updates and deletes are not.
"""

import base64
import json
import os
import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from typing import Any
from uuid import uuid4

import aiohttp
from yarl import URL

from meshfed.demo.kube.access import User
from meshfed.demo.kube.asked import Asked, Target
from meshfed.demo.kube.builtin import settled
from meshfed.demo.kube.kinds import HOOKS, Kind
from meshfed.demo.kube.objects import Object, Refusal, bad_request, encode
from meshfed.demo.kube.patches import operated
from meshfed.demo.kube.store import Store

VERSION, KIND = "admission.k8s.io/v1", "AdmissionReview"
HARMLESS = ("None", "NoneOnDryRun")
INVALID = "received invalid webhook response: "
UNKNOWN = range(18, 22)  # OpenSSL's four numbers for an issuer that is not trusted
STATUSES = {
    400: "the server rejected our request for an unknown reason",
    404: "the server could not find the requested resource",
    429: "the server has received too many requests and has asked us to try again later",
    503: "the server is currently unable to handle the request",
}
OPERATORS: Mapping[str, Callable[[bool, bool], bool]] = {
    "In": lambda there, listed: there and listed,
    "NotIn": lambda there, listed: not (there and listed),
    "Exists": lambda there, listed: there,
    "DoesNotExist": lambda there, listed: not there,
}


class Failed(Exception):
    """A webhook that gave no answer which counts, in the API server's words."""


class Unfound(Exception):
    """A service behind which nobody is."""


def selects(selector: Object | None, labels: Mapping[str, str]) -> bool:
    """Of labels, as objects spell selectors; an empty one selects everything."""
    said = selector or {}
    if any(labels.get(key) != value for key, value in (said.get("matchLabels") or {}).items()):
        return False
    return all(
        OPERATORS[each["operator"]](
            each["key"] in labels, labels.get(each["key"]) in (each.get("values") or ())
        )
        for each in said.get("matchExpressions") or ()
    )


def ruled(hook: Object, of: Target) -> bool:
    return any(
        {"CREATE", "*"} & set(rule["operations"])
        and {of.group, "*"} & set(rule["apiGroups"])
        and {of.version, "*"} & set(rule["apiVersions"])
        and {of.plural, "*"} & set(rule["resources"])
        for rule in hook.get("rules") or ()
    )


def concerned(store: Store, of: Target, thing: Object) -> Iterator[Object]:
    """The webhooks that are asked, in their order."""
    home = store.objects["", "namespaces"].get(("", of.namespace))
    around = (home.object["metadata"].get("labels") or {}) if home else {}
    own = thing["metadata"].get("labels") or {}
    configurations = store.objects[HOOKS, "mutatingwebhookconfigurations"]
    for _, stored in sorted(configurations.items()):
        for hook in stored.object.get("webhooks") or ():
            chosen = selects(hook["namespaceSelector"], around) if of.namespace else True
            if ruled(hook, of) and chosen and selects(hook["objectSelector"], own):
                yield hook


def review(user: User, kind: Kind, of: Target, asked: Asked, thing: Object) -> Object:
    gvk = {"group": kind.group, "version": kind.version, "kind": kind.name}
    gvr = {"group": kind.group, "version": kind.version, "resource": kind.plural}
    request: Object = {
        "uid": str(uuid4()),
        "kind": gvk,
        "resource": gvr,
        "requestKind": gvk,
        "requestResource": gvr,
        "name": thing["metadata"].get("name", ""),
        "namespace": of.namespace,
        "operation": "CREATE",
        "userInfo": {"username": user.name, "groups": sorted(user.groups)},
        "object": thing,
        "oldObject": None,
        "dryRun": asked.dry_run,
        "options": {"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"},
    }
    return {"kind": KIND, "apiVersion": VERSION, "request": request}


def taken(thing: Object, answer: Any, uid: str, name: str) -> tuple[Object, Sequence[str]]:
    """What a webhook makes of an object, and what it warns of. Raises Failed, and Refusal."""
    if not isinstance(answer, dict) or (answer.get("apiVersion"), answer.get("kind")) != (
        VERSION,
        KIND,
    ):
        raise Failed(f"{INVALID}expected webhook response of {VERSION}, Kind={KIND}")
    response = answer.get("response")
    if response is None:
        raise Failed(f"{INVALID}webhook response was absent")
    if response.get("uid") != uid:
        why = f'expected response.uid="{uid}", got "{response.get("uid", "")}"'
        raise Failed(INVALID + why)
    if not response.get("allowed"):
        status = response.get("status") or {}
        message = f'admission webhook "{name}" denied the request: {status.get("message")}'
        raise Refusal(status.get("code", 403), status.get("reason", "Forbidden"), message)
    return changed(thing, response), response.get("warnings") or []


def changed(thing: Object, response: Object) -> Object:
    """Raises Failed, and Refusal."""
    patch, type_ = response.get("patch"), response.get("patchType")
    if not patch and type_ is None:
        return thing
    if not patch or type_ is None:
        one, other = ("patch", "patchType") if patch else ("patchType", "patch")
        raise Failed(f"{INVALID}webhook returned response.{one} but not response.{other}")
    if type_ != "JSONPatch":
        raise Failed(f'unsupported patch type "{type_}"')
    try:
        operations = json.loads(base64.b64decode(patch))
    except ValueError as error:
        raise Failed(f"received undecodable patch in webhook response: {error}") from error
    try:
        made: Object = operated(thing, operations)
    except Refusal as error:
        raise Refusal(500, "InternalError", f"Internal error occurred: {error}") from error
    return made


def trusting(bundle: str) -> ssl.SSLContext:
    """Of these authorities alone, or of the system's. Raises Failed."""
    try:
        return ssl.create_default_context(cadata=base64.b64decode(bundle).decode() or None)
    except (ssl.SSLError, ValueError) as error:
        why = "unable to load root certificates: unable to parse bytes as PEM block"
        raise Failed(f"could not get REST client: {why}") from error


def unreached(error: Exception) -> str:
    """Why there was no answer, as Go says it."""
    if isinstance(error, TimeoutError):
        return "context deadline exceeded"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        found = error.certificate_error
        why = str(found)
        if isinstance(found, ssl.SSLCertVerificationError):
            unknown = found.verify_code in UNKNOWN
            why = "certificate signed by unknown authority" if unknown else found.verify_message
        return f"tls: failed to verify certificate: x509: {why}"
    if isinstance(error, aiohttp.ClientConnectorError) and error.os_error.errno:
        why = os.strerror(error.os_error.errno).lower()
        return f"dial tcp {error.host}:{error.port}: connect: {why}"
    return str(error)


def refused(status: int, body: str) -> str:
    """What an answer that is no 200 is called."""
    if status in STATUSES:
        return STATUSES[status]
    if status >= 500:
        return f'an error on the server ("{body}") has prevented the request from succeeding'
    why = f"the server responded with the status code {status}"
    return f"{why} but did not return more information"


class Admission:
    """Asks; within one API server."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def mutated(
        self, user: User, kind: Kind, of: Target, asked: Asked, body: Object
    ) -> tuple[Object, list[str]]:
        """An object as webhooks want it, and their warnings. Raises Refusal."""
        if not isinstance(body, dict) or not isinstance(body.get("metadata", {}), dict):
            return body, []  # which is refused afterwards
        body.setdefault("metadata", {})
        hooks = list(concerned(self._store, of, body))
        if not hooks:
            return body, []
        thing, warned = self._defaulted(kind, body), list[str]()
        for hook in hooks:
            if asked.dry_run and hook["sideEffects"] not in HARMLESS:
                raise bad_request(f'admission webhook "{hook["name"]}" does not support dry run')
            asking = review(user, kind, of, asked, thing)
            try:
                answer = await self._answer(hook, asking)
                thing, warnings = taken(thing, answer, asking["request"]["uid"], hook["name"])
            except Failed as failed:
                if hook["failurePolicy"] == "Ignore":
                    continue
                why = f'failed calling webhook "{hook["name"]}": {failed}'
                message = f"Internal error occurred: {why}"
                raise Refusal(500, "InternalError", message) from failed
            warned += warnings
        return thing, warned

    def _defaulted(self, kind: Kind, body: Object) -> Object:
        """What is absent is filled in before anybody is asked; what is wrong is found after."""
        thing = deepcopy(body)
        thing.setdefault("kind", kind.name)
        thing.setdefault("apiVersion", kind.api_version)
        named = thing["metadata"].get("name")
        thing["metadata"].setdefault("name", "generated")  # as nothing is made of it here
        settled(kind, thing, None, lambda: "")
        thing.pop("status", None)
        if named is None:
            del thing["metadata"]["name"]
        return thing

    async def _answer(self, hook: Object, asking: Object) -> Any:
        """Raises Failed."""
        said = hook["clientConfig"]
        query = f"timeout={hook['timeoutSeconds']}s"
        tls = trusting(said.get("caBundle") or "")
        if service := said.get("service"):
            host = f"{service['name']}.{service['namespace']}.svc"
            shown = f"https://{host}:{service['port']}{service.get('path') or ''}?{query}"
        else:
            shown = str(URL(said["url"]).update_query(query))
            host = str(URL(shown).host)
        try:
            where = self._found(service, URL(shown)) if service else URL(shown)
            patience = aiohttp.ClientTimeout(total=hook["timeoutSeconds"])
            async with (
                aiohttp.ClientSession(timeout=patience) as session,
                session.post(
                    where,
                    data=encode(asking),
                    headers={"Content-Type": "application/json", "Host": host},
                    ssl=tls,
                    server_hostname=host,
                ) as answer,
            ):
                status, body = answer.status, await answer.text()
        except (aiohttp.ClientError, OSError, Unfound) as error:
            raise Failed(f'failed to call webhook: Post "{shown}": {unreached(error)}') from error
        if status != 200:
            raise Failed(f"failed to call webhook: {refused(status, body)}")
        try:
            return json.loads(body)
        except ValueError as error:
            why = f"couldn't get version/kind; json parse error: {error}"
            raise Failed(f"failed to call webhook: {why}") from error

    def _found(self, service: Object, url: URL) -> URL:
        """Where a service's first ready endpoint is. Raises Unfound."""
        home, name = service["namespace"], service["name"]
        stored = self._store.objects["", "services"].get((home, name))
        if stored is None:
            raise Unfound(f'service "{name}" not found')
        ports = stored.object["spec"].get("ports") or ()
        port = next((each for each in ports if each["port"] == service["port"]), None)
        if port is None:
            raise Unfound(f'no service port {service["port"]} found for service "{name}"')
        slices = self._store.objects["discovery.k8s.io", "endpointslices"]
        for (namespace, _), each in slices.items():
            labels = each.object["metadata"].get("labels") or {}
            if (namespace, labels.get("kubernetes.io/service-name")) != (home, name):
                continue
            numbers = [one["port"] for one in each.object["ports"] or ()
                       if (one.get("name") or "") == (port.get("name") or "")]  # fmt: skip
            for endpoint in each.object["endpoints"] or ():
                if numbers and (endpoint.get("conditions") or {}).get("ready", True):
                    return url.with_host(endpoint["addresses"][0]).with_port(numbers[0])
        raise Unfound(f'no endpoints available for service "{name}"')
