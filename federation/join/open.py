"""The join server of one control plane, as its configuration says."""

import ssl
from collections.abc import Callable
from pathlib import Path

from cryptography import x509
from cryptography.x509.verification import Store

from meshfed.catalog.inventory import Inventory
from meshfed.catalog.joins import Joins
from meshfed.catalog.leases import Leases
from meshfed.catalog.store import Catalog
from meshfed.federation.certificates.issuer import Issuer
from meshfed.federation.fields import Address
from meshfed.federation.join.attendance import Attendance
from meshfed.federation.join.methods import ByAttestation, ByCertificate, ByToken, Method
from meshfed.federation.join.nonce import Nonces
from meshfed.federation.join.pace import Pace
from meshfed.federation.join.policy import policies
from meshfed.federation.join.server import Desk
from meshfed.federation.settings import Refused, Settings

EVERYWHERE = ("0.0.0.0", "::")


def desk(settings: Settings, catalog: Catalog, issuer: Issuer, xds_port: Callable[[], int]) -> Desk:
    """`xds_port` is asked once xDS is served. Raises Refused where Azure's roots are none."""
    domain = settings.mesh.trust_domain
    joins = Joins(catalog)
    holder = ByCertificate(joins, domain)
    nonces = Nonces(shared(settings))
    methods: list[Method] = [holder, ByToken(joins)]
    if allowed := policies(settings):
        inventory = Inventory(catalog)
        methods.append(ByAttestation(joins, catalog, inventory, allowed, roots(settings), nonces))
    return Desk(
        joins,
        methods,
        issuer,
        trust_domain=domain,
        lifetime=settings.join.lifetime,
        xds=lambda: control_plane(settings.xds.listen, xds_port()),
        pace=Pace(settings.join.refusals),
        attendance=Attendance(joins, Leases(catalog), catalog, holder, settings.join.lease),
        nonces=nonces,
    )


def shared(settings: Settings) -> bytes:
    """What all replicas know and nobody else: they open the same root key with it."""
    key = settings.certificates.seal.key()
    return key.secret if key else b""


def roots(settings: Settings) -> Store:
    """What signs for Azure's metadata service in the end. Raises Refused."""
    named = settings.join.azure_roots
    path = settings.base / named if named else Path(ssl.get_default_verify_paths().cafile or "")
    try:
        return Store(x509.load_pem_x509_certificates(path.read_bytes()))
    except OSError as error:
        why = f"{path}: cannot be read: {error.strerror}"
    except ValueError:
        why = f"{path}: no certificates in PEM"
    raise Refused(settings.reject(("join", "azure_roots"), why))


def control_plane(listen: Address, port: int) -> str:
    """Where proxies find it. No host, when it listens everywhere: the machine has reached it by a
    name that works from there, which is more than is known here."""
    host = listen.rpartition(":")[0]
    return f":{port}" if listen.host in EVERYWHERE else f"{host}:{port}"
