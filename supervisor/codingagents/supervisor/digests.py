"""SHELL: hashes programs after their exec was let go, in a thread of its own, and remembers what can be relied on.

Hashing takes up to a second, so no exec waits for it. A hash is remembered only for a file that keeps its bytes
(`Program.keeps`); any other is hashed with each exec, as far as the quota goes. The file is the one that was looked at,
by its descriptor, and it is read as the role whose exec it was: nobody learns of a file that they could not read.
"""

from __future__ import annotations

import hashlib
import os
import queue
import threading
import time
from collections.abc import Callable
from typing import Final, Protocol

import msgspec

from codingagents.supervisor import kernel
from codingagents.supervisor.bounded import BoundedCache
from codingagents.supervisor.programs import Program
from codingagents.supervisor.quota import Quota
from codingagents.trust.errors import EventLogError
from codingagents.trust.events import AnyEvent, ExecDigest

_KEPT: Final = 2048  # hashes
_WAITING: Final = 64  # programs, each with a descriptor
_CHUNK: Final = 256 * 1024  # bytes; also how often the end is looked for
_LAST_SECONDS: Final = 0.4  # what waits when the role is gone has as long, then it is only said
_NICE: Final = 10  # whoever waits for an exec goes first
# A core hashes 0.3 to 2 GB in a second. So much at once is what a session starts with; after that, whoever executes big
# programs of their own in a loop takes a few hundredths of a core.
_BYTES_AT_ONCE: Final = 2.0 * 2**30
_BYTES_PER_SECOND: Final = 16.0 * 2**20
_BYTES_OF_A_FILE: Final = 64 * 1024  # what a file costs beside its bytes: an event, too

CACHED: Final = "cached"
LATER: Final = "later"


class Recorder(Protocol):
    """Where digests are recorded: the session's event log."""

    def append(self, event: AnyEvent) -> None:
        """Record `event`, or raise `EventLogError`."""
        ...


class Told(msgspec.Struct, frozen=True):
    """What a record says of a program's hash."""

    sha256: str
    digest: str


class _TooLateError(Exception):
    """The session ended; no `TimeoutError`, which reading from a file server raises."""


class _Wanted(msgspec.Struct, frozen=True):
    program: Program
    path: str  # as records show it
    keeps: bool


class Digests:
    """The hashes of one role's programs. `tell` and `later` belong to one thread, the trap's."""

    def __init__(
        self,
        *,
        role: str,
        limit: int,
        mounts: frozenset[int],
        log: Recorder,
        prepare_thread: Callable[[], None],
    ) -> None:
        """Hash files up to `limit` bytes; 0: none. `prepare_thread` makes the worker the role, for files."""
        self._role = role
        self._limit = limit
        self._mounts = mounts
        self._log = log
        self._prepare_thread = prepare_thread
        self._known: BoundedCache[kernel.Stat, str] = BoundedCache(_KEPT)
        self._queue: queue.SimpleQueue[_Wanted | None] = queue.SimpleQueue()
        self._quota = Quota(time.monotonic(), rate=_BYTES_PER_SECOND, burst=_BYTES_AT_ONCE)
        self._until: float | None = None
        self._is_the_role = True
        self._thread = threading.Thread(target=self._work, name=f"digests-{role}", daemon=True)

    def start(self) -> None:
        """Begin to hash."""
        self._thread.start()

    def tell(self, program: Program | None) -> Told:
        """Say what the record of an exec is to hold; after `LATER`, `later` is called once that is written."""
        if program is None:
            return Told("", "skipped: nothing there")
        if not program.is_regular:
            return Told("", "skipped: not a regular file")
        if known := self._known.get(program.seen):
            return Told(known, CACHED)
        size = program.seen.size
        if size > self._limit or not self._limit:
            return Told("", f"skipped: larger than {self._limit} bytes")
        if self._queue.qsize() >= _WAITING:
            return Told("", "skipped: busy")
        if not self._quota.take(time.monotonic(), size + _BYTES_OF_A_FILE):
            return Told("", "skipped: too much to hash")
        return Told("", LATER)

    def later(self, program: Program, path: str) -> None:
        """Hash `program`, which is the worker's from now on."""
        self._queue.put(_Wanted(program, path, program.keeps(self._mounts, time.time_ns())))

    def close(self) -> None:
        """End: what waits is hashed while there is time, and told in any case. A worker that reads on is left alone."""
        self._until = time.monotonic() + _LAST_SECONDS
        self._queue.put(None)
        if self._thread.is_alive():
            self._thread.join(2 * _LAST_SECONDS)

    def _work(self) -> None:
        try:
            self._prepare_thread()
        except OSError:
            self._is_the_role = False  # and as root nothing that a role names is read
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
        while (wanted := self._queue.get()) is not None:
            with wanted.program:
                event = self._hashed(wanted)
            try:
                self._log.append(event)
            except EventLogError:
                continue  # the log counts it as lost

    def _hashed(self, wanted: _Wanted) -> ExecDigest:
        program, hasher, size, problem = wanted.program, hashlib.sha256(), 0, None

        def take(data: bytes) -> None:
            if self._until is not None and time.monotonic() > self._until:
                raise _TooLateError
            hasher.update(data)

        try:
            # Before and after: a file that was written while it was read has a hash of no moment.
            if not self._is_the_role:
                problem = "cannot be read as the role"
            elif program.changed():
                problem = "changed after its exec"
            else:
                size = program.read_all(take, chunk=_CHUNK)
                if size != program.seen.size or program.changed():
                    problem = "changed while it was hashed"
        except _TooLateError:
            problem = "the session ended"
        except OSError as error:
            problem = f"cannot be read: {os.strerror(error.errno or 0)}"
        found = "" if problem else hasher.hexdigest()
        if found and wanted.keeps:
            self._known[program.seen] = found
        return ExecDigest(
            role=self._role,
            resolved_path=wanted.path,
            executable_file=program.identity,
            executable_sha256=found,
            bytes=0 if problem else size,
            problem=problem,
        )
