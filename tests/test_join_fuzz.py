"""Ten minutes of requests that no machine makes: each is refused in one line, and told.

MESHFED_SOAK_SECONDS makes it shorter, to try it. What is found is made small by hypothesis.
"""

import json
import os
import time
from base64 import b64encode
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import imds
import pytest
from attesting import INTER, ROOT, Document
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from forged import no_papers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from joining import Ground, grounded

from meshfed.catalog.reader import query
from meshfed.federation.certificates.keypair import request
from meshfed.federation.join.machine import join
from meshfed.federation.join.secret import Secret

SECONDS = float(os.environ.get("MESHFED_SOAK_SECONDS", "600"))
SUBSCRIPTION = "00000000-0000-0000-0000-00000000000a"
POLICY = {
    "name": "shop",
    "method": "azure-attested",
    "subscription": SUBSCRIPTION,
    "identity": "shop.live",
    "service": ["shop.live:8080"],
}
HOSTS = """
hosts:
  - {name: buyer, address: 127.0.51.1, bind: 127.0.51.1, identity: buyer.live}
"""
ROUND = 300  # requests by one nonce
REFUSED = (400, 401, 403, 409, 413, 422)
GENUINE = Document(subscription=SUBSCRIPTION, vm_id="fuzz")

pytestmark = [pytest.mark.soak, pytest.mark.timeout(SECONDS + 300)]


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "azure.pem").write_bytes(ROOT.public_bytes(Encoding.PEM))
    said = {
        "policies": [POLICY],
        "azure_roots": "azure.pem",
        "refusals": 10_000,
        "lease": "2h",
        "gone": "2h",
    }
    with grounded(folder, HOSTS, "127.0.51", **said) as ground:
        yield ground


# What is sent: something genuine, and what is done to its bytes

BYTES = st.binary(max_size=12)
# Lengths and tags that parsers stumble over: indefinite, enormous, of many bytes.
HOSTILE = st.sampled_from(
    [b"\x80", b"\x84\xff\xff\xff\xff", b"\x88" + b"\xff" * 8, b"\x30\x80", b"\x00\x00", b"\x1f\xff",
     b"\xa0\x84\x7f\xff\xff\xff", b"\x02\x01\x80", b"\x06\x00", b"\x05\x00", b"\x30" * 40]
)  # fmt: skip
PLACE = st.floats(0, 1, exclude_max=True)
EDIT = st.one_of(
    st.tuples(st.just("put"), PLACE, BYTES | HOSTILE),
    st.tuples(st.just("insert"), PLACE, BYTES | HOSTILE),
    st.tuples(st.just("cut"), PLACE, st.integers(1, 40)),
    st.tuples(st.just("again"), PLACE, st.integers(1, 400)),
    st.tuples(st.just("end"), PLACE, st.none()),
)
EDITS = st.lists(EDIT, min_size=1, max_size=6)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=40),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=12,
)
FIELDS = ("csr", "token", "document", "untrusted_chain", "untrusted_name", "untrusted_addresses")


def edited(genuine: bytes, edits: list[tuple[str, float, object]]) -> bytes:
    made = bytearray(genuine)
    for what, place, by in edits:
        at = int(place * len(made))
        match what, by:
            case "put", bytes():
                made[at : at + len(by)] = by
            case "insert", bytes():
                made[at:at] = by
            case "cut", int():
                del made[at : at + by]
            case "again", int():
                made[at:at] = made[at : at + by]
            case _:
                del made[at:]
    return bytes(made)


def enclosed(der: bytes, label: str) -> str:
    return f"-----BEGIN {label}-----\n{b64encode(der).decode()}\n-----END {label}-----\n"


def requests() -> list[bytes]:
    """For keys of all kinds, and with names: DER."""
    named = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "admin")])
    names = x509.SubjectAlternativeName([x509.DNSName("a.b"), x509.RFC822Name("a@b.c")])
    p256, p384 = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP384R1())
    builder = x509.CertificateSigningRequestBuilder(x509.Name([]))
    full = x509.CertificateSigningRequestBuilder(named).add_extension(names, critical=False)
    made = (
        request(p256),
        request(p384),
        full.sign(p256, hashes.SHA256()),
        builder.sign(rsa.generate_private_key(65537, 2048), hashes.SHA256()),
        builder.sign(ed25519.Ed25519PrivateKey.generate(), None),
    )
    return [each.public_bytes(Encoding.DER) for each in made]


