"""SHELL: the sole owner of spawn, signal, wait and reap. No event loop, no policy, nothing heavy to import.

One `waitpid(-1)` loop serves owned children and orphans alike, so no second wait can steal a status (CPython would
report a stolen one as 0). Everything runs in the main thread: children's parent-death signals follow the thread that
spawned them, and with one thread no child can be reaped between its spawn and its registration.

Signals go through pidfds, never by a number that could have been reused; root without CAP_KILL sends them as the user
whose process it is (`identities`). `reaper.py` adds trio's side; `proc_walk.py` finds processes that are no child of
ours.
"""

from __future__ import annotations

import _thread
import errno
import fcntl
import os
import signal

from codingagents.supervisor import proc_walk, signals

TYPE_CHECKING = False  # see signals.py
if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

REAP_AT_ONCE = 256  # exits; an agent that makes orphans faster than we reap must not keep us from all else
_MAX_UNCLAIMED = 1024  # exits kept for adoption; a session has dozens of helpers, an agent can make orphans without end
NO_PROGRAM = 127
NOT_EXECUTABLE = 126


def exit_code(wait_status: int) -> int:
    """Return the shell's code for a `waitpid` status: the exit code, or 128 + N for death by signal N."""
    code = os.waitstatus_to_exitcode(wait_status)
    return code if code >= 0 else 128 - code


def failure_code(error: OSError) -> int:
    """Return what a shell or an engine exits with when `exec` failed: 127 for no such program, else 126."""
    return NO_PROGRAM if error.errno in {errno.ENOENT, errno.ENOTDIR} else NOT_EXECUTABLE


class Exit:
    """How one process ended."""

    __slots__ = ("pid", "status")

    def __init__(self, pid: int, status: int) -> None:
        """Hold a pid and its `waitpid` status."""
        self.pid = pid
        self.status = status

    def __repr__(self) -> str:
        return f"Exit(pid={self.pid}, code={self.code})"

    @property
    def code(self) -> int:
        """The exit code; 128 + N for death by signal N."""
        return exit_code(self.status)

    @property
    def signal(self) -> int | None:
        """The signal that ended it, if one did."""
        return os.WTERMSIG(self.status) if os.WIFSIGNALED(self.status) else None

    @property
    def how(self) -> str:
        """The same in words: `exited with 3`, `killed by SIGKILL`."""
        number = self.signal
        if number is None:
            return f"exited with {self.code}"
        try:
            return f"killed by {signal.Signals(number).name}"
        except ValueError:  # a real-time signal
            return f"killed by signal {number}"


class Child:
    """A process that we own. `pidfd` is closed, and `exit` set, when it is reaped."""

    __slots__ = ("exit", "pid", "pidfd")

    def __init__(self, pid: int, pidfd: int) -> None:
        """Own `pidfd`."""
        self.pid = pid
        self.pidfd = pidfd
        self.exit: Exit | None = None

    def __repr__(self) -> str:
        return f"Child(pid={self.pid}, exit={self.exit})"


