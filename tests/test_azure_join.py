"""A machine of Azure joins without a token: a real `serve`, a local metadata service, own keys."""

import asyncio
import json
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import imds
import pytest
import yaml
from attesting import EVIL_KEY, INTER, LEAF, ROOT, Document, certificate
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from joining import Ground, grounded, unheeded

from meshfed.catalog.reader import query
from meshfed.federation.agent.renewal import Renewal
from meshfed.federation.certificates.keypair import request
from meshfed.federation.demo.folder import free_ports
from meshfed.federation.join.machine import join
from meshfed.federation.join.nonce import Nonces
from meshfed.federation.join.open import roots
from meshfed.federation.join.papers import Papers, Server, Unjoinable
from meshfed.federation.join.policy import policies
from meshfed.federation.join.secret import Secret
from meshfed.federation.settings import Refused, Settings

HOSTS = """
hosts:
  - {name: buyer, address: 127.0.50.1, bind: 127.0.50.1, identity: buyer.live}
"""
SUBSCRIPTION = "00000000-0000-0000-0000-00000000000a"
OTHER = "00000000-0000-0000-0000-00000000000b"
POLICY = {
    "name": "shop",
    "method": "azure-attested",
    "subscription": SUBSCRIPTION,
    "identity": "shop.live",
    "service": ["shop.live:8080"],
    "probe": ["tcp:8080"],
}
GENUINE = Document(subscription=SUBSCRIPTION, beside=(INTER,))


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    folder = tmp_path_factory.mktemp("azure")
    (folder / "azure.pem").write_bytes(ROOT.public_bytes(Encoding.PEM))
    said = {"policies": [POLICY], "azure_roots": "azure.pem", "refusals": 1000}
    with grounded(folder, HOSTS, "127.0.50", **said) as ground:
        yield ground


def server(ground: Ground) -> Server:
    """As a person names it, with the pin of the mesh's root."""
    return ground.server.believed_by(Secret.parse(ground.standing).pin)


def comes(ground: Ground, name: str, document: Document, folder: str = "") -> Papers:
    """A machine of this name, of which Azure attests that. Raises Unjoinable."""
    out = ground.folder / (folder or name)
    with imds.serving(name) as azure:
        azure.attests = lambda nonce: replace(document, nonce=nonce).der
        asked = {"untrusted_name": name}
        join(server(ground), out, asked, None, [next(ground.addresses)], azure.url)
    papers = Papers.read(out)
    assert papers is not None
    return papers


def test_a_machine_of_the_subscription_is_what_the_policy_says(ground: Ground) -> None:
    papers = comes(ground, "vm-a", replace(GENUINE, vm_id="a"))
    assert papers.probes == ("tcp:8080",)
    asked = "select identity, services, joined_by from mesh_workloads where name = 'vm-a'"
    assert query(ground.url, asked).rows == (("shop.live", "shop.live", "policy shop"),)
    assert ground.told()[-1] == ("vm-a", "admitted by policy shop, as shop.live")


async def test_whose_certificate_has_ended_is_let_in_again_by_its_agent(ground: Ground) -> None:
    document = replace(GENUINE, vm_id="b")
    papers = await asyncio.to_thread(comes, ground, "vm-b", document)
    before = (papers.folder / "certificate.pem").read_bytes()
    later = time.time() + 8 * 86400
    with imds.serving("vm-b") as azure:
        azure.attests = lambda nonce: replace(document, nonce=nonce).der
        at(papers.folder, azure.url)
        await Renewal(papers.folder, unheeded, clock=lambda: later).look()
    assert (papers.folder / "certificate.pem").read_bytes() != before


def at(folder: Path, url: str) -> None:
    """Its metadata service is found elsewhere from now on."""
    said = json.loads((folder / "join.json").read_text())
    (folder / "join.json").write_text(json.dumps({**said, "imds": url}))


EVIL = certificate("azure", EVIL_KEY, "azure", EVIL_KEY, ("metadata.azure.com",))
REFUSED = {
    "another subscription": (replace(GENUINE, subscription=OTHER), "no policy lets in machine"),
    "signed by oneself": (replace(GENUINE, signer=EVIL, key=EVIL_KEY), "no root of Azure"),
    "Azure's certificate beside": (
        replace(GENUINE, signer=EVIL, key=EVIL_KEY, beside=(LEAF, INTER)),
        "no root of Azure",
    ),
}


@pytest.mark.parametrize("attack", REFUSED)
def test_who_is_refused_is_told_why_and_so_is_history(ground: Ground, attack: str) -> None:
    document, why = REFUSED[attack]
    with pytest.raises(Unjoinable, match=why):
        comes(ground, "thief", document)
    assert why in ground.told()[-1][1]


