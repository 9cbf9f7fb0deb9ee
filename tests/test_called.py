"""By which names gRPC clients find the control plane."""

import socket

import pytest

from meshfed.federation.called import called
from meshfed.federation.fields import Address, host_name


def test_one_address_is_called_by_it_and_what_it_was_given() -> None:
    assert called(Address("10.1.1.1:15128"), ("mesh.example",)) == ("mesh.example", "10.1.1.1")
    assert called(Address("[2001:db8::7]:15128"), ()) == ("2001:db8::7",)


@pytest.mark.parametrize("listen", ["0.0.0.0:15128", "[::]:15128"])
def test_all_addresses_are_called_by_the_machines_own_names(listen: str) -> None:
    found = called(Address(listen), ("localhost",))
    assert found[0] == "localhost"
    assert {"127.0.0.1", "::1", socket.gethostname()} <= set(found)
    assert len(set(found)) == len(found)


@pytest.mark.parametrize("text", ["mesh.example", "mesh", "10.0.0.1", "2001:db8::7"])
def test_a_name_is_dns_or_an_address(text: str) -> None:
    assert host_name(text) == text


@pytest.mark.parametrize("text", ["", "mesh.example:15128", "[::1]", "https://mesh", "a..b"])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="write a DNS name or an address, without a port"):
        host_name(text)
