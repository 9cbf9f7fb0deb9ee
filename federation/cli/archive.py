"""`meshfed backup` and `meshfed restore`: the catalog and the key of its authority, encrypted."""

import io
import os
import sys
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from meshfed.federation.cli.options import CatalogUrl, Config
from meshfed.federation.cli.output import Finding, say, write

if TYPE_CHECKING:
    from meshfed.federation.certificates.keys import Seal

PASSPHRASE = "MESHFED_PASSPHRASE"
CATALOG, KEY = "catalog.jsonl.gz", "key"

PassphraseFile = Annotated[
    Path | None,
    typer.Option(
        "--passphrase-file",
        metavar="FILE",
        help=f"Its first line is the passphrase; else {PASSPHRASE}, else you are asked.",
        show_default=False,
    ),
]


def packed(members: Mapping[str, bytes]) -> bytes:
    import zipfile

    into = io.BytesIO()
    with zipfile.ZipFile(into, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)
    return into.getvalue()


def unpacked(plain: bytes) -> dict[str, bytes]:
    import zipfile

    with zipfile.ZipFile(io.BytesIO(plain)) as file:
        return {name: file.read(name) for name in file.namelist()}


def backup(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to write it.")],
    passphrase_file: PassphraseFile = None,
    catalog: CatalogUrl = None,
    config: Config = None,
) -> None:
    """Copy the catalog and its authority's key into one encrypted file, also while `serve` runs.

    Example: meshfed backup mesh-monday.backup --passphrase-file /run/secrets/passphrase
    """
    import asyncio

    from meshfed.catalog.copy import Uncopied, copied
    from meshfed.federation.certificates.archive import locked
    from meshfed.federation.certificates.keys import Unsealable
    from meshfed.federation.cli.source import catalog_url, configured, existing, reachable

    _check_new(file)
    url = existing(catalog_url(catalog, config))
    seal = configured(config).certificates.seal
    phrase = _passphrase(passphrase_file, twice=True)
    try:
        with reachable():
            key = _standing_key(seal)
            if not key and asyncio.run(_has_authority(url)):
                raise Finding(
                    f"{seal.path}: the key that opens this catalog's authority is not there:"
                    " name its configuration with --config, or set MESHFED_KEY"
                )
            members = {CATALOG: copied(url), KEY: key.encode()}
    except (Uncopied, Unsealable) as why:
        raise Finding(why) from why
    _write_whole(file, locked(packed(members), phrase))
    write(f"{file}\n")


def restore(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What `backup` wrote.")],
    passphrase_file: PassphraseFile = None,
    catalog: CatalogUrl = None,
    config: Config = None,
) -> None:
    """Fill a new catalog from a backup, and put the key back; what is in use is never overwritten.

    The backup may come from SQLite and go to Postgres, and the other way round; one of an older
    version is brought up to this one.

    Example: meshfed restore mesh-monday.backup --catalog sqlite:///meshfed.db
    """
    from meshfed.catalog.copy import Uncopied, put_back
    from meshfed.federation.certificates.archive import Unopenable, unlocked
    from meshfed.federation.certificates.keys import Unsealable
    from meshfed.federation.cli.source import catalog_url, configured, reachable

    url = catalog_url(catalog, config)
    seal = configured(config).certificates.seal
    archived = file.read_bytes()
    try:
        contents = unpacked(unlocked(archived, _passphrase(passphrase_file, twice=False)))
        key = contents[KEY].decode()
        _check_key(key, seal)
        with reachable():
            put_back(url, contents[CATALOG], also=lambda: _put_key_back(key, seal))
    except (Uncopied, Unopenable, Unsealable) as why:
        raise Finding(f"{file}: {why}") from why
    good = "and the proxies' certificates stay good" if key else "which had no key in its backup"
    say(f"restored: `meshfed serve` goes on with it, {good}")


async def _has_authority(url: str) -> bool:
    from meshfed.catalog.store import Catalog

    with closing(Catalog(url)) as catalog:
        return await catalog.authority() is not None


def _standing_key(seal: "Seal") -> str:
    from meshfed.federation.certificates.keys import written

    key = seal.key()
    return written(key) if key else ""


def _check_key(text: str, seal: "Seal") -> None:
    """Another key may still be needed: it is not overwritten."""
    standing = _standing_key(seal)
    if text and standing and standing != text:
        raise Finding(
            f"{seal.path}: another key is here, which the backup's would replace:"
            " move it away, or unset MESHFED_KEY, and restore again"
        )


def _put_key_back(text: str, seal: "Seal") -> None:
    from meshfed.federation.certificates.keys import keep, parse

    if text and not _standing_key(seal):
        keep(parse(text, "the backup"), seal.path)


def _passphrase(file: Path | None, *, twice: bool) -> str:
    if file is not None:
        phrase = _first_line(file)
    elif (phrase := os.environ.get(PASSPHRASE, "")) or not sys.stdin.isatty():
        pass  # given, or nobody to ask
    else:
        from getpass import getpass

        phrase = getpass("Passphrase: ", sys.stderr)
        if twice and phrase != getpass("The same again: ", sys.stderr):
            raise Finding("the two differ: nothing was written")
    if not phrase:
        raise Finding(f"no passphrase: set {PASSPHRASE} or name a --passphrase-file")
    return phrase


def _first_line(file: Path) -> str:
    try:
        return file.read_bytes().splitlines()[0].decode()
    except (IndexError, UnicodeDecodeError) as error:
        raise Finding(f"{file}: its first line is no passphrase") from error


def _check_new(file: Path) -> None:
    """Another backup may be the only one that is good: it is not overwritten."""
    if not file.name or file.is_dir():
        raise Finding(f"{file}: a folder: name the file to write")
    if os.path.lexists(file):
        raise Finding(f"{file}: there already: name a new file, or move this one away")


def _write_whole(file: Path, data: bytes) -> None:
    """All of it or nothing, for the owner only."""
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        _check_new(file)
        draft.replace(file)
    except OSError as error:
        raise Finding(f"{file}: {error.strerror}") from error
    finally:
        draft.unlink(missing_ok=True)
