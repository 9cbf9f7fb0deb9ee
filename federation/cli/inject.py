"""`meshfed inject`: sidecars into manifests, before a cluster sees them."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from meshfed.federation.cli.options import Config
from meshfed.federation.cli.output import Finding, say, write

if TYPE_CHECKING:
    from meshfed.federation.settings import Settings

BEGIN = "-----BEGIN CERTIFICATE-----"


def inject(
    file: Annotated[
        str, typer.Option("-f", "--filename", metavar="FILE", help="A manifest; - is stdin.")
    ],
    roots: Annotated[
        Path | None,
        typer.Option(
            "--roots",
            metavar="PEM",
            help="The certificates by which pods know the control plane; else the catalog's.",
            show_default=False,
        ),
    ] = None,
    config: Config = None,
) -> None:
    """Print a manifest with sidecars in its pods, for `kubectl apply -f -`; comments are lost.

    Pods that say `meshfed.io/inject: disabled`, that are in their node's network or have a sidecar
    stay as they are, and so does every object without pods.

    Example: meshfed inject -f shop.yaml --roots bundle.pem | kubectl apply -f -
    """
    from meshfed.federation.cli.source import configured
    from meshfed.federation.inject.manifest import Refused, injected

    settings = configured(config)
    name, text = ("stdin", _stdin()) if file == "-" else (file, _text(Path(file)))
    pem = _roots(settings) if roots is None else _pem(roots)
    try:
        made = injected(text, name, settings.injection, pem)
    except Refused as refused:
        raise Finding(*refused.rejected) from refused
    write(made.text)
    for remark in made.remarks:
        say(remark)


def _stdin() -> str:
    try:
        return sys.stdin.read()
    except UnicodeDecodeError as error:
        raise Finding("stdin: not UTF-8 text") from error


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise Finding(f"{file}: not UTF-8 text") from error


def _pem(file: Path) -> str:
    from cryptography import x509

    text = _text(file)
    try:
        x509.load_pem_x509_certificates(text.encode())
    except ValueError as error:
        raise Finding(f"{file}: no certificates in PEM ({BEGIN})") from error
    return text


def _roots(settings: "Settings") -> str:
    """The mesh's own, from the catalog; there must be one already."""
    import asyncio

    from meshfed.federation.certificates.issuer import Unissuable, UnknownIssuer, load
    from meshfed.federation.certificates.keypair import pem
    from meshfed.federation.certificates.keys import Unsealable
    from meshfed.federation.cli.source import existing, migrated, opened

    migrated(existing(settings.catalog))

    async def asked() -> str:
        async with opened(settings.catalog) as catalog:
            issuer = await load(settings.certificates.issuer).open(
                trust_domain=settings.mesh.trust_domain,
                safe=catalog,
                seal=settings.certificates.seal,
            )
            return pem(await issuer.roots())

    try:
        return asyncio.run(asked())
    except (Unissuable, UnknownIssuer, Unsealable) as why:
        raise Finding(why) from why
