"""The key that seals the root key: where it comes from, and when it is refused."""

import base64
from pathlib import Path

import pytest

from meshfed.federation.certificates.keys import Seal, Unsealable, keep, parse

SECRET = b"the root key"


def variable(fill: bytes = b"k") -> str:
    return base64.b64encode(fill * 32).decode()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "meshfed.key"


def test_the_first_secret_makes_a_key_file_that_only_its_owner_reads(path: Path) -> None:
    sealed = Seal(path).close(SECRET)
    assert path.stat().st_mode & 0o777 == 0o600
    assert [file.name for file in path.parent.iterdir()] == ["meshfed.key"]
    assert SECRET not in sealed
    assert Seal(path).open(sealed) == SECRET


def test_the_variable_goes_before_the_file_and_makes_none(path: Path) -> None:
    sealed = Seal(path, variable()).close(SECRET)
    assert not path.exists()
    assert Seal(path, variable() + "\n").open(sealed) == SECRET


def test_the_same_secret_is_never_sealed_the_same_way_twice(path: Path) -> None:
    assert Seal(path).close(SECRET) != Seal(path).close(SECRET)


def test_a_key_that_stands_is_not_replaced(path: Path) -> None:
    first = keep(parse(variable(b"a"), "a"), path)
    second = keep(parse(variable(b"b"), "b"), path)
    assert second.secret == first.secret


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_key_that_others_may_read_is_refused(path: Path, mode: int) -> None:
    sealed = Seal(path).close(SECRET)
    path.chmod(mode)
    with pytest.raises(Unsealable) as refused:
        Seal(path).open(sealed)
    assert str(refused.value) == f"{path}: others may read this key: chmod 600 {path}"


def test_a_lost_key_is_missed_and_not_made_again(path: Path) -> None:
    sealed = Seal(path).close(SECRET)
    path.unlink()
    with pytest.raises(Unsealable, match="missing: put the former key back") as refused:
        Seal(path).open(sealed)
    assert str(refused.value).startswith(f"{path}: ")
    assert not path.exists()


@pytest.mark.parametrize(
    ("seal", "origin"),
    [
        pytest.param(lambda path: Seal(path), "meshfed.key: key ", id="another file"),
        pytest.param(lambda path: Seal(path, variable(b"x")), "MESHFED_KEY: key ", id="a variable"),
    ],
)
def test_another_key_is_named_with_where_it_came_from(path: Path, seal, origin) -> None:
    sealed = Seal(path.with_name("first.key")).close(SECRET)
    keep(parse(variable(b"y"), "y"), path)
    with pytest.raises(Unsealable, match=f"{origin}[0-9a-f]{{8}} does not open what key"):
        seal(path).open(sealed)


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        pytest.param(lambda sealed: sealed[:-1] + b"!", "key is damaged", id="changed"),
        pytest.param(lambda sealed: sealed[:12], "key is damaged", id="cut off"),
        pytest.param(lambda sealed: b"", "not sealed by meshfed", id="empty"),
        pytest.param(lambda sealed: b"-----BEGIN", "not sealed by meshfed", id="in the clear"),
    ],
)
def test_what_is_not_whole_is_not_opened(path: Path, damage, why: str) -> None:
    sealed = Seal(path).close(SECRET)
    with pytest.raises(Unsealable, match=f"{why}: restore a backup"):
        Seal(path).open(damage(sealed))


@pytest.mark.parametrize("text", ["", "secret", variable()[:20], "ä" * 44, "0" * 64])
def test_text_that_is_no_key_is_refused_with_how_to_make_one(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
    path.chmod(0o600)
    with pytest.raises(Unsealable) as refused:
        Seal(path).close(SECRET)
    assert str(refused.value).startswith(f"{path}: ")
    assert "\n" not in str(refused.value)


def test_a_place_that_takes_no_key_is_said_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "meshfed.key"
    with pytest.raises(Unsealable, match="cannot be written there: No such file or directory"):
        Seal(path).close(SECRET)


def test_secrets_stay_out_of_what_is_printed(path: Path) -> None:
    seal = Seal(path, variable())
    key = seal.key()
    assert key
    for secret in (variable(), repr(key.secret), key.secret.hex()):
        assert secret not in f"{seal!r} {key!r}"


def test_a_folder_is_no_key(tmp_path: Path) -> None:
    with pytest.raises(Unsealable, match="Is a directory"):
        Seal(tmp_path).open(b"mf1")
