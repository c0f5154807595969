"""SHELL: the only writer of a session's event log: chain, append, sign, and say what was lost.

`append` returns only when the line is with the kernel; when it cannot be written it raises `EventLogError`, and
whatever needed the record must be denied. After that the log tries again with every append, once there is room for
more than a few lines: the first line written then is one gap event. Thread-safe, because traps decide in threads of
their own.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final, Protocol

from codingagents.trust.chain import Chain
from codingagents.trust.encoding import utc_text
from codingagents.trust.errors import EventLogError
from codingagents.trust.events import AnyEvent, Checkpoint, EventsGap
from codingagents.trust.vocabulary import SessionId

CHECKPOINT_EVERY: Final = 256  # events
# Free bytes that end an outage. Without it a short event would still fit where a long one did not, and whoever can make
# both would have a gap and two sentences for each pair.
ROOM_TO_RESUME: Final = 16 * 1024


def utc_now() -> datetime:
    """Return the wall-clock time that events carry."""
    return datetime.now(UTC)


class Signer(Protocol):
    """Signs a checkpoint over `size` lines with Merkle root `root`; returns the note."""

    def __call__(self, *, size: int, root: bytes, moment: datetime) -> str:
        """Return the signed note; `moment` is the time of the line that will carry it."""
        ...


class EventLog:
    """Appends to an open descriptor (O_APPEND, nobody else writes)."""

    def __init__(
        self,
        descriptor: int,
        session: SessionId,
        sign: Signer,
        *,
        on_checkpoint: Callable[[str], None] = lambda note: None,
        on_trouble: Callable[[str], None] = lambda sentence: None,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        """Start a new chain.

        `on_checkpoint` gets every signed note, `on_trouble` a sentence when writing stops or resumes; both are called
        by whichever thread appends, and what `on_trouble` cannot say (an `OSError` of its own) is left unsaid.
        """
        self._descriptor = descriptor
        self._chain = Chain(session)
        self._sign = sign
        self._on_checkpoint = on_checkpoint
        self._on_trouble = on_trouble
        self._now = now
        self._lock = threading.Lock()
        self._size = os.fstat(descriptor).st_size
        self._torn = False  # the file is longer than `_size`
        self._uncovered = 0
        self._lost: Counter[str] = Counter()
        self._lost_since: datetime | None = None
        self._lost_reason = ""

    def append(self, event: AnyEvent) -> None:
        """Record `event`, or raise `EventLogError` and count it as lost."""
        with self._lock:
            if self._descriptor < 0:
                raise EventLogError("the event log is closed")
            try:
                self._fill_gap()
                self._write(event)
            except OSError as error:
                self._lose(event, error)
                raise EventLogError(f"the event log cannot be written: {self._lost_reason}") from None
            if self._uncovered >= CHECKPOINT_EVERY:
                self._checkpoint()

    def settle(self) -> None:
        """Do now what the next `append` would have to do first: for who is in no hurry any more."""
        with self._lock:
            self._chain.settle()

    def record(self, event: AnyEvent) -> bool:
        """Append `event`; False where it cannot be, for who has nothing to deny. A gap event will tell of it."""
        try:
            self.append(event)
        except EventLogError:
            return False
        return True

    def checkpoint(self) -> None:
        """Sign what was written since the last checkpoint, if anything; silent where the log cannot be written."""
        with self._lock, contextlib.suppress(OSError):
            self._fill_gap()
            if self._uncovered:
                self._checkpoint()

    def close(self, final: AnyEvent | None) -> None:
        """Append `final`, sign, and flush to the disk.

        Never raises: at the end nobody is left to deny anything to, so what failed goes to `on_trouble`.
        """
        with self._lock:
            try:
                self._fill_gap(room=0)
                if final is not None:
                    self._write(final)
                self._checkpoint()
                if self._uncovered:
                    self._tell("the event log lacks its last checkpoint: its end is chained but not signed")
                os.fsync(self._descriptor)
            except OSError as error:
                self._tell(f"the event log lacks its end: {os.strerror(error.errno or 0)}")
            os.close(self._descriptor)
            self._descriptor = -1  # the number may be another file's soon, and a late thread must not write to that

    def _write(self, event: AnyEvent, moment: datetime | None = None) -> None:
        line = self._chain.prepare(event, moment or self._now())
        self._mend()
        written = 0
        try:
            while written < len(line):
                written += os.write(self._descriptor, line[written:])
        except OSError:
            self._torn = written > 0
            self._mend()
            raise
        self._size += len(line)
        self._chain.commit(line)
        self._uncovered += 1

    def _mend(self) -> None:
        """Cut off what was written of a line that was not written whole: it would break the chain for every reader."""
        if self._torn:
            os.ftruncate(self._descriptor, self._size)
            self._torn = False

    def _checkpoint(self) -> None:
        moment = self._now()
        note = self._sign(size=self._chain.seq, root=self._chain.root(), moment=moment)
        try:
            self._write(Checkpoint(note=note), moment)
        except OSError:
            return  # the next append reports it; the lines stay uncovered until then
        self._uncovered = 0
        self._on_checkpoint(note)

    def _lose(self, event: AnyEvent, error: OSError) -> None:
        if self._lost_since is None:
            self._lost_since = self._now()
            self._lost_reason = os.strerror(error.errno or 0)
            self._tell(
                f"the event log cannot be written ({self._lost_reason}); execs and grants are denied until it can"
            )
        self._lost[str(event.__struct_config__.tag)] += 1

    def _fill_gap(self, *, room: int = ROOM_TO_RESUME) -> None:
        if self._lost_since is None:
            return
        found = os.fstatvfs(self._descriptor)
        if found.f_blocks and found.f_bfree * found.f_frsize < room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        gap = EventsGap(
            lost=self._lost.total(),
            lost_kinds=dict(self._lost),
            since=utc_text(self._lost_since),
            reason=self._lost_reason,
        )
        self._write(gap)
        self._lost_since = None
        self._lost.clear()
        self._tell(f"the event log can be written again; {gap.lost} events were lost and are counted in it")

    def _tell(self, sentence: str) -> None:
        with contextlib.suppress(OSError):
            self._on_trouble(sentence)