class Children:
    """All children of this process, owned or adopted by the kernel's rule for orphans. Main thread only."""

    def __init__(self) -> None:
        """Own nothing yet; there must be one instance a process."""
        self._inherited = signals.inherited()
        self._owned: dict[int, Child] = {}
        self._unclaimed: dict[int, Exit] = {}
        self.orphans_reaped = 0

    def spawn(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str],
        fds: Mapping[int, int],
        cwd: str | None = None,
        new_session: bool = True,
    ) -> Child:
        """Start `argv` by posix_spawn(3), which is safe beside threads, and return when its exec is done.

        `fds` maps each descriptor of the child to one of ours; it gets exactly these, and /dev/null for what is missing
        of 0, 1 and 2. Signal mask and ignored signals are those that we inherited. With `new_session` the child leads
        its own session and process group (`kill_group` needs that).

        `cwd` is set in this process for the moment of the spawn: no thread of ours may resolve relative paths.
        Raises `OSError` with the errno of exec or chdir (see `failure_code`); then nothing was started.
        """
        _require_main_thread()
        if not os.path.isabs(argv[0]):
            raise ValueError(f"argv[0] must be an absolute path, not {argv[0]!r}")
        _close_on_exec()
        targets = {0, 1, 2, *fds}
        floor = max(targets) + 1
        copies: list[int] = []
        previous_cwd = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC) if cwd is not None else -1
        ignored = [number for number in self._inherited.ignored if signal.getsignal(number) != signal.SIG_IGN]
        handlers = {number: signal.signal(number, signal.SIG_IGN) for number in ignored}
        try:
            actions: list[tuple[int, int, int] | tuple[int, int, str, int, int]] = []
            for target, source in sorted(fds.items()):
                if source != target and source in targets:
                    # An earlier dup2 could overwrite it.
                    source = fcntl.fcntl(source, fcntl.F_DUPFD_CLOEXEC, floor)  # noqa: PLW2901 -- from here on its copy is meant
                    copies.append(source)
                actions.append((os.POSIX_SPAWN_DUP2, source, target))
            actions += [
                (os.POSIX_SPAWN_OPEN, target, os.devnull, os.O_RDWR, 0) for target in (0, 1, 2) if target not in fds
            ]
            if cwd is not None:
                os.chdir(cwd)
            pid = os.posix_spawn(
                argv[0],
                list(argv),
                env,
                file_actions=actions,
                setsid=new_session,
                setsigmask=self._inherited.mask,
                setsigdef=signals.CATCHABLE - self._inherited.ignored,
            )
        finally:
            if cwd is not None:
                os.fchdir(previous_cwd)
                os.close(previous_cwd)
            for number, handler in handlers.items():
                signal.signal(number, handler)
            for copy in copies:
                os.close(copy)
        return self._own(pid)

    def fork_exec(self, argv: Sequence[str], *, env: Mapping[bytes, bytes], before_exec: Callable[[], object]) -> Child:
        """Start `argv` by fork(2), calling `before_exec` in the child; only for a process without other threads.

        The child keeps every inheritable descriptor and the working directory; `argv[0]` without a slash is looked up
        in `env`'s PATH, never by a shell. Raises `OSError` with the errno of exec or of `before_exec`.
        """
        _require_main_thread()
        parent = os.getpid()
        read_end, write_end = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                before_exec()
                if os.getppid() == parent:  # else it died before a parent-death signal could be set
                    signals.restore_in_child(self._inherited)
                    os.execvpe(argv[0], list(argv), env)  # noqa: S606 -- no shell is the point
            except OSError as error:
                os.write(write_end, str(error.errno).encode())
            finally:
                os._exit(NOT_EXECUTABLE)
        os.close(write_end)
        with os.fdopen(read_end, "rb") as report:
            failure = report.read()  # empty: the write end closed by a successful exec
        if failure:
            os.waitpid(pid, 0)
            number = int(failure)
            raise OSError(number, os.strerror(number), argv[0])
        return self._own(pid)

    def adopt(self, pid: int, pidfd: int) -> Child:
        """Own a child that another process made for us by CLONE_PARENT; takes over `pidfd`.

        It may already have been reaped as if it were an orphan: then its exit is set at once. Raises
        `ProcessLookupError` where so many orphans ended since that its status is no longer known.
        """
        _require_main_thread()
        child = Child(pid, pidfd)
        earlier = self._unclaimed.pop(pid, None)
        if _is_reaped(pidfd):
            os.close(pidfd)
            child.pidfd = -1
            if earlier is None:
                raise ProcessLookupError(errno.ESRCH, f"the exit status of process {pid} is no longer known")
            child.exit = earlier
            self.orphans_reaped -= 1
        else:  # an earlier exit under this number was another process's
            self._owned[pid] = child
        return child

    def reap(self) -> list[Exit]:
        """Collect children that have ended, without waiting; owned ones get their `exit` set.

        At most REAP_AT_ONCE of them: where so many are returned there may be more, and no SIGCHLD will say so.
        """
        _require_main_thread()
        exits: list[Exit] = []
        while len(exits) < REAP_AT_ONCE:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            ended = Exit(pid, status)
            exits.append(ended)
            self._record(ended)
        return exits

    def any_left(self) -> bool:
        """Say whether any child, owned or orphan, running or not yet reaped, exists."""
        try:
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return False
        return True

    def signal(self, child: Child, number: int) -> bool:
        """Send a signal to one child; False where it has ended, or changed to a user that we may not signal."""
        return child.exit is None and _reached_process(child.pidfd, number)

    def kill_group(self, child: Child, number: int) -> bool:
        """Send a signal to the process group that `child` leads; False where it has ended, or nobody may be signalled.

        Only the unreaped leader reserves the group's number, so a group is out of reach once its leader is reaped:
        what is left of it is found by `signal_everyone`.
        """
        if child.exit is not None:
            return False
        # Without CAP_KILL some of the group may be within reach where its leader is not; as the leader's user, all are.
        user = proc_walk.user_of(child.pidfd) if _out_of_reach(child.pidfd) else None
        return _reached(os.killpg, child.pid, number, user)

    def signal_everyone(self, number: int) -> None:
        """Send a signal to every process below this one.

        As PID 1 that is every process of the PID namespace; elsewhere every descendant that /proc shows, which for a
        subreaper is all that it or its children ever started. A process made meanwhile can be missed: repeat.
        """
        reached_all = is_pid1() and _reached(os.kill, -1, number)
        if reached_all and proc_walk.may_signal_all():
            return
        for pidfd in proc_walk.descendants():
            if not reached_all or _out_of_reach(pidfd):
                _reached_process(pidfd, number)
            os.close(pidfd)

    def signal_users(self, uids: Collection[int], number: int) -> int:
        """Send a signal to every process whose real UID is one of `uids`; return how many were reached.

        For the UIDs of a session, which nothing else on the machine has. 0 as the signal only counts. What forks
        faster than this walks can be missed: repeat until nothing is left.
        """
        return _reached_each(proc_walk.of_users(uids), number)

    def signal_descendants(self, uids: Collection[int], number: int) -> int:
        """Send a signal to every process below this one whose real UID is one of `uids`, likewise.

        For a UID that is also a person's, who has other processes.
        """
        return _reached_each(proc_walk.descendants_of_users(uids), number)

    def _own(self, pid: int) -> Child:
        child = self._owned[pid] = Child(pid, os.pidfd_open(pid))
        return child

    def _record(self, ended: Exit) -> None:
        child = self._owned.pop(ended.pid, None)
        if child is None:
            self.orphans_reaped += 1
            self._unclaimed.pop(ended.pid, None)  # a reused number moves to the end
            self._unclaimed[ended.pid] = ended
            if len(self._unclaimed) > _MAX_UNCLAIMED:
                del self._unclaimed[next(iter(self._unclaimed))]
            return
        child.exit = ended
        os.close(child.pidfd)
        child.pidfd = -1


