"""SHELL: puts an AppArmor profile on the next exec of this process, where the kernel has AppArmor and knows it."""

from __future__ import annotations

import errno
import os
from typing import Final

_ON_EXEC: Final = ("/proc/self/attr/apparmor/exec", "/proc/self/attr/exec")  # the second before Linux 5.1, or alone
_LABEL: Final = "/proc/self/attr/apparmor/current"
NONE: Final = "this kernel has no AppArmor"


def confine_next_exec(profile: str) -> str:
    """Have `profile` on what this process executes next; return "" or why not, as a clause. Raises nothing.

    Asked for only by who is under no profile: with no_new_privs, an exec that changes from one to another fails.
    """
    try:
        with open(_LABEL, encoding="utf-8", errors="replace") as file:
            label = file.read().strip("\0\n")
    except OSError:
        return NONE
    if not label.startswith("unconfined"):
        return f"{label} is on this process already, and no_new_privs allows no change"
    for path in _ON_EXEC:
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        except OSError as error:
            return f"{path}: {_name(error)}"
        try:
            os.write(descriptor, f"exec {profile}".encode())
        except OSError as error:
            missing = error.errno == errno.ENOENT
            return f"the profile {profile} is not loaded" if missing else f"{path}: {_name(error)}"
        finally:
            os.close(descriptor)
        return ""
    return NONE


def _name(error: OSError) -> str:
    return errno.errorcode.get(error.errno or 0, "?")
