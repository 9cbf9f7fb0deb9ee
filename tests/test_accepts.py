"""The real Envoy accepts every golden configuration, and the bootstrap it is started with."""

import asyncio
import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from google.protobuf.any_pb2 import Any
from google.protobuf.json_format import MessageToDict

from meshfed.xds.bootstrap import BUNDLE, CERTIFICATE, KEY, bootstrap, secret_files
from meshfed.xds.secrets import OWN, certificate, validation

GOLDEN = Path(__file__).parent / "golden"
CASES = sorted(path for path in GOLDEN.iterdir() if path.is_dir())
ENVOY = Path(sys.executable).parent / "envoy"
# The bootstrap's, for the listener behind CONNECT.
INTERNAL_LISTENER = bootstrap(
    node_id="",
    identity="",
    control_plane="a:1",
    trust_domain="",
    folder=Path(),
    admin="a:1",
    bind="",
)["bootstrap_extensions"]


@pytest.fixture(scope="module")
def papers() -> tuple[bytes, bytes]:
    """A certificate and its key: what they say does not matter here."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "a test")])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + timedelta(hours=1))
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return signed.public_bytes(pem), private


async def test_every_golden_is_accepted(papers, tmp_path):
    """Each in an Envoy of its own, two at a time."""
    turn = asyncio.Semaphore(2)

    async def accepted(case: Path) -> tuple[str, str]:
        file = tmp_path / f"{case.name}.json"
        file.write_text(json.dumps(static(case, papers)))
        async with turn:
            return case.name, await verdict(file)

    cases = [case for case in CASES if sidecar(case)]
    found = dict(await asyncio.gather(*map(accepted, cases)))
    assert found == {case.name: "OK" for case in cases}


def sidecar(case: Path) -> bool:
    """What gRPC is told Envoy never is: test_grpc.py has gRPC accept it."""
    given = yaml.load((case / "given.yaml").read_text(), yaml.CSafeLoader)
    kinds = {each["name"]: each.get("interception") for each in given["workloads"]}
    return kinds[given["proxy"]] != "grpc"


@pytest.mark.parametrize(
    "control_plane",
    [
        pytest.param("127.0.0.1:15128", id="an address"),
        pytest.param("[::1]:15128", id="an IPv6 address"),
        pytest.param("control.shop.example:15128", id="a name"),
    ],
)
async def test_the_bootstrap_is_accepted(control_plane, papers, tmp_path):
    for name, content in secret_files(tmp_path).items():
        (tmp_path / name).write_text(json.dumps(content))
    for name, content in zip((CERTIFICATE, KEY, BUNDLE), (*papers, papers[0]), strict=True):
        (tmp_path / name).write_bytes(content)
    file = tmp_path / "envoy.json"
    content = bootstrap(
        node_id="store-1",
        identity="bookstore.shop",
        control_plane=control_plane,
        trust_domain="shop.example",
        folder=tmp_path,
        admin="127.0.0.1:0",
        bind="::",
    )
    file.write_text(json.dumps(content))
    assert await verdict(file) == "OK"


@pytest.mark.parametrize("address", ["15128", "host", "host:", ":15128", "host:port", "host:65536"])
def test_an_address_that_is_none_is_refused(address):
    with pytest.raises(ValueError, match="is not host:port"):
        bootstrap(
            node_id="n",
            identity="i",
            control_plane=address,
            trust_domain="t",
            folder=Path(),
            admin="a:1",
            bind="",
        )


async def verdict(file: Path) -> str:
    envoy = await asyncio.create_subprocess_exec(
        *(ENVOY, "--mode", "validate", "--config-path", file, "--use-dynamic-base-id"),
        *("--concurrency", "1", "--log-level", "error"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    _, errors = await envoy.communicate()
    return "OK" if envoy.returncode == 0 else errors.decode()[-2000:]


def static(case: Path, papers: tuple[bytes, bytes]) -> dict[str, object]:
    """The golden without a control plane: what it would be asked for is put in its place."""
    told = {path.stem: yaml.load(path.read_text(), yaml.CSafeLoader) for path in case.iterdir()}
    routes = {each["name"]: each for each in told.get("routes", ())}
    endpoints = {each["cluster_name"]: each for each in told.get("endpoints", ())}
    for cluster in told["clusters"]:
        if eds := cluster.pop("eds_cluster_config", None):
            fed = endpoints[eds.get("service_name", cluster["name"])]
            cluster |= {"type": "STATIC", "load_assignment": fed}
    secrets = [validation(name, papers[0], sans) for name, sans in told.get("secrets", {}).items()]
    secrets.append(certificate(OWN, *papers))
    return {
        "bootstrap_extensions": INTERNAL_LISTENER,
        "static_resources": {
            "clusters": inlined(told["clusters"], routes),
            "listeners": inlined(told["listeners"], routes),
            "secrets": [unpacked(secret.any) for secret in secrets],
        },
    }


def inlined(node: object, routes: dict[str, object]) -> object:
    if isinstance(node, list):
        return [inlined(each, routes) for each in node]
    if not isinstance(node, dict):
        return node
    kept = {k: inlined(v, routes) for k, v in node.items() if k not in ("rds", "sds_config")}
    if "rds" in node:
        kept["route_config"] = routes[node["rds"]["route_config_name"]]
    return kept


def unpacked(packed: bytes) -> dict[str, object]:
    content = MessageToDict(Any.FromString(packed))
    del content["@type"]
    return content
