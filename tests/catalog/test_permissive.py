"""What `mesh_access` says while everyone may call everyone."""

from meshfed.catalog.model import (
    Endpoint,
    Identity,
    Known,
    Port,
    Protocol,
    Service,
    ServiceName,
    Workload,
)
from meshfed.catalog.reader import query
from meshfed.catalog.store import Catalog

SHOP = ServiceName("bookstore", "shop")
HOST = Workload("store-1", "rack", "rack/a", identity=Identity("store", "shop"))


def endpoint(port: int) -> Endpoint:
    return Endpoint(SHOP, port, "10.0.0.1", port, HOST.id, "rack", "rack/a", identity=HOST.identity)


async def test_everybody_may_call_each_port_as_long_as_it_lasts(catalog: Catalog, url: str) -> None:
    ports = (Port(80, "http"), Port(5432, "sql", Protocol.TCP))
    serves = frozenset({endpoint(80), endpoint(5432)})
    known = Known("rack", "rack/a", frozenset({Service(SHOP, ports)}), frozenset({HOST}), serves)
    await catalog.believe(known, kind="hosts", cause="")
    await catalog.configure("shop.example", permissive=True)
    asked = "select * from mesh_access order by port"
    assert [tuple(row) for row in query(url, asked).rows] == [
        ("*", "bookstore.shop", "store.shop", "http", 80, "*", ".*", "", "permissive"),
        ("*", "bookstore.shop", "store.shop", "tcp", 5432, "", "", "", "permissive"),
    ]
    await catalog.configure("shop.example", permissive=False)
    assert list(query(url, asked).rows) == []