def is_pid1() -> bool:
    """Say whether this process is the init of its PID namespace."""
    return os.getpid() == 1


def set_subreaper() -> None:
    """Become the parent of every orphan below this process (prctl(2), PR_SET_CHILD_SUBREAPER)."""
    from codingagents.trust import process_control  # noqa: PLC0415 -- PID 1 needs no ctypes

    process_control.prctl(process_control.PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent(number: int = signal.SIGKILL) -> None:
    """Be sent `number` when the parent's thread that made us ends; prctl(2), PR_SET_PDEATHSIG, says what clears it.

    It may have ended before: whoever calls this looks at getppid(2) afterwards.
    """
    from codingagents.trust import process_control  # noqa: PLC0415 -- PID 1 needs no ctypes: its end is everyone's

    process_control.prctl(process_control.PR_SET_PDEATHSIG, number)


def _require_main_thread() -> None:
    if _thread.get_native_id() != os.getpid():
        raise RuntimeError("children are made and reaped in the main thread only")


def _close_on_exec() -> None:
    """Mark every descriptor but 0, 1 and 2 close-on-exec: what we inherited is not, and C libraries can forget."""
    for name in os.listdir("/proc/self/fd"):
        number = int(name)
        if number > 2:
            try:
                os.set_inheritable(number, False)
            except OSError as error:
                if error.errno != errno.EBADF:  # the listing's own, or closed by a worker thread meanwhile
                    raise


def _reached_each(pidfds: Iterable[int], number: int) -> int:
    reached = 0
    for pidfd in pidfds:
        try:
            reached += _reached_process(pidfd, number)
        finally:
            os.close(pidfd)
    return reached


def _reached_process(pidfd: int, number: int) -> bool:
    """Send a signal to one process, as its own user where it is not ours to signal."""
    user = proc_walk.user_of(pidfd) if _out_of_reach(pidfd) else None
    return _reached(signal.pidfd_send_signal, pidfd, number, user)


def _reached(send: Callable[[int, int], None], target: int, number: int, user: int | None = None) -> bool:
    """Send a signal and say whether anyone was there whom we may signal (an unprivileged init may run sudo).

    With `user` it is sent as that user, which root may become.
    """
    try:
        if user is None or os.geteuid() != 0:
            send(target, number)
        else:
            from codingagents.supervisor import identities  # noqa: PLC0415 -- who has CAP_KILL needs no ctypes

            with identities.effective_user(user):
                send(target, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _out_of_reach(pidfd: int) -> bool:
    """Say whether the process of `pidfd` is there, and not ours to signal."""
    try:
        signal.pidfd_send_signal(pidfd, 0)
    except ProcessLookupError:
        pass
    except PermissionError:
        return True
    return False


def _is_reaped(pidfd: int) -> bool:
    """Say whether the process of `pidfd` is gone: a zombie still takes signal 0, a reaped process does not."""
    try:
        signal.pidfd_send_signal(pidfd, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass  # it is there, as another user
    return False
