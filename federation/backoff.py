"""How long to wait after failures in a row: doubled each time, however many there have been."""

MOST = 64  # doublings: a machine may be away for weeks, and a float ends at 1,023


def doubled(first: float, failures: int, longest: float) -> float:
    """Seconds after so many failures; after one `first`, and never more than `longest`."""
    return min(first * 2.0 ** min(failures - 1, MOST), longest)
