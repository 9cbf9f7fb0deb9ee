"""Where workloads stand that people register, or that join: a scope for each."""

PROVIDER = "registered"


def scope(name: str) -> str:
    return f"{PROVIDER}/{name}"
