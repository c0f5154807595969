"""SHELL: puts an AppArmor profile on the next exec of this process, where the kernel has AppArmor and knows it."""

from __future__ import annotations

import errno
import os
from typing import Final

_ON_EXEC: Final = ("/proc/self/attr/apparmor/exec", "/proc/self/attr/exec")  # the second before Linux 5.1, or alone
_LABEL: Final = "/proc/self/attr/apparmor/current"


def confine_next_exec(profile: str) -> str:
    """Have `profile` on what this process executes next; return "" or why not, as a clause. Raises nothing.

    Once asked for, the exec itself fails (EACCES, EPERM) where the label that we have does not allow the change.
    """
    if not os.path.exists(_LABEL):
        return "this kernel has no AppArmor"
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
    return "this kernel has no AppArmor"


def _name(error: OSError) -> str:
    return errno.errorcode.get(error.errno or 0, "?")
