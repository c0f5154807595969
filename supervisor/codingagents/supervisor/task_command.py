"""SHELL: who keeps a task, who is one, and how that becomes the task's command. Makes no process; decides nothing.

Of the tasks' UID are the tasks alone. A keeper may signal them by its effective UID, and by its real and saved UID,
root's, no task may signal or trace it (kill(2), ptrace(2)); without Linux capabilities it can do nothing else. Its
effective group is root's: that group sees all in a /proc with hidepid.
"""

from __future__ import annotations

import enum
import errno
import fcntl
import os
import socket
import struct
import termios
from collections.abc import Mapping, Sequence
from typing import Final, NoReturn

from codingagents.supervisor import apparmor, role_layers, role_limits
from codingagents.supervisor.apparmor_profile import TASK_PROFILE
from codingagents.supervisor.confine_spec import ConfineSpec
from codingagents.supervisor.task_processes import keep_only
from codingagents.supervisor.task_spec import TaskFailed, TaskSpec
from codingagents.trust import errors, linux
from codingagents.trust.events import unescape_bytes

_MAX_SHOWN: Final = 256  # characters of a path in a report
_FAILURE: Final = struct.Struct("=BI")  # a `Step`, errno


class Step(enum.IntEnum):
    """What may fail between fork and exec; no text, for a task's process is not to be believed what it writes."""

    IDENTITY = 0
    LIMITS = 1
    TERMINAL = 2
    DIRECTORY = 3
    EXEC = 4


def become_keeper(spec: ConfineSpec) -> None:
    """Be a keeper of tasks that are confined by `spec`; needs SETUID and SETGID, and gives them up."""
    if spec.uid is not None and "uid_drop" not in spec.layers_off:
        os.setgroups(spec.groups)
        os.setresgid(spec.gid, 0, spec.gid)
        os.setresuid(0, spec.uid, 0)
        linux.drop_capabilities()
    linux.prctl(linux.PR_SET_DUMPABLE, 0)


def become_task(spec: ConfineSpec) -> None:
    """Be a task, from a keeper: nothing of it is root's any more, and no task can look into it yet."""
    os.setsid()
    if spec.uid is not None and "uid_drop" not in spec.layers_off:
        os.setresgid(spec.gid, spec.gid, spec.gid)
        os.setresuid(spec.uid, spec.uid, spec.uid)
        if os.getresuid() != (spec.uid,) * 3 or os.getresgid() != (spec.gid,) * 3:
            raise OSError(errno.EPERM, "identity did not change")


def show(readable: bool) -> None:
    """Let the trap read this process, or nobody without CAP_SYS_PTRACE; other tasks may, then, too."""
    linux.prctl(linux.PR_SET_DUMPABLE, int(readable))


def run(spec: ConfineSpec, task: TaskSpec, handed: Sequence[int], report: int) -> NoReturn:
    """Become the task's command, in a process of its own; what fails goes to `report`, for `failed_by`.

    `handed` are the descriptors that are to be 0, 1 and 2, or the connection of the client of a terminal.
    """
    step = Step.IDENTITY
    try:
        keep_only([*handed, report])
        become_task(spec)
        step = Step.LIMITS
        if "limits" not in spec.layers_off:
            role_limits.lower(task.limits)
        if task.terminal:
            step = Step.TERMINAL
            handed = [_open_terminal(handed[0], task.rows, task.columns)] * 3
        for target, descriptor in enumerate(handed):
            os.dup2(descriptor, target)
        step = Step.DIRECTORY
        os.chdir(unescape_bytes(task.working_directory))
        os.umask(spec.umask)
        role_layers.reset_signals()
        step = Step.EXEC
        argv = [unescape_bytes(argument) for argument in task.argv]
        environment = dict(_variable(each) for each in task.environment)
        program = _look_up(argv[0], environment)
        show(readable=True)
        apparmor.confine_next_exec(TASK_PROFILE)  # where it can be had: the layer report says whether
        os.execve(program, argv, environment)  # noqa: S606 -- running commands is what tasks are for; no shell
    except OSError as error:
        os.write(report, _FAILURE.pack(step, error.errno or errno.EIO))
    finally:
        os._exit(errors.EXIT_ENGINE)


def failed_by(report: bytes, task: TaskSpec) -> TaskFailed | None:
    """Return what `run` reported of `task`; None for nothing, which is what an exec leaves."""
    if not report:
        return None
    try:
        number, code = _FAILURE.unpack(report)
        step = Step(number)
    except (struct.error, ValueError):
        return could_not("starting the command", errno.EPROTO)
    if step is Step.EXEC:
        no_program = code in {errno.ENOENT, errno.ENOTDIR}
        exit_code = errors.EXIT_NO_PROGRAM if no_program else errors.EXIT_NOT_EXECUTABLE
        return could_not(f"running {_shown(task.argv[0])}", code, exit_code)
    if step is Step.DIRECTORY:
        return could_not(f"entering {_shown(task.working_directory)}", code)
    return could_not({Step.IDENTITY: "becoming a task", Step.LIMITS: "limits", Step.TERMINAL: "terminal"}[step], code)


def could_not(step: str, code: int, exit_code: int = errors.EXIT_ENGINE) -> TaskFailed:
    """Return the report that `step` failed with errno `code`."""
    return TaskFailed(step=step, errno=errno.errorcode.get(code, str(code)), code=exit_code)


def _shown(escaped: str) -> str:
    return escaped if len(escaped) <= _MAX_SHOWN else f"{escaped[:_MAX_SHOWN]}…"


def _variable(text: str) -> tuple[bytes, bytes]:
    name, _, value = unescape_bytes(text).partition(b"=")
    return name, value


def _look_up(name: bytes, environment: Mapping[bytes, bytes]) -> bytes:
    """Return the path of a program as execvp(3) finds it; one that is nowhere is `FileNotFoundError`.

    Only what is there is asked for: each exec is recorded.
    """
    if b"/" in name:
        return name
    for directory in environment.get(b"PATH", os.fsencode(os.defpath)).split(b":"):
        path = os.path.join(directory or b".", name)
        if os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)


def _open_terminal(connection: int, rows: int, columns: int) -> int:
    """Have a pseudo-terminal of the task's own as the one that controls it; its master goes to the client.

    `connection` is closed: other tasks can look into this one while its exec waits for the trap, and are not to answer.
    """
    master, slave = os.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
    with socket.socket(fileno=connection) as client:
        socket.send_fds(client, [b"terminal\n"], [master])
    os.close(master)
    return slave
