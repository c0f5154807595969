"""SHELL: one exec trap: a thread that receives, reads, decides by policy, records and answers.

A thread of its own and not the trio loop, because SECCOMP_IOCTL_NOTIF_RECV blocks again when its target dies between
poll and call (an agent could stop the loop that way), and because resolving a path that the tracee chose must never
hold up the supervisor (docs/adr/0008-a-thread-per-trap.md). The filesystem IDs that reading needs are per thread,
too.

Fails closed: unreadable means denied, unrecordable means denied, an unexpected error means denied.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import select
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

from codingagents.supervisor import seccomp
from codingagents.supervisor.confine_spec import PROBE_ARGV0
from codingagents.supervisor.digests import LATER, Digests, Told
from codingagents.supervisor.exec_policy import ExecPolicy, Verdict
from codingagents.supervisor.scripts import Interpreted
from codingagents.supervisor.tracee import ExecCall, TraceeReader, UnreadableTraceeError
from codingagents.trust.errors import EventLogError
from codingagents.trust.events import AnyEvent, ExecAllowed, ExecDenied, escape_bytes
from codingagents.trust.scrub import Scrubber
from codingagents.trust.vocabulary import Firmness, Role

_RETRY_SECONDS: Final = 0.05
_PATHS_KEPT: Final = 256  # as they are recorded; of PATH_MAX each at worst
_TOO_DEEP: Final = Verdict(False, "", "more interpreters than the kernel follows", Firmness.FIRM)
_NOT_HASHED: Final = Told("", "skipped: denied")

_Decided = TypeVar("_Decided", ExecAllowed, ExecDenied)


class Recorder(Protocol):
    """Where decisions are recorded: the session's event log."""

    def append(self, event: AnyEvent) -> None:
        """Record `event`, or raise `EventLogError`: then the exec is denied."""
        ...

    def settle(self) -> None:
        """Do what can wait until the exec was let go."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class TrapContext:
    """What a trap needs to decide and record for its role."""

    role: Role
    uid: int
    reader: TraceeReader
    policy: ExecPolicy
    log: Recorder
    scrubber: Scrubber
    digest_bytes: int  # larger programs are not hashed
    probe_nonce: str
    landlock: bool


class ExecTrap:
    """Serves one listener until the last task of its tree is gone."""

    def __init__(self, listener: int, context: TrapContext, *, on_trouble: Callable[[str], None]) -> None:
        """Take over `listener`; `on_trouble` gets a sentence when an exec was denied for a fault of ours."""
        self._listener = listener
        self._context = context
        self._on_trouble = on_trouble
        # The same directories and programs come again and again; a secret is looked for once in each.
        self._shown = functools.lru_cache(_PATHS_KEPT)(lambda raw: context.scrubber.scrub_text(escape_bytes(raw)))
        self._digests = Digests(
            role=context.role.value,
            limit=context.digest_bytes,
            mounts=context.reader.scripts.mounts,
            log=context.log,
            prepare_thread=context.reader.prepare_file_thread,
        )
        self.self_test_seen = threading.Event()
        self._policy_lock = threading.Lock()
        self.synchronous = seccomp.prefer_synchronous_wake_up(listener)
        self._thread = threading.Thread(target=self._serve, name=f"exec-trap-{context.role}", daemon=True)

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def join(self, timeout: float) -> bool:
        """Wait for the end of the tree's last task; False when it did not come in `timeout` seconds."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def adopt(self, context: TrapContext) -> None:
        """Use `context` from the next exec on (after the layers were tried, firmness is known)."""
        with self._policy_lock:
            self._context = context

    def _serve(self) -> None:
        # Python's handlers interrupt a receipt, and the kernel may choose this thread for a signal to the process.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            self._context.reader.prepare_thread()
            self._digests.start()
            self._serve_until_hangup()
        except Exception as error:
            self._tell(f"the exec trap ended; every further exec is refused: {_described(error)}")
        finally:
            # Closing makes every later exec of a surviving task fail with ENOSYS: closed, not open.
            os.close(self._listener)
            self._digests.close()

    def _serve_until_hangup(self) -> None:
        poll = select.poll()
        poll.register(self._listener, select.POLLIN)
        while True:
            for _, events in poll.poll():
                if not events & select.POLLIN:
                    return  # POLLHUP: no task has the filter any more
                notification = seccomp.receive(self._listener)
                if notification is not None:
                    self._answer(notification)

    def _answer(self, notification: seccomp.Notification) -> None:
        try:
            self._handle(notification)
        except Exception as error:
            seccomp.deny(self._listener, notification, errno.EPERM)
            self._tell(f"an exec was denied after an internal error: {_described(error)}")

    def _tell(self, sentence: str) -> None:
        # Where it goes may be shared with the role (standard error): a full or closed pipe must not end the trap.
        with contextlib.suppress(OSError):
            self._on_trouble(sentence)

    def _handle(self, notification: seccomp.Notification) -> None:
        with self._policy_lock:
            context = self._context
        try:
            call = context.reader.read(notification)
        except UnreadableTraceeError as error:
            if seccomp.is_alive(self._listener, notification):
                self._deny(
                    notification, context, _unreadable(error), Verdict(False, "", f"unreadable: {error}", Firmness.FIRM)
                )
            return
        try:
            if seccomp.is_alive(self._listener, notification):  # or what was read may be another process's
                self._decide(notification, context, call)
        finally:
            if call.program is not None:
                call.program.close()

    def _decide(self, notification: seccomp.Notification, context: TrapContext, call: ExecCall) -> None:
        if context.probe_nonce and call.argv == [os.fsencode(PROBE_ARGV0 + context.probe_nonce)]:
            self.self_test_seen.set()
            self._deny(notification, context, call, Verdict(False, "self-test", "self-test", Firmness.ADVISORY))
            return
        interpreted = call.interpreted
        if interpreted.too_deep:
            self._deny(notification, context, call, _TOO_DEEP, errno.ELOOP)
            return
        verdict = context.policy.decide(
            context.role,
            call.path,
            call.resolved,
            call.argv,
            interpreters=interpreted.names,
            loading=call.loading,
        )
        if not verdict.allow:
            self._deny(notification, context, call, verdict, errno.ENOENT if verdict.missing else errno.EPERM)
            return
        told = self._digests.tell(call.program)
        record = self._record(ExecAllowed, notification, context, call, verdict, told)
        try:
            context.log.append(record)
        except EventLogError:
            seccomp.deny(self._listener, notification, errno.ENOSPC)
            time.sleep(_RETRY_SECONDS)  # a tree that retries in a loop must not spin on a full disk
            return
        seccomp.let_continue(self._listener, notification)
        context.log.settle()
        if told.digest == LATER and call.program is not None:
            self._digests.later(call.program, record.resolved_path)
            call.program = None  # the worker's now

    def _deny(
        self,
        notification: seccomp.Notification,
        context: TrapContext,
        call: ExecCall,
        verdict: Verdict,
        code: int = errno.EPERM,
    ) -> None:
        # What cannot be recorded is counted as lost by the log, and denied all the same.
        with contextlib.suppress(EventLogError):
            context.log.append(
                self._record(ExecDenied, notification, context, call, verdict, _NOT_HASHED, errno=errno.errorcode[code])
            )
        seccomp.deny(self._listener, notification, code)

    def _record(  # noqa: PLR0917 -- what happened, in the order in which it did
        self,
        kind: type[_Decided],
        notification: seccomp.Notification,
        context: TrapContext,
        call: ExecCall,
        verdict: Verdict,
        told: Told,
        **more: str,
    ) -> _Decided:
        argv = context.scrubber.scrub_argv(call.argv, truncated=call.truncated)
        caller, shown = call.caller, self._shown
        return kind(
            role=context.role.value,
            process_pid=caller.pid,
            thread_id=notification.pid,
            process_parent_pid=caller.parent_pid,
            user_id=context.uid if caller.uid < 0 else caller.uid,
            executable_path=shown(call.path),
            resolved_path=shown(call.resolved or b""),
            interpreters=[shown(name) for name in call.interpreted.names],
            executable_file="" if call.program is None else call.program.identity,
            executable_sha256=told.sha256,
            digest=told.digest,
            working_directory=shown(call.working_directory),
            command_args=argv.args,
            args_total_bytes=argv.total_bytes,
            args_sha256=argv.sha256,
            args_truncated=argv.truncated,
            rule=verdict.rule,
            reason=verdict.reason,
            firmness=verdict.firmness.value,
            verified="landlock" if context.landlock else "none",
            **more,
        )


def _unreadable(error: UnreadableTraceeError) -> ExecCall:
    """Return what is known of a call that could not be read."""
    return ExecCall(
        caller=error.caller,
        path=error.path,
        resolved=None,
        program=None,
        interpreted=Interpreted(),
        working_directory=b"",
        argv=[],
        truncated=True,
    )


def _described(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
