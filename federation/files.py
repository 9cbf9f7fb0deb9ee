"""How many files the control plane may have open: each stream, agent and reader is one."""

import resource

ENOUGH = 65_536


def raised() -> int:
    """Their number, once it is as large as this process may make it.

    It begins with 1,024 nearly everywhere, for programs that call select().
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    there, most = (
        ENOUGH if each == resource.RLIM_INFINITY else min(each, ENOUGH) for each in (soft, hard)
    )
    if there < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    return max(there, most)
