"""The local authority passes the suite that every issuer passes."""

from pathlib import Path

import pytest

from meshfed.certificates.contract import IssuerContract
from meshfed.federation.certificates.issuer import Issuer, UnknownIssuer, load
from meshfed.federation.certificates.keys import Seal


class Memory:
    """A safe that forgets when the process ends."""

    def __init__(self) -> None:
        self.standing: tuple[str, bytes] | None = None

    async def authority(self) -> tuple[str, bytes] | None:
        return self.standing

    async def keep_authority(self, certificate_pem: str, sealed_key: bytes) -> tuple[str, bytes]:
        self.standing = self.standing or (certificate_pem, sealed_key)
        return self.standing


class TestLocalAuthority(IssuerContract):
    @pytest.fixture(autouse=True)
    def _places(self, tmp_path: Path) -> None:
        self.safe, self.seal = Memory(), Seal(tmp_path / "meshfed.key")

    async def issuer(self) -> Issuer:
        local = load("local")
        return await local.open(trust_domain="mesh.example", safe=self.safe, seal=self.seal)


def test_an_issuer_that_is_not_installed_is_refused_with_those_that_are() -> None:
    with pytest.raises(UnknownIssuer, match=r"'vault' is none of .*local"):
        load("vault")
