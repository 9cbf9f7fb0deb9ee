"""An AdmissionReview (v1) and its answer, from bytes to bytes.

Only a pod that is being made is looked at. Nothing is done but answering, so a dry run is the same.
https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/
"""

import base64
import json

from meshfed.federation.inject.decide import Namespace
from meshfed.federation.inject.injection import Injection
from meshfed.federation.inject.patch import Patched, patched
from meshfed.federation.inject.raw import Object, Unfit, entry, mapping, word
from meshfed.providers.kubernetes.options import INJECT

VERSION, KIND = "admission.k8s.io/v1", "AdmissionReview"
LONGEST = 256  # characters of a warning, as API servers show them


class NoReview(ValueError):
    """What was sent is no review; one line."""


def answered(
    request: Object, namespace: Namespace | None, injection: Injection, roots: str, own: str
) -> bytes:
    """`namespace`: what is known of the pod's; None: nothing.

    Of one that is not known the API server has seen the label, or it would not ask.
    """
    try:
        made = looked_at(request, namespace, injection, roots, own)
    except Unfit as unfit:
        return _answer(request, refused(unfit))
    return _answer(request, allowed(made))


def asked(body: bytes) -> Object:
    """Raises NoReview."""
    try:
        said = entry(json.loads(body), ())
        if (said.get("apiVersion"), said.get("kind")) != (VERSION, KIND):
            raise NoReview(f"not an {KIND} of {VERSION}")
        request = mapping(said, "request")
        if not word(request, "uid", ("request",)):
            raise NoReview("request.uid: missing")
    except Unfit as unfit:
        raise NoReview(str(unfit.rejected(""))) from unfit
    except (ValueError, RecursionError) as error:
        if isinstance(error, NoReview):
            raise
        raise NoReview(f"not JSON: {error}") from error
    return request


def looked_at(
    request: Object, namespace: Namespace | None, injection: Injection, roots: str, own: str
) -> Patched:
    """Raises Unfit. Updates, and subresources such as ephemeralcontainers, change no sidecar."""
    kind = mapping(request, "kind", ("request",))
    pod = (kind.get("group", ""), kind.get("kind")) == ("", "Pod")
    created = request.get("operation") == "CREATE" and not request.get("subResource")
    if not (pod and created):
        return Patched()
    given = mapping(request, "object", ("request",))
    selected = Namespace(home(request), {INJECT: "enabled"})
    return patched(given, namespace or selected, injection, roots, own)


def home(request: Object) -> str:
    """The namespace in which it is to be made. Raises Unfit."""
    return word(request, "namespace", ("request",))


def allowed(made: Patched) -> Object:
    response: Object = {"allowed": True}
    if made.changes:
        text = json.dumps(made.changes, separators=(",", ":")).encode()
        response |= {"patchType": "JSONPatch", "patch": base64.b64encode(text).decode()}
    if made.warnings:
        response["warnings"] = [each[:LONGEST] for each in made.warnings]
    return response


def refused(unfit: Unfit) -> Object:
    """What who made the pod reads, in the words of kubectl."""
    message = f"meshfed: {unfit.rejected('')}"
    status = {"code": 422, "reason": "Invalid", "message": " ".join(message.split())}
    return {"allowed": False, "status": status}


def _answer(request: Object, response: Object) -> bytes:
    said = {"apiVersion": VERSION, "kind": KIND, "response": {"uid": request["uid"], **response}}
    return json.dumps(said, separators=(",", ":")).encode()
