"""What a class of proxies can reach is told to the catalog once, and then as far as it moved."""

from meshfed.catalog.model import Identity, Interception
from meshfed.catalog.reports import Reaches
from meshfed.catalog.view import ProxyClass
from meshfed.federation.classes import NOTHING, Classes

BUYER, SELLER = (
    ProxyClass(Identity(name, "shop"), (), "", "", "", Interception.EXPLICIT)
    for name in ("buyer", "seller")
)
A, B = (frozenset({(name, 0, f"{name}.shop", 1, "v1")}) for name in ("a", "b"))


def test_only_what_moved_is_told_again() -> None:
    classes = Classes()
    assert classes.written({BUYER: A, SELLER: A}) == [Reaches(1, A), Reaches(2, A)]
    assert classes.written({BUYER: A, SELLER: A}) == []
    assert classes.written({BUYER: A, SELLER: B}) == [Reaches(2, B, before=A)]
    assert classes.number(SELLER) == 2


def test_a_class_that_is_gone_is_taken_away() -> None:
    classes = Classes()
    classes.written({BUYER: A, SELLER: A})
    assert classes.written({BUYER: A}) == [Reaches(2, NOTHING, before=A)]
    assert classes.written({BUYER: A}) == []
    assert classes.written({BUYER: A, SELLER: A}) == [Reaches(3, A)]


def test_everything_is_told_anew_where_nobody_knows_what_the_catalog_has() -> None:
    classes = Classes()
    classes.written({BUYER: A, SELLER: A})
    classes.lost()
    assert classes.written({BUYER: B}) == [Reaches(1, B), Reaches(2, NOTHING)]


def test_a_class_that_is_gone_is_taken_away_again_where_that_was_not_written() -> None:
    classes = Classes()
    classes.written({BUYER: A, SELLER: A})
    classes.written({BUYER: A})
    classes.lost()
    assert classes.written({BUYER: A}) == [Reaches(1, A), Reaches(2, NOTHING)]
    assert classes.written({BUYER: A}) == []
    assert classes.written({BUYER: A, SELLER: A}) == [Reaches(3, A)]
