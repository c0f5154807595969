"""SHELL: reads an event log's lines from its file, whole or as they come; never more than one line's limit in memory.

It reads and waits, and decides nothing about what the lines say (`verify`, `terminal`). It does not write: the
log has one writer, the supervisor.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from codingagents.trust.encoding import MAX_EVENT_LINE
from codingagents.trust.errors import ChainError, NotFoundError, UsageError


def read_lines(path: str, *, open_ok: bool = False) -> Iterator[bytes]:
    """Yield the lines of the log at `path`, without newlines, up to its present end.

    A last line without a newline is a `ChainError`, or with `open_ok` left out, because it may be half written.
    Raises `NotFoundError` and `UsageError` for a path that cannot be read, `ChainError` for a line that is too long.
    """

    def stop(number: int, torn: bool) -> bool:
        if torn and not open_ok:
            raise ChainError(number, "it does not end with a newline")
        return False

    with _opened(path) as descriptor:
        yield from _lines(descriptor, stop)


def follow_lines(path: str, wait: Callable[[], bool]) -> Iterator[bytes]:
    """Yield the lines of the log at `path` as they are completed; at the end call `wait`, and stop when it says False.

    Raises as `read_lines` does, and `ChainError` where the log lost lines that were read.
    """
    with _opened(path) as descriptor:
        yield from _lines(descriptor, lambda _number, _torn: wait())


def _lines(descriptor: int, at_end: Callable[[int, bool], bool]) -> Iterator[bytes]:
    offset, number = 0, 1
    while True:
        # From the start of the unfinished line each time: the writer takes a torn line back when its disk is full.
        chunk = os.pread(descriptor, MAX_EVENT_LINE + 1, offset)
        end = chunk.rfind(b"\n")
        if end >= 0:
            for line in chunk[:end].split(b"\n"):
                yield line
                number += 1
            offset += end + 1
        elif len(chunk) > MAX_EVENT_LINE:
            raise ChainError(number, f"it is longer than {MAX_EVENT_LINE} bytes")
        elif os.fstat(descriptor).st_size < offset:
            raise ChainError(number, "the log became shorter while it was read")
        elif not at_end(number, bool(chunk)):
            return


@contextmanager
def _opened(path: str) -> Iterator[int]:
    try:
        # Without O_NONBLOCK, a FIFO in the log's place would hold the reader for ever.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise NotFoundError(f"there is no event log at {path}") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a path"
        raise UsageError(f"the event log {path!r} cannot be read: {reason}") from None
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise UsageError(f"{path} is not a regular file, so it is no event log")
        yield descriptor
    finally:
        os.close(descriptor)
