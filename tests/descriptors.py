"""The sockets that this process has open, for tests that see none is left."""

from __future__ import annotations

import contextlib
import os


def sockets() -> set[str]:
    """Return them by inode. Other descriptors come and go with loops, and with whatever a collection of garbage frees.

    So the process's whole list is no measure of one test: the garbage may be another test's.
    """
    found = set()
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # that of the listing
            found.add(os.readlink(f"/proc/self/fd/{number}"))
    return {name for name in found if name.startswith("socket:")}
