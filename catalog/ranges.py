"""The ranges that the mesh's own addresses come from, and the address that a number has there."""

from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

Range = IPv4Network | IPv6Network

ENDS = 2  # of a range: its first address names the network, its last one is everybody's
MOST = 2**31  # services; an IPv6 range has more addresses than a number could count


@dataclass(frozen=True, slots=True)
class Ranges:
    """Where the mesh's own addresses come from: at most one range of each family."""

    of: tuple[Range, ...] = ()

    @classmethod
    def parse(cls, text: str) -> "Ranges":
        return cls(tuple(ip_network(each) for each in text.split(", ") if each))

    def __str__(self) -> str:
        return ", ".join(map(str, self.of))

    def __contains__(self, address: str) -> bool:
        """Whether an IP literal is one of these."""
        return any(ip_address(address) in each for each in self.of)

    @property
    def most(self) -> int:
        """How many services fit; 0 where there are no ranges."""
        return min((*(each.num_addresses - ENDS for each in self.of), MOST)) if self.of else 0

    def addresses(self, number: int) -> tuple[str, ...]:
        """Of a service, by its number from 1 on; IPv4 before IPv6 where that is said first."""
        return tuple(str(each[number]) for each in self.of)


NO_RANGES = Ranges()
