"""Workload certificates: there before anyone asks, renewed by the wall clock, gone with the last
service."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Self

import pytest
from cryptography import x509

from meshfed.catalog.model import Identity, ServiceName
from meshfed.catalog.reports import CertificateState
from meshfed.federation.certificates import keypair
from meshfed.federation.certificates.authority import LocalAuthority, root
from meshfed.federation.certificates.control import ControlPlane
from meshfed.federation.certificates.custody import Custody
from meshfed.federation.certificates.issuer import Names, Safe, Unissuable
from meshfed.federation.certificates.keys import Seal

DOMAIN = "shop.example"
DAY = 86_400.0
WEB, STORE = Identity("web", "shop"), Identity("store", "shop")
SHOP, BOOKS = ServiceName("shop", "shop"), ServiceName("books", "shop")


class Wall:
    """A clock on the wall: it moves when someone moves it."""

    def __init__(self) -> None:
        self.now = datetime(2026, 8, 1, tzinfo=UTC).timestamp()

    def __call__(self) -> float:
        return self.now


class Moody:
    """An issuer that signs unless it is away, refuses someone, or says nothing at all."""

    def __init__(self, clock: Wall) -> None:
        self._clock = clock
        self.renew_root()
        self.away = False
        self.silent = False
        self.refused: set[Identity] = set()
        self.asked: list[str] = []

    @classmethod
    async def open(cls, *, trust_domain: str, safe: Safe, seal: Seal) -> Self:
        raise Unissuable("made by hand here")

    def renew_root(self) -> None:
        born = datetime.fromtimestamp(self._clock.now - 2 * DAY, UTC)
        self._authority = LocalAuthority(*root(DOMAIN, born), clock=self._clock)

    async def sign(
        self, csr: x509.CertificateSigningRequest, names: Names, lifetime: timedelta
    ) -> tuple[x509.Certificate, ...]:
        self.asked.append(names.uri)
        if self.silent:
            await asyncio.Event().wait()
        if self.away or names.uri in {who.uri(DOMAIN) for who in self.refused}:
            raise Unissuable("the issuer is away")
        return await self._authority.sign(csr, names, lifetime)

    async def roots(self) -> tuple[x509.Certificate, ...]:
        if self.away:
            raise Unissuable("the issuer is away")
        return await self._authority.roots()


@pytest.fixture
def wall() -> Wall:
    return Wall()


@pytest.fixture
def issuer(wall: Wall) -> Moody:
    return Moody(wall)


@pytest.fixture
def custody(issuer: Moody, wall: Wall) -> Custody:
    return Custody(issuer, DOMAIN, timedelta(seconds=DAY), clock=wall)


def serial(custody: Custody, identity: Identity = WEB) -> str:
    pair = custody.held(identity)
    assert pair
    return pair.serial


def said(rows: tuple[CertificateState, ...]) -> set[tuple[str, str, str]]:
    return {(str(row.identity), str(row.service), row.state) for row in rows}


async def test_an_identity_has_a_certificate_before_any_proxy_connects(custody: Custody) -> None:
    custody.keep({WEB: frozenset({SHOP})})
    await custody.check()
    pair = custody.held(WEB)
    assert pair
    (leaf,) = x509.load_pem_x509_certificates(pair.chain_pem.encode())
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(names) == [x509.UniformResourceIdentifier(WEB.uri(DOMAIN))]
    assert pair.serial == f"{leaf.serial_number:x}"
    assert said(custody.unrecorded()) == {("web.shop", "shop.shop", "unclaimed")}


async def test_what_nobody_keeps_is_not_held(custody: Custody) -> None:
    await custody.check()
    assert custody.held(WEB) is None
    custody.claim(WEB)
    assert custody.unrecorded() == ()


async def test_a_proxy_may_be_quicker_than_its_certificate(custody: Custody) -> None:
    custody.claim(WEB)
    custody.keep({WEB: frozenset({SHOP})})
    await custody.check()
    assert said(custody.unrecorded()) == {("web.shop", "shop.shop", "claimed")}


async def test_a_certificate_is_unclaimed_then_claimed_then_retired(custody: Custody) -> None:
    custody.keep({WEB: frozenset({SHOP, BOOKS})})
    await custody.check()
    custody.recorded(custody.unrecorded())
    assert custody.unrecorded() == ()

    custody.claim(WEB)
    rows = custody.unrecorded()
    assert said(rows) == {
        ("web.shop", "shop.shop", "claimed"),
        ("web.shop", "books.shop", "claimed"),
    }
    custody.recorded(rows)

    custody.keep({WEB: frozenset({SHOP})})
    rows = custody.unrecorded()
    assert said(rows) == {("web.shop", "books.shop", "retired")}
    custody.recorded(rows)
    assert custody.held(WEB)

    custody.keep({})
    assert said(custody.unrecorded()) == {("web.shop", "shop.shop", "retired")}
    assert custody.held(WEB) is None


async def test_what_the_catalog_did_not_take_is_said_again(custody: Custody) -> None:
    custody.keep({WEB: frozenset({SHOP})})
    await custody.check()
    assert custody.unrecorded() == custody.unrecorded() != ()


async def test_rows_of_a_replica_that_died_are_retired(custody: Custody) -> None:
    left = CertificateState(STORE, BOOKS, "local", "claimed", "1f", 0.0, 1.0)
    custody.recorded([left])
    assert said(custody.unrecorded()) == {("store.shop", "books.shop", "retired")}


async def test_identities_do_not_share_keys(custody: Custody) -> None:
    custody.keep({WEB: frozenset(), STORE: frozenset()})
    await custody.check()
    assert len({pair.key_pem for pair in custody.keypairs()}) == 2


@pytest.mark.parametrize(
    ("moved", "renewed"),
    [
        pytest.param(DAY * 2 / 3 - 60, False, id="a minute before two thirds of its life"),
        pytest.param(DAY * 2 / 3 + 1, True, id="at two thirds of its life"),
        pytest.param(DAY * 30, True, id="when the machine slept for a month"),
        pytest.param(-DAY, True, id="when the clock went back to before it began"),
        pytest.param(-60, False, id="but not when the clock went back by a minute"),
    ],
)
async def test_a_certificate_is_renewed(
    custody: Custody, wall: Wall, moved: float, renewed: bool
) -> None:
    custody.keep({WEB: frozenset()})
    await custody.check()
    before = custody.held(WEB)
    wall.now += moved
    await custody.check()
    after = custody.held(WEB)
    assert before
    assert after
    assert (after.serial != before.serial) is renewed
    assert (after.key_pem != before.key_pem) is renewed


async def test_a_short_life_is_not_spent_by_the_backdating(issuer: Moody, wall: Wall) -> None:
    custody = Custody(issuer, DOMAIN, timedelta(seconds=30), clock=wall)
    custody.keep({WEB: frozenset()})
    await custody.check()
    first = serial(custody)
    wall.now += 19
    await custody.check()
    assert serial(custody) == first
    wall.now += 2
    await custody.check()
    assert serial(custody) != first


@pytest.mark.parametrize(
    ("life", "seconds"),
    [
        pytest.param(timedelta(days=1), 30, id="every 30 s, however long the life"),
        pytest.param(
            timedelta(seconds=20), 2, id="more than once in the last third of a short one"
        ),
    ],
)
def test_the_wall_clock_is_looked_at(life: timedelta, seconds: float) -> None:
    assert keypair.glance(life) == seconds


async def test_a_renewed_certificate_stays_claimed(custody: Custody, wall: Wall) -> None:
    custody.keep({WEB: frozenset({SHOP})})
    await custody.check()
    custody.claim(WEB)
    custody.recorded(custody.unrecorded())
    wall.now += DAY
    await custody.check()
    (row,) = custody.unrecorded()
    assert (row.state, row.serial) == ("claimed", serial(custody))


async def test_the_last_good_one_stays_while_the_issuer_is_away(
    custody: Custody, issuer: Moody, wall: Wall
) -> None:
    custody.keep({WEB: frozenset()})
    await custody.check()
    before = serial(custody)
    issuer.away = True
    wall.now += DAY
    await custody.check()
    assert serial(custody) == before
    assert custody.faults() == {WEB: "the issuer is away"}
    assert custody.roots_pem
    issuer.away = False
    wall.now += 1
    await custody.check()
    assert serial(custody) != before
    assert custody.faults() == {}


async def test_an_issuer_that_fails_is_asked_less_and_less_often(
    custody: Custody, issuer: Moody, wall: Wall
) -> None:
    issuer.away = True
    custody.keep({WEB: frozenset()})
    start, asked_at = wall.now, []
    for second in range(120):
        wall.now, before = start + second, len(issuer.asked)
        await custody.check()
        asked_at += [second] * (len(issuer.asked) - before)
    assert asked_at == [0, 1, 3, 7, 15, 31, 61, 91]


async def test_a_clock_that_went_back_does_not_delay_the_next_attempt(
    custody: Custody, issuer: Moody, wall: Wall
) -> None:
    issuer.away = True
    custody.keep({WEB: frozenset()})
    await custody.check()
    issuer.away = False
    wall.now -= DAY
    await custody.check()
    assert custody.held(WEB)


async def test_one_identity_that_is_refused_holds_up_nobody(
    custody: Custody, issuer: Moody
) -> None:
    issuer.refused = {WEB}
    custody.keep({WEB: frozenset(), STORE: frozenset()})
    await custody.check()
    assert custody.held(WEB) is None
    assert custody.held(STORE)
    assert set(custody.faults()) == {WEB}


async def test_an_issuer_that_is_away_is_not_asked_for_everyone(
    custody: Custody, issuer: Moody
) -> None:
    issuer.away = True
    custody.keep({Identity(f"web-{n}", "shop"): frozenset() for n in range(100)})
    await custody.check()
    assert len(issuer.asked) == 16


async def test_an_issuer_that_says_nothing_has_failed(
    custody: Custody, issuer: Moody, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keypair, "PATIENCE", 0.0)
    issuer.silent = True
    custody.keep({WEB: frozenset()})
    await custody.check()
    assert "did not answer" in custody.faults()[WEB]


async def test_who_leaves_is_no_longer_at_fault(custody: Custody, issuer: Moody) -> None:
    issuer.away = True
    custody.keep({WEB: frozenset()})
    await custody.check()
    custody.keep({})
    assert custody.faults() == {}


async def test_listeners_are_told_whose_pair_moved(custody: Custody, wall: Wall) -> None:
    custody.keep({WEB: frozenset()})
    await custody.check()
    assert await custody.changed() == {WEB}
    custody.keep({WEB: frozenset(), STORE: frozenset()})
    await custody.check()
    assert await custody.changed() == {STORE}
    custody.keep({STORE: frozenset()})
    assert await custody.changed() == {WEB}


async def test_new_roots_concern_everyone(custody: Custody, issuer: Moody) -> None:
    custody.keep({WEB: frozenset(), STORE: frozenset()})
    await custody.check()
    await custody.changed()
    before = custody.roots_pem
    issuer.renew_root()
    await custody.check()
    assert custody.roots_pem != before
    assert await custody.changed() == {WEB, STORE}


async def test_a_newcomer_is_served_at_once_by_the_running_loop(custody: Custody) -> None:
    async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
        running = tasks.create_task(custody.run())
        custody.keep({WEB: frozenset()})
        assert await custody.changed() == {WEB}
        custody.keep({WEB: frozenset(), STORE: frozenset()})
        assert await custody.changed() == {STORE}
        running.cancel()


async def test_keys_stay_out_of_what_is_printed(custody: Custody) -> None:
    custody.keep({WEB: frozenset()})
    await custody.check()
    pair = custody.held(WEB)
    assert pair
    assert pair.key_pem.startswith("-----BEGIN PRIVATE KEY-----")
    assert "PRIVATE KEY" not in repr(pair)


async def test_the_control_plane_says_its_one_name_and_renews_it(issuer: Moody, wall: Wall) -> None:
    control = await ControlPlane.open(issuer, DOMAIN, timedelta(seconds=DAY), wall)
    first = control.current
    (leaf,) = x509.load_pem_x509_certificates(first.chain_pem.encode())
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(names) == [
        x509.UniformResourceIdentifier("spiffe://shop.example/meshfed/control-plane")
    ]
    with pytest.raises(ValueError, match="is not an identity"):
        Identity.from_uri(names[0].value, DOMAIN)
    await control.check()
    assert control.current is first
    wall.now += DAY * 2 / 3 + 1
    issuer.away = True
    await control.check()
    assert control.current is first
    issuer.away = False
    await control.check()
    assert control.current.serial != first.serial
