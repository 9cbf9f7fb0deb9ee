"""The mesh's names, `<service>.<namespace>.mesh`, answered by the sidecar itself, and no others."""

from collections.abc import Iterable, Sequence
from functools import lru_cache

from envoy.config.core.v3 import address_pb2, base_pb2
from envoy.config.listener.v3 import listener_components_pb2, listener_pb2, udp_listener_config_pb2
from envoy.data.dns.v3 import dns_table_pb2
from envoy.extensions.filters.udp.dns_filter.v3 import dns_filter_pb2
from google.protobuf.duration_pb2 import Duration

from meshfed.catalog.dialled import Names
from meshfed.xds.resource import packed

DNS_PORT = 15053
DNS = "dns"
DOMAIN = "mesh"
TTL_S = 30  # virtual IPs stay; members of services without one come and go
# Enough of them for whoever tries several; which one is dialled does not say who is called.
MEMBERS = 8

Listener = listener_pb2.Listener
Table = dns_table_pb2.DnsTable
Filter = dns_filter_pb2.DnsFilterConfig


@lru_cache(maxsize=8)
def dns_listener(names: Names, hosts: tuple[str, ...]) -> Listener:
    """The same message for every class of callers with these loopback addresses: not to be changed.

    It forwards nothing: who brings queries here brings those of this domain alone. Of all others
    Envoy (1.40) could ask for addresses and no more, and of these it refuses what is no address.
    """
    table = Table(virtual_domains=[domain(str(name), its) for name, its in names])
    server = Filter.ServerContextConfig(inline_dns_table=table)
    answering = listener_components_pb2.ListenerFilter(
        name="envoy.filters.udp.dns_filter",
        typed_config=packed(Filter(stat_prefix=DNS, server_config=server)),
    )
    first, *others = map(at, hosts)
    return Listener(
        name=DNS,
        address=first,
        additional_addresses=[listener_pb2.AdditionalAddress(address=each) for each in others],
        traffic_direction=base_pb2.TrafficDirection.OUTBOUND,
        udp_listener_config=udp_listener_config_pb2.UdpListenerConfig(),
        listener_filters=[answering],
    )


def at(host: str) -> address_pb2.Address:
    return address_pb2.Address(
        socket_address=address_pb2.SocketAddress(
            protocol=address_pb2.SocketAddress.UDP, address=host, port_value=DNS_PORT
        )
    )


def domain(name: str, addresses: Iterable[str]) -> Table.DnsVirtualDomain:
    its = Table.AddressList(address=answered([*addresses][:MEMBERS]))
    return Table.DnsVirtualDomain(
        name=f"{name}.{DOMAIN}",
        endpoint=Table.DnsEndpoint(address_list=its),
        answer_ttl=Duration(seconds=TTL_S),
    )


def answered(addresses: Sequence[str]) -> Sequence[str]:
    """For both families, so that no resolver hears that there is no such name.

    Envoy (1.40) says NXDOMAIN where a name has no address of the family that is asked for, and
    musl (Alpine) gives up then, whatever it hears of the other. Mapped addresses (RFC 4291,
    2.5.5.2) are called over IPv4 though an application opens a socket of IPv6; of IPv6 addresses
    there is no such thing for IPv4.
    """
    if any(":" in each for each in addresses):
        return addresses
    return [*addresses, *(f"::ffff:{each}" for each in addresses)]
