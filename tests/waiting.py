"""Waiting for what another process tells nobody when it is so."""

from collections.abc import Callable
from time import monotonic, sleep

PATIENCE = 10.0  # seconds
AGAIN = 0.05  # seconds between two looks


def until(true: Callable[[], bool], patience: float = PATIENCE) -> None:
    """Raises TimeoutError when it takes longer."""
    end = monotonic() + patience
    while not true():
        if monotonic() > end:
            raise TimeoutError(f"not within {patience:g} s")
        sleep(AGAIN)
