"""SHELL: what this process inherited about signals, and from whom, taken first of all: children get exactly that back.

Nothing here forwards or decides. Light on purpose: the entry point calls it before every heavy import.
"""

from __future__ import annotations

import os
import signal

TYPE_CHECKING = False  # not typing's: that import alone costs plain `init` a quarter of its start-up budget
if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

_UNCATCHABLE = frozenset({signal.SIGKILL, signal.SIGSTOP})
CATCHABLE: frozenset[int] = frozenset(int(number) for number in signal.valid_signals()) - _UNCATCHABLE
"""Every signal number that a program can block or handle, real-time signals included."""

# CPython ignores PIPE and XFSZ at start-up (Python/pylifecycle.c), which hides what was inherited; a child that
# inherits an ignored CHLD gets ECHILD from its own waits. All three are given to children as default.
_ALWAYS_DEFAULT = frozenset({signal.SIGPIPE, signal.SIGXFSZ, signal.SIGCHLD})


class Inherited:
    """Signal mask and ignored signals as the parent left them, and its PID, by which it can be missed."""

    __slots__ = ("ignored", "mask", "parent")

    def __init__(self, mask: AbstractSet[int], ignored: AbstractSet[int]) -> None:
        """Hold signal numbers, and who the parent is now."""
        self.parent = os.getppid()
        self.mask = frozenset(mask)
        self.ignored = frozenset(ignored)


_inherited: Inherited | None = None


def inherited() -> Inherited:
    """Return what was inherited, read at the first call (or by `block_all`) and the same ever after."""
    global _inherited  # noqa: PLW0603 -- a fact of the process, which can be read only once
    if _inherited is None:
        _inherited = Inherited(
            mask={int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, ())},
            ignored={
                number
                for number in CATCHABLE
                if signal.getsignal(number) == signal.SIG_IGN and number not in _ALWAYS_DEFAULT
            },
        )
    return _inherited


def inherit_nothing() -> None:
    """Give children the kernel's defaults, whatever was inherited."""
    global _inherited  # noqa: PLW0603 -- see `inherited`
    _inherited = Inherited(mask=frozenset(), ignored=frozenset())


def block_all() -> Inherited:
    """Block every signal in this thread and those it makes, so that none is lost while imports run.

    A blocked signal stays pending even where it would be ignored, and even for PID 1 (kernel/signal.c `sig_ignored`).
    An inherited ignore of SIGCHLD ends here: with it the kernel would reap our children before we see their status.
    """
    before = inherited()
    signal.pthread_sigmask(signal.SIG_BLOCK, CATCHABLE)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    return before


def unblock_all() -> None:
    """Let signals through, those that are pending first: call it once receivers stand."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def restore_in_child(before: Inherited) -> None:
    """Between fork and exec: put mask and dispositions back as `before` has them.

    Python's own handlers become the default action first: a signal that arrives before the exec must act, not set
    a flag that the exec then forgets.
    """
    for number in CATCHABLE:
        signal.signal(number, signal.SIG_IGN if number in before.ignored else signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, before.mask)
