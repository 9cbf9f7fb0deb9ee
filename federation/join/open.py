"""The join server of one control plane, as its configuration says."""

from meshfed.catalog.joins import Joins
from meshfed.catalog.leases import Leases
from meshfed.catalog.store import Catalog
from meshfed.federation.certificates.issuer import Issuer
from meshfed.federation.fields import Address
from meshfed.federation.join.attendance import Attendance
from meshfed.federation.join.methods import ByCertificate, ByToken
from meshfed.federation.join.pace import Pace
from meshfed.federation.join.server import Desk
from meshfed.federation.settings import Settings

EVERYWHERE = ("0.0.0.0", "::")


def desk(settings: Settings, catalog: Catalog, issuer: Issuer, xds_port: int) -> Desk:
    domain = settings.mesh.trust_domain
    joins = Joins(catalog)
    holder = ByCertificate(joins, domain)
    return Desk(
        joins,
        (holder, ByToken(joins, catalog)),
        issuer,
        trust_domain=domain,
        lifetime=settings.join.lifetime,
        xds=control_plane(settings.xds.listen, xds_port),
        pace=Pace(settings.join.refusals),
        attendance=Attendance(joins, Leases(catalog), catalog, holder, settings.join.lease),
    )


def control_plane(listen: Address, port: int) -> str:
    """Where proxies find it. No host, when it listens everywhere: the machine has reached it by a
    name that works from there, which is more than is known here."""
    host = listen.rpartition(":")[0]
    return f":{port}" if listen.host in EVERYWHERE else f"{host}:{port}"
