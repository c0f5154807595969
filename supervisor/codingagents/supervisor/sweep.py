"""ENTRY: `python -I -m codingagents.supervisor.sweep UID…`: kills every process of each UID in one step.

kill(2) with -1 reaches all that the caller may signal, under the lock that fork(2) needs too: a program that forks
faster than anyone can walk /proc has no child that was missed. The caller must not be root for it, so this process
becomes each UID in turn, with root kept as its saved UID to come back by. Spares itself and, as the kernel does, PID 1.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys

LOWEST = 1000  # below are the system's own accounts: never swept, whatever the arguments say


def main(arguments: list[str]) -> int:
    """Sweep; 0 when done, 2 for a UID that is none of a session's."""
    uids = [int(argument) for argument in arguments]
    if not uids or min(uids) < LOWEST:
        return 2
    for uid in uids:
        os.setresuid(uid, uid, 0)
        with contextlib.suppress(ProcessLookupError):  # nobody is there
            os.kill(-1, signal.SIGKILL)
        os.setresuid(0, 0, 0)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
