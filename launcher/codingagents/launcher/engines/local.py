"""SHELL: the `local` engine: no container, a new PID namespace on this machine with the supervisor as its PID 1.

`unshare(CLONE_NEWPID)` moves this process's *next child* into the namespace (unshare(2)), so exactly one child
is made, and no thread may be started afterwards (clone(2): CLONE_THREAD is EINVAL there). The mount namespace and its
/proc are the supervisor's work. Process groups and the terminal are left alone.
"""

from __future__ import annotations

import ctypes
import dataclasses
import os
import selectors
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from codingagents.launcher.engines.base import Companion
from codingagents.launcher.engines.control import ControlChannel
from codingagents.launcher.engines.forwarding import Forwarder
from codingagents.rewrite import places
from codingagents.rewrite.specs import SessionSecrets
from codingagents.trust.errors import ProcessError, WireError

SUPERVISOR = (sys.executable, "-I", "-m", "codingagents.supervisor")

_PASSED_ON = ("TERM", "LANG")
_CONTROL_FD = 3
_TURN_SECONDS = 1.0  # at most, between two turns of the companion
_CLONE_NEWPID = 0x20000000
_CLOSE_RANGE_CLOEXEC = 4
_IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)

_libc = ctypes.CDLL(None, use_errno=True)


@dataclasses.dataclass(slots=True)
class LocalEngine:
    """Runs `supervisor` (its argv up to the subcommand) with what it may see of `environment`."""

    environment: Mapping[str, str]
    supervisor: Sequence[str] = SUPERVISOR
    _forwarder: Forwarder | None = dataclasses.field(default=None, init=False, repr=False)

    def prepare(self) -> None:
        """Have the next child of this process be PID 1 of a new namespace; works once, see the module.

        From here on the forwarded signals wait for that child: what the caller writes for the session is written
        whole, and a stop that comes meanwhile is the session's to record.
        """
        if _libc.unshare(_CLONE_NEWPID) != 0:
            raise ProcessError(
                f"the local engine needs CAP_SYS_ADMIN to make a PID namespace ({os.strerror(ctypes.get_errno())}); "
                "run it as root outside of containers, or in a container started with --cap-add SYS_ADMIN"
            )
        self._forwarder = Forwarder()

    def start(self, directory: Path, secrets: SessionSecrets, companion: Companion) -> int:
        """See `Engine.start`. The forwarded signals stay blocked in this process afterwards."""
        forwarder = self._forwarder
        if forwarder is None:
            raise RuntimeError("prepare comes before start")
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with theirs:
            pid = self._spawn(directory, theirs.fileno(), forwarder.inherited_mask)
        control = ControlChannel(ours, secrets, companion.hear)
        pidfd = os.pidfd_open(pid)
        forwarder.aim(pid, pidfd, companion.hung_up)
        try:
            _attend(control, forwarder, pidfd, companion)
        except WireError as error:
            raise ProcessError(
                f"the session was ended: its supervisor sent what is no control message ({error})"
            ) from None
        finally:
            control.close()  # a supervisor that still runs ends its session on this
            ended = os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
            os.close(pidfd)
            forwarder.close()
        assert ended is not None  # only with WNOHANG
        return ended.si_status if ended.si_code == os.CLD_EXITED else 128 + ended.si_status

    def _spawn(self, directory: Path, control_fd: int, mask: Sequence[signal.Signals]) -> int:
        argv = [*self.supervisor, "init", "--session", str(directory), "--control-fd", str(_CONTROL_FD)]
        passed_on = {name: self.environment[name] for name in _PASSED_ON if name in self.environment}
        # Whoever started us may have left descriptors open; the supervisor gets 0, 1, 2 and its channel.
        if _libc.close_range(ctypes.c_uint(3), ctypes.c_uint(2**32 - 1), _CLOSE_RANGE_CLOEXEC) != 0:
            raise ProcessError(f"cannot keep descriptors from the supervisor: {os.strerror(ctypes.get_errno())}")
        try:
            return os.posix_spawn(
                argv[0],
                argv,
                {"PATH": places.SYSTEM_PATH, **passed_on},
                file_actions=[(os.POSIX_SPAWN_DUP2, control_fd, _CONTROL_FD)],
                setsigmask=mask,
                setsigdef=_IGNORED_BY_PYTHON,
            )
        except OSError as error:
            raise ProcessError(f"cannot start the supervisor {argv[0]}: {error.strerror}") from None


def _attend(control: ControlChannel, forwarder: Forwarder, pidfd: int, companion: Companion) -> None:
    """Serve the channel and pass signals on until the child has ended and all that it said was taken in."""
    with selectors.DefaultSelector() as selector:
        selector.register(pidfd, selectors.EVENT_READ)
        selector.register(forwarder, selectors.EVENT_READ)
        selector.register(companion, selectors.EVENT_READ)
        selector.register(control, control.wanted)
        listening = alive = True
        while alive:
            ready = {key.fd for key, _ in selector.select(forwarder.retry_seconds or _TURN_SECONDS)}
            alive = pidfd not in ready
            forwarder.forward()
            if listening:
                control.send()
                listening = control.receive()
                if not listening:
                    selector.unregister(control)
            for renewal in companion.attend():
                control.renew(renewal)
            if listening:
                selector.modify(control, control.wanted)
