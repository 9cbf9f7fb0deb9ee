"""What an API server refuses in a pod: what its containers may have, and refer to.

https://github.com/kubernetes/kubernetes/blob/v1.34.4/pkg/apis/core/validation/validation.go
"""

from collections.abc import Iterator

from meshfed.demo.kube.objects import Object

Causes = Iterator[tuple[str, str]]
PROBES = ("startupProbe", "readinessProbe", "livenessProbe")
HANDLERS = ("exec", "httpGet", "tcpSocket", "grpc")
STAYS = "may not be set for init containers without restartPolicy=Always"


def containers(spec: Object) -> Causes:
    """Those that run beside each other, and those before them; a name is of one of them alone."""
    if not spec.get("containers"):
        yield "spec.containers", "Required value"
    names: list[object] = []
    volumes: list[object] = []
    for n, volume in enumerate(spec.get("volumes") or ()):
        if volume.get("name") in volumes:
            yield f"spec.volumes[{n}].name", f'Duplicate value: "{volume["name"]}"'
        volumes.append(volume.get("name"))
    for key in ("containers", "initContainers"):
        for n, container in enumerate(spec.get(key) or ()):
            at = f"spec.{key}[{n}]"
            for field in ("name", "image"):
                if not container.get(field):
                    yield f"{at}.{field}", "Required value"
            if container.get("name") in names:
                yield f"{at}.name", f'Duplicate value: "{container["name"]}"'
            names.append(container.get("name"))
            yield from _mounts(container, volumes, at)
            yield from _ports(container, at)
            yield from _life(container, at, before=key == "initContainers")


def _mounts(container: Object, volumes: list[object], at: str) -> Causes:
    for n, mount in enumerate(container.get("volumeMounts") or ()):
        if mount.get("name") not in volumes:
            yield f"{at}.volumeMounts[{n}].name", f'Not found: "{mount.get("name")}"'
        if not mount.get("mountPath"):
            yield f"{at}.volumeMounts[{n}].mountPath", "Required value"


def _ports(container: Object, at: str) -> Causes:
    for n, port in enumerate(container.get("ports") or ()):
        number, name = port.get("containerPort"), port.get("name") or ""
        if not (isinstance(number, int) and 1 <= number <= 65535):
            why = f"Invalid value: {number}: must be between 1 and 65535, inclusive"
            yield f"{at}.ports[{n}].containerPort", why
        if len(name) > 15:
            yield f"{at}.ports[{n}].name", f'Invalid value: "{name}": must be no more than 15'


def _life(container: Object, at: str, *, before: bool) -> Causes:
    stays = before and container.get("restartPolicy") == "Always"
    if not stays:  # other policies are for ContainerRestartRules, a feature gate that is off
        container.pop("restartPolicy", None)
    ends = before and not stays
    for field in (*PROBES, "lifecycle"):
        if container.get(field) is not None and ends:
            yield f"{at}.{field}", f"Forbidden: {STAYS}"
    for field in PROBES:
        probe = container.get(field)
        if probe is None:
            continue
        handlers = [each for each in HANDLERS if probe.get(each) is not None]
        if not handlers:
            yield f"{at}.{field}", "Required value: must specify a handler type"
        for other in handlers[1:]:
            why = "Forbidden: may not specify more than 1 handler type"
            yield f"{at}.{field}.{other}", why
        if field != "readinessProbe" and probe.get("successThreshold", 1) != 1:
            yield f"{at}.{field}.successThreshold", "Invalid value: must be 1"