def posted(ground: Ground, der: bytes, name: str = "thief") -> tuple[int, str]:
    csr = request(ec.generate_private_key(ec.SECP256R1())).public_bytes(Encoding.PEM).decode()
    document = b64encode(der).decode()
    return ground.asks({"csr": csr, "document": document, "untrusted_name": name})


@pytest.mark.parametrize(
    "nonce",
    ["", "n-1", Nonces().made(time.time())],
    ids=["no nonce", "its own", "another server's"],
)
def test_a_document_with_another_nonce_is_not_of_now(ground: Ground, nonce: str) -> None:
    status, why = posted(ground, replace(GENUINE, nonce=nonce).der)
    assert (status, "its nonce is not of this server" in why) == (403, True)


def test_a_document_that_is_none_is_refused(ground: Ground) -> None:
    status, why = posted(ground, b"let me in")
    assert (status, "not PKCS#7" in why) == (403, True)


def test_a_machine_is_one_and_its_name_is_its_own(ground: Ground) -> None:
    comes(ground, "vm-c", replace(GENUINE, vm_id="c"))
    comes(ground, "vm-c", replace(GENUINE, vm_id="c"), "again")  # as after its disk was lost
    with pytest.raises(Unjoinable, match="this machine joined already, as vm-c"):
        comes(ground, "vm-d", replace(GENUINE, vm_id="c"))
    with pytest.raises(Unjoinable, match="vm-c is registered already"):
        comes(ground, "vm-c", replace(GENUINE, vm_id="d"), "other")


def test_one_whose_agent_is_heard_is_not_let_in_again(ground: Ground) -> None:
    papers = comes(ground, "vm-f", replace(GENUINE, vm_id="f"))
    assert ground.asks({}, papers.folder, path="/v1/lease")[0] == 200
    with pytest.raises(Unjoinable, match="vm-f is in the mesh, and its agent is heard"):
        comes(ground, "vm-f", replace(GENUINE, vm_id="f"), "local")


def test_a_policy_is_no_token(ground: Ground) -> None:
    assert all(each.hash for each in ground.catalog(lambda joins: joins.tokens()))
    comes(ground, "vm-e", replace(GENUINE, vm_id="e"))
    assert all(each.hash for each in ground.catalog(lambda joins: joins.tokens()))


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        ("identity", "Shop", "identity: 'Shop' is not <account>.<namespace>"),
        (
            "service",
            ["shop.live:8080", "shop"],
            "service[1]: 'shop' is not <name>.<namespace>:<port>",
        ),
        (
            "probe",
            ["tcp:x"],
            "probe[0]: 'tcp:x' is no probe, such as http:8080/healthz, tcp:3306 or grpc:9090",
        ),
    ],
)
def test_a_policy_that_cannot_be_is_refused_with_its_line(
    tmp_path: Path, key: str, value: object, why: str
) -> None:
    file = tmp_path / "meshfed.yaml"
    file.write_text("join:\n  policies:\n    - " + json.dumps({**POLICY, key: value}) + "\n")
    with pytest.raises(Refused) as refused:
        Settings.read(file, {})
    assert str(refused.value) == f"{file}:3: join.policies[0].{why}"


def test_without_azures_roots_nothing_is_served(tmp_path: Path) -> None:
    ports = iter(free_ports(3))
    doors = {each: {"listen": f"127.0.0.1:{next(ports)}"} for each in ("xds", "admin", "join")}
    said = {**doors, "join": {**doors["join"], "policies": [POLICY], "azure_roots": "nowhere.pem"}}
    file = tmp_path / "meshfed.yaml"
    file.write_text(yaml.safe_dump(said))
    command = [sys.executable, "-m", "meshfed.federation.cli", "serve", "--config", str(file)]
    ended = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
    )
    lines = [*ended.stdout.splitlines(), *ended.stderr.splitlines()]
    assert ended.returncode == 1
    why = f"{tmp_path / 'nowhere.pem'}: cannot be read: No such file or directory"
    assert lines[-1] == f"{file}:4: join.azure_roots: {why}"
    assert not [line for line in lines if "serving" in line or "Traceback" in line]


def test_azures_roots_are_pem(tmp_path: Path) -> None:
    file = tmp_path / "meshfed.yaml"
    file.write_text("join: {azure_roots: meshfed.yaml}")
    with pytest.raises(Refused) as refused:
        roots(Settings.read(file, {}))
    assert str(refused.value) == f"{file}:1: join.azure_roots: {file}: no certificates in PEM"


def test_of_some_machines_the_others_are_not_let_in() -> None:
    some = {**POLICY, "vm_ids": [OTHER]}
    settings = Settings.model_validate({"join": {"policies": [some]}})
    (policy,) = policies(settings)
    assert policy.vm_ids == {OTHER}
