"""When Python looks for garbage: not while it loads, and rarely afterwards."""

import gc

# In containers made. What streams hold is old, and is none: among what 1,000 of them hold a search
# took 0.3 s, and by Python's own numbers was made for every few pushes. Among what is new it takes
# 9 ms at most for 5,000 (54 for 50,000), and no thread runs meanwhile.
RARELY = (5_000, 400, 100)


def loading() -> None:
    """Until it is ready: among 200,000 endpoints that all stay, each search takes 0.5 s."""
    gc.disable()


def settled() -> None:
    """Modules and the first mesh stay: to look for garbage among them stops all for 0.1 s."""
    gc.freeze()
    gc.set_threshold(*RARELY)
    gc.enable()
