"""How Python itself is set for a control plane: its threads, and its search for garbage."""

import gc
import sys

# Seconds that a thread keeps the interpreter while another wants it. With Python's own 5 ms whoever
# writes to the catalog, and gives it up at each statement, stands in line a hundred times for a
# batch: of 2,000 changes of a cluster a second 1,600 to 2,000 were followed, with this all.
TURN = 0.0005
# In containers made. What streams hold is old, and is none: among what 1,000 of them hold a search
# took 0.3 s, and by Python's own numbers was made for every few pushes.
RARELY = (50_000, 20, 100)


def loading() -> None:
    """Until it is ready: among 200,000 endpoints that all stay, each search takes 0.5 s."""
    sys.setswitchinterval(TURN)
    gc.disable()


def settled() -> None:
    """Modules and the first mesh stay: to look for garbage among them stops all for 0.1 s."""
    gc.freeze()
    gc.set_threshold(*RARELY)
    gc.enable()