@dataclass
class Fuzz:
    """Sends what hypothesis makes up, and knows what may come back."""

    ground: Ground
    standing: str  # a token with which anybody could join
    papers: Path  # of a machine that joined
    csrs: list[bytes]
    documents: list[bytes]
    heard: Counter[str]

    def good(self) -> dict[str, object]:
        """What would be refused for its name alone: that stands."""
        csr = enclosed(self.csrs[0], "CERTIFICATE REQUEST")
        said = {"csr": csr, "untrusted_name": "fuzz", "untrusted_addresses": ["192.0.2.66"]}
        return {**said, "token": self.standing}

    def refused(self, what: str, body: object) -> None:
        status, words = self.asks(body)
        if status == 200:  # under another name, with all that it takes
            assert self.honest(body), body
            what = "admitted"
        else:
            assert status in REFUSED, (status, words)
            assert words.isprintable(), words
            assert 0 < len(words) <= 300
        self.heard[what] += 1

    def asks(self, body: object, papers: Path | None = None) -> tuple[int, str]:
        """From many addresses, so that none has to wait."""
        path = "/v1/lease" if papers else "/v1/join"
        at = f"127.0.51.{20 + self.heard.total() % 200}"
        return self.ground.asks(body, papers, path, at)

    def honest(self, body: object) -> bool:
        said = json.loads(body) if isinstance(body, bytes) else body
        own = {name: said[name] for name in ("csr", "token")}
        return own == {name: self.good()[name] for name in own} and said["untrusted_name"] != "fuzz"

    def csr(self, which: int, edits: list[tuple[str, float, object]]) -> None:
        der = edited(self.csrs[which % len(self.csrs)], edits)
        self.refused("csr", {**self.good(), "csr": enclosed(der, "CERTIFICATE REQUEST")[:4096]})

    def pem(self, edits: list[tuple[str, float, object]]) -> None:
        text = edited(str(self.good()["csr"]).encode(), edits).decode("latin-1")
        self.refused("pem", {**self.good(), "csr": text[:4096]})

    def token(self, edits: list[tuple[str, float, object]]) -> None:
        text = edited(self.standing.encode(), edits).decode("latin-1")
        self.refused("token", {**self.good(), "token": text[:256]})

    def document(self, which: int, edits: list[tuple[str, float, object]]) -> None:
        der = edited(self.documents[which % len(self.documents)], edits)
        asked = {**self.good(), "token": "", "document": b64encode(der).decode()[:9000]}
        self.refused("document", asked)

    def chain(self, which: int, edits: list[tuple[str, float, object]]) -> None:
        der = edited(INTER.public_bytes(Encoding.DER), edits)
        document = b64encode(self.documents[which % len(self.documents)]).decode()
        chain = enclosed(der, "CERTIFICATE")[:9000]
        asked = {**self.good(), "token": "", "document": document, "untrusted_chain": chain}
        self.refused("chain", asked)

    def body(self, edits: list[tuple[str, float, object]]) -> None:
        self.refused("body", edited(json.dumps(self.good()).encode(), edits))

    def field(self, name: str, value: object) -> None:
        self.refused("field", {**self.good(), name: value})

    def report(self, value: object, edits: list[tuple[str, float, object]]) -> None:
        """Of a machine that joined: it is heard, or refused."""
        said = {"untrusted_lost": "a", "untrusted_failing": {"8080": "b"}, "untrusted_draining": ""}
        body = edited(json.dumps({**said, "untrusted_failing": value}).encode(), edits)
        status, words = self.asks(body, self.papers)
        assert status == 200 or (status in REFUSED and words.isprintable()), (status, words)
        self.heard["report" if status != 200 else "heard"] += 1


ASKED = st.one_of(
    st.tuples(st.just("csr"), st.integers(0, 4), EDITS),
    st.tuples(st.just("document"), st.integers(0, 3), EDITS),
    st.tuples(st.just("chain"), st.integers(0, 3), EDITS),
    st.tuples(st.just("pem"), EDITS),
    st.tuples(st.just("token"), EDITS),
    st.tuples(st.just("body"), EDITS),
    st.tuples(st.just("field"), st.sampled_from(FIELDS), JSON),
    st.tuples(st.just("report"), JSON, EDITS),
)


def documents(ground: Ground) -> list[bytes]:
    """As Azure makes them, with a nonce of now."""
    url = f"https://127.0.0.1:{ground.port}/v1/nonce"
    nonce = httpx.get(url, verify=no_papers(), trust_env=False).text
    genuine = replace(GENUINE, nonce=nonce)
    made = (genuine, replace(genuine, beside=(INTER,)), replace(genuine, attributes=True))
    return [each.der for each in (*made, replace(genuine, beside=(INTER, INTER, ROOT)))]


def test_what_no_machine_sends_is_refused_in_one_line_and_told(ground: Ground) -> None:
    there, standing = ground.joined("fuzz", ground.token()), ground.token(uses=1_000_000)
    attested(ground)
    fuzz = Fuzz(ground, standing, there.folder, requests(), documents(ground), Counter())

    @settings(
        max_examples=ROUND,
        deadline=None,
        database=None,
        derandomize=False,
        suppress_health_check=list(HealthCheck),
    )
    @given(ASKED)
    def asks(asked: tuple[str, *tuple[object, ...]]) -> None:
        what, *given = asked
        getattr(fuzz, what)(*given)

    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        fuzz.documents = documents(ground)
        asks()
        ground.mesh.process.running()
    counted = "select count(*) from mesh_changes where what = 'join' and change like 'refused:%'"
    told = int(str(query(ground.url, counted).rows[0][0]))
    print(json.dumps({"refused": told, **dict(sorted(fuzz.heard.items()))}))
    assert told == fuzz.heard.total() - fuzz.heard["heard"] - fuzz.heard["admitted"]
    ground.joined("honest")
    log = (ground.mesh.folder / "serve.log").read_text()
    assert [line for line in log.splitlines() if "Traceback" in line or '"error"' in line] == []


def attested(ground: Ground) -> None:
    """A machine that Azure attests is there, and heard: nobody else is let in as it."""
    server = ground.server.believed_by(Secret.parse(ground.standing).pin)
    with imds.serving("fuzz-vm") as azure:
        azure.attests = lambda nonce: replace(GENUINE, nonce=nonce, beside=(INTER,)).der
        asked = {"untrusted_name": "fuzz-vm"}
        join(server, ground.folder / "fuzz-vm", asked, None, [next(ground.addresses)], azure.url)
    assert ground.asks({}, ground.folder / "fuzz-vm", path="/v1/lease")[0] == 200
