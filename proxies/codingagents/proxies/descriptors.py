"""SHELL: which descriptors a helper holds: moves its own to fixed numbers, closes every other, and lists what is open.

Knows no spec and no confinement. Linux only: close_range(2), proc(5).
"""

from __future__ import annotations

import fcntl
import os
import stat

from codingagents.trust.errors import ProcessError

CHANNEL = 3  # the descriptors of a helper, after everything else was closed
LISTENER = 4
SOCK_DIAG = 5  # only where the listener belongs to another network namespace
_ABOVE = 10  # out of the way of every number that gets a meaning
_NO_LIMIT = 1 << 20  # close_range(2) ignores what lies past the table


def keep_only(*descriptors: int) -> None:
    """Move channel, listener and perhaps netlink socket to their numbers, put 0 to 2 on /dev/null, close the rest."""
    high = [fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, _ABOVE) for number in descriptors]
    null = fcntl.fcntl(os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC), fcntl.F_DUPFD_CLOEXEC, _ABOVE)
    for number in (0, 1, 2):
        os.dup2(null, number)
    for number, kept in enumerate(high, CHANNEL):
        os.dup2(kept, number, inheritable=False)
    os.closerange(CHANNEL + len(high), _NO_LIMIT)


def open_descriptors() -> dict[int, str]:
    """Return {number: target} of this process, as proc(5) tells it, without the descriptor of the listing itself."""
    found: dict[int, str] = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            continue  # the listing's own descriptor, closed by now
    return dict(sorted(found.items()))


def assert_nothing_foreign(*, sock_diag: bool = False) -> dict[int, str]:
    """Return the listing; `ProcessError` unless it is exactly /dev/null three times, the channel and the listener.

    And, with `sock_diag`, the netlink socket that answers for the listener's network namespace.
    """
    found = open_descriptors()
    sockets = [CHANNEL, LISTENER, *([SOCK_DIAG] if sock_diag else [])]
    if set(found) != {0, 1, 2, *sockets}:
        raise ProcessError(f"a helper must hold descriptors {[0, 1, 2, *sockets]}, found {found}")
    null = os.stat(os.devnull).st_rdev
    for number in (0, 1, 2):
        if os.fstat(number).st_rdev != null:
            raise ProcessError(f"descriptor {number} of a helper must be {os.devnull}, found {found[number]}")
    for number in sockets:
        if not stat.S_ISSOCK(os.fstat(number).st_mode):
            raise ProcessError(f"descriptor {number} of a helper must be a socket, found {found[number]}")
    return found
