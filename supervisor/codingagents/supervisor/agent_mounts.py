"""SHELL: a mount namespace of the agent's own, in which task shells lie over the shells of the system.

For the process that becomes the agent, while it is root. What cannot be had is left to the other means of routing.
Nothing leaves the namespace: mounts in it are private before the first is made.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping

from codingagents.rewrite import places
from codingagents.supervisor import kernel


def lay_over(shims: Mapping[str, str]) -> list[str] | None:
    """Mount each value of `shims` over its key, both paths of files, and return those keys where it lies now.

    None where this process is still in the mount namespace that it was in.
    """
    if not shims:
        return None
    try:
        kernel.unshare(kernel.CLONE_NEWNS)
    except OSError:
        return None
    done = []
    with contextlib.suppress(OSError):
        kernel.mount("none", "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
        with contextlib.suppress(OSError):  # no mount but a plain directory; one of ours cannot be bound from as it is
            kernel.mount("none", places.RUN_TASKS, None, kernel.MS_PRIVATE)
        for target, shim in shims.items():
            kernel.mount(shim, target, None, kernel.MS_BIND)
            if os.path.samefile(target, shim):
                done.append(target)
    return done
