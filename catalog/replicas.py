"""The control planes that share a catalog: their signs of life, and what is left of those gone."""

from collections.abc import Iterable, Mapping

from sqlalchemy import Connection, delete, select

from meshfed.catalog.schema import class_clusters, proxies, proxy_clusters, proxy_sync, replicas


def signs(connection: Connection) -> Mapping[str, str]:
    """When each replica wrote last, in its own words: another word is a sign of life."""
    there = select(replicas.c.replica, replicas.c.seen_at)
    return {row.replica: row.seen_at for row in connection.execute(there)}


def forget(connection: Connection, gone: Iterable[str]) -> None:
    """These replicas and the proxies that are connected to none; one that lives says it again."""
    connection.execute(delete(replicas).where(replicas.c.replica.in_(list(gone))))
    there = select(replicas.c.replica)
    for table in (proxy_sync, proxy_clusters, proxies):
        left = select(proxies.c.proxy).where(proxies.c.replica.not_in(there))
        connection.execute(delete(table).where(table.c.proxy.in_(left)))
    connection.execute(delete(class_clusters).where(class_clusters.c.replica.not_in(there)))
