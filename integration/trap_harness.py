"""Runs one program behind the confine stub and its exec trap, with a real event log, in a supervisor of its own.

    with start(Request(argv=python("…"), rules=[deny("/usr/bin/nc")])) as run:
        outcome = run.finish()

The supervisor is this file run as a program: a fault in it (a thread left with the role's filesystem identity, say)
harms one test only. With `sys_ptrace=False` it runs without CAP_SYS_PTRACE, as under Docker's default Linux
capabilities, so that tracees are read by filesystem identity.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio

from codingagents.rewrite import places
from codingagents.rewrite.specs import ExecRule, ExecSpec, RoleLimits
from codingagents.supervisor import kernel, processes, rundirs
from codingagents.supervisor.confine_spec import ConfineSpec, ExecFailed
from codingagents.supervisor.confined import ConfinedRole, TrapSettings
from codingagents.supervisor.early import StubProcess
from codingagents.supervisor.event_log import EventLog
from codingagents.supervisor.layers import Facts
from codingagents.supervisor.reaper import Reaper
from codingagents.supervisor.sessionfiles import open_event_log
from codingagents.trust import checkpoint, linux
from codingagents.trust.encoding import decode_line
from codingagents.trust.events import AnyEvent, ExecAllowed, ExecDenied, Layer, SessionEnded
from codingagents.trust.scrub import Scrubber
from codingagents.trust.verify import Verified, verify_log
from codingagents.trust.vocabulary import Role, Secret, SessionId

UID = 58021  # the agent's: of no account, and of no other process of a test run
UIDS = {Role.AGENT: UID, Role.TASK: UID + 2, Role.COMMAND_SERVER: UID + 3}
SESSION = SessionId("trap-test")
KEY = checkpoint.new_key(b"\7" * 32)
PATIENCE = 60.0  # seconds; only a failing test waits that long
PYTHON = "/usr/bin/python3"  # in an executable tree, whatever this test runs under
_PR_GET_PDEATHSIG = 2
_REQUEST, _REPLY = "request.json", "reply.json"
_PID1 = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")
# An instance of procfs of its own, in which a user sees only the processes that it may trace.
_HIDEPID = ("unshare", "-m", "sh", "-c", 'mount -t proc -o hidepid=invisible proc /proc && exec "$@"', "sh")
_NO_SYS_PTRACE = ("setpriv", "--bounding-set", "-sys_ptrace", "--inh-caps", "-sys_ptrace")


# What the untrusted programs of the tests have at hand. They run as Debian's python3, without the project.
_PRELUDE = """
import ctypes, errno, json, os, sys, threading, time
libc = ctypes.CDLL(None, use_errno=True)

def say(value):
    print(json.dumps(value), flush=True)

def raw(number, *arguments):
    # A system call as it is: nothing between it and the trap.
    if libc.syscall(ctypes.c_long(number), *arguments) < 0:
        raise OSError(ctypes.get_errno(), "")

def strings(*values):
    return (ctypes.c_char_p * (len(values) + 1))(*values, None)

def outcome(act):
    # In a child, do `act`, which execs: the exit code of what it became, or the name of the errno that it got.
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.dup2(os.open("/dev/null", os.O_WRONLY), 1)
        try:
            act()
        except OSError as error:
            os.write(write_end, errno.errorcode[error.errno].encode())
        finally:
            os._exit(99)
    os.close(write_end)
    with os.fdopen(read_end) as report:
        name = report.read()
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return name or code
"""


def python(script: str, *arguments: str) -> list[str]:
    """Return the argv that runs `script`, indented as the test that holds it, after the prelude."""
    return [PYTHON, "-I", "-c", _PRELUDE + textwrap.dedent(script), *arguments]


# For what a role could do of namespaces, mounts and its own processes, were it not refused before it comes to the trap.
NO_STATIC_FILTER = ["seccomp_static", "userns"]
every_reader = pytest.mark.parametrize("sys_ptrace", [True, False], ids=["cap_sys_ptrace", "fsuid"])
"""Runs a test with tracees read by CAP_SYS_PTRACE, and as under Docker's default Linux capabilities without it."""
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="becoming another UID needs root")


def deny(path: str, *, argv: Sequence[str] = (), role: str | None = None) -> ExecRule:
    return ExecRule(action="deny", path=path, argv=list(argv), role=role)


def allow(path: str) -> ExecRule:
    return ExecRule(action="allow", path=path)


class Request(msgspec.Struct, kw_only=True):
    """What to run, and behind what."""

    argv: list[str]
    role: Role = Role.AGENT
    others: list[Request] = []  # other roles beside this one, with its rules; their standard input is empty
    rules: list[ExecRule] = []
    enforce: bool = False
    trees: list[str] = []  # besides the default ones
    layers_off: list[str] = []
    limits: RoleLimits = RoleLimits()
    groups: list[int] = []
    environment: dict[str, str] = {}
    working_directory: str = "/"
    umask: int = 0o022
    secrets: dict[str, str] = {}
    sys_ptrace: bool = True
    hidepid: bool = False  # on /proc
    pid1: bool = False  # of a PID namespace of its own; else a subreaper
    linger: float = 0.0  # seconds that what outlives the program has
    log_directory: str = ""  # where the event log goes; a directory of the test's own by default


class Reply(msgspec.Struct, kw_only=True):
    """What the supervisor saw."""

    code: int
    others: list[int]  # exit codes of the other roles
    layers: list[Layer]
    troubles: list[str]
    failed: ExecFailed | None
    trap_ended: bool  # each role's
    dumpable: int  # of the supervisor, after all is over
    death_signal: int  # likewise
    fs_uids: list[int]  # of each of its threads, while the trap still served


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A finished run."""

    code: int
    stdout: bytes
    log: bytes
    reply: Reply

    @property
    def said(self) -> list[Any]:
        """What the program printed by the prelude's `say`."""
        return [json.loads(line) for line in self.stdout.splitlines()]

    @property
    def events(self) -> list[AnyEvent]:
        return [decode_line(line).event for line in self.log.splitlines()]

    @property
    def allowed(self) -> list[ExecAllowed]:
        return [event for event in self.events if isinstance(event, ExecAllowed)]

    @property
    def denied(self) -> list[ExecDenied]:
        return [event for event in self.events if isinstance(event, ExecDenied) and event.rule != "self-test"]

    def layer(self, name: str) -> Layer:
        return next(row for row in self.reply.layers if row.layer == name)

    def verify(self) -> Verified:
        return verify_log(self.log.splitlines(), checkpoint.public_key(KEY), expect_session=SESSION)


class Run:
    """A program that runs; its standard input and output are pipes of ours."""

    def __init__(self, process: subprocess.Popen[bytes], directory: Path, log: Path, *, pid1: bool) -> None:
        self.process = process
        self._pid1 = pid1
        self._directory = directory
        self._log = log

    def say(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def supervisor(self) -> int:
        """Return its PID here."""
        if not self._pid1:
            return self.process.pid
        return int(Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text())

    def hear(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().decode().rstrip("\n")

    def wait_for(self, *words: bytes) -> None:
        """Wait until a line of the log holds all `words`."""
        for _ in range(int(PATIENCE / 0.01)):
            if any(all(word in line for word in words) for line in self._log.read_bytes().splitlines()):
                return
            time.sleep(0.01)
        raise AssertionError(f"the log has no line with {words}")

    def finish(self, patience: float = PATIENCE) -> Outcome:
        stdout, _ = self.process.communicate(timeout=patience)
        assert self.process.returncode == 0, f"the supervisor itself ended with {self.process.returncode}"
        reply = msgspec.json.decode((self._directory / _REPLY).read_bytes(), type=Reply)
        assert reply.trap_ended, "the trap's thread outlived the last task that it served"
        return Outcome(code=reply.code, stdout=stdout, log=self._log.read_bytes(), reply=reply)


@contextlib.contextmanager
def start(request: Request) -> Iterator[Run]:
    """Run `request`; when the block ends, nothing of it is left."""
    directory = Path(tempfile.mkdtemp(prefix="trap-"))
    (directory / _REQUEST).write_bytes(msgspec.json.encode(request))
    prefix = (
        *(_PID1 if request.pid1 else ()),
        *(_HIDEPID if request.hidepid else ()),
        *(() if request.sys_ptrace else _NO_SYS_PTRACE),
    )
    command = [*prefix, sys.executable, "-I", os.path.abspath(__file__), str(directory)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        yield Run(process, directory, Path(request.log_directory or directory) / places.EVENT_LOG, pid1=request.pid1)
    finally:
        if process.poll() != 0:
            process.kill()
            process.wait()
            processes.Children().signal_users(UIDS.values(), signal.SIGKILL)
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
        shutil.rmtree(directory)


def run(request: Request, patience: float = PATIENCE) -> Outcome:
    with start(request) as running:
        return running.finish(patience)


@contextlib.contextmanager
def shared_directory() -> Iterator[Path]:
    """A directory that the other UID can reach, and whose files may be executed as far as mounts are concerned."""
    with tempfile.TemporaryDirectory(prefix="trap-files-") as name:
        os.chmod(name, 0o755)
        yield Path(name).resolve()


def copy_program(source: str, target: Path) -> str:
    """Copy a program to `target`, executable for everyone; return its path."""
    target.parent.mkdir(exist_ok=True, parents=True)
    shutil.copyfile(source, target)
    target.chmod(0o755)
    return str(target)


# -- the supervisor's side ----------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Confined:
    """A role whose program is about to run."""

    role: ConfinedRole
    stub: StubProcess
    layers: list[Layer]


@contextlib.asynccontextmanager
async def confined(
    request: Request,
    children: processes.Children,
    *,
    log: EventLog,
    troubles: list[str],
    probe_file: str,
    stdio: dict[int, int],
) -> AsyncIterator[Confined]:
    stub = StubProcess(children, stdio=stdio)
    trees = [*ExecSpec().trees, *request.trees]
    settings = TrapSettings(
        exec_spec=ExecSpec(mode="enforce" if request.enforce else "observe", rules=request.rules, trees=trees),
        log=log,
        scrubber=Scrubber({name: Secret(value) for name, value in request.secrets.items()}),
        on_trouble=troubles.append,
    )
    role = ConfinedRole(stub, request.role, settings)
    spec = ConfineSpec(
        argv=request.argv,
        limits=request.limits,
        environment=request.environment,
        working_directory=request.working_directory,
        uid=UIDS[request.role],
        gid=UIDS[request.role],
        groups=request.groups,
        umask=request.umask,
        execute_trees=sorted({*trees, *map(os.path.realpath, trees)}),
        probe_file=probe_file,
        probe_nonce="0123456789abcdef",
        death_signal=True,
        layers_off=request.layers_off,
    )
    wishes = dict.fromkeys(request.layers_off, "off")
    layers = await role.confine(spec, Facts(), wishes)  # type: ignore[arg-type]  # "off" is one of the wishes
    yield Confined(role=role, stub=stub, layers=layers)
    role.close()


def open_log(directory: str, troubles: list[str]) -> EventLog:
    sign = functools.partial(checkpoint.sign_checkpoint, KEY, session=SESSION)
    return EventLog(open_event_log(directory), SESSION, sign, on_trouble=troubles.append)


def _fs_uids() -> list[int]:
    found = []
    for name in os.listdir("/proc/self/task"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # a thread that has ended since
            found.append(int(kernel.status_fields(f"self/task/{name}")["Uid"].split()[3]))
    return found


async def _supervise(request: Request, directory: str) -> Reply:
    children = processes.Children()
    reaper = Reaper(children)
    processes.set_subreaper()
    linux.set_parent_death_signal(signal.SIGKILL)
    troubles: list[str] = []
    log = open_log(request.log_directory or directory, troubles)
    os.chmod(directory, 0o711)
    probe_file = rundirs.write_probe_file(f"{directory}/self-test")
    make = functools.partial(confined, children=children, log=log, troubles=troubles, probe_file=probe_file)
    nothing = os.open(os.devnull, os.O_RDWR)
    async with trio.open_nursery() as nursery, contextlib.AsyncExitStack() as stack:
        await nursery.start(reaper.run)
        made = await stack.enter_async_context(make(request, stdio={0: 0, 1: 1, 2: 2}))
        others = [
            await stack.enter_async_context(
                make(msgspec.structs.replace(other, rules=request.rules), stdio={0: nothing, 1: 1, 2: 2})
            )
            for other in request.others
        ]
        for other in others:
            await other.role.go()
        failed = await made.role.go()
        for number in (0, 1):  # the roles' now: EOF on their output must be their end
            os.dup2(nothing, number)
        codes = [(await reaper.wait(each.stub.child)).code for each in (made, *others)]
        fs_uids = _fs_uids()
        await trio.sleep(request.linger)
        uids = [UIDS[each.role] for each in (request, *request.others)]
        while children.signal_users(uids, signal.SIGKILL):  # noqa: ASYNC110 -- nothing announces the last of them
            await trio.sleep(0.01)
        traps = [each.role.trap for each in (made, *others) if each.role.trap is not None]
        trap_ended = all([await trio.to_thread.run_sync(trap.join, 10.0) for trap in traps])
        nursery.cancel_scope.cancel()
    log.close(SessionEnded(exit_code=codes[0], reason="over"))
    return Reply(
        code=codes[0],
        others=codes[1:],
        layers=made.layers,
        troubles=troubles,
        failed=failed,
        trap_ended=trap_ended,
        dumpable=linux.prctl(linux.PR_GET_DUMPABLE),
        death_signal=_death_signal(),
        fs_uids=fs_uids,
    )


def _death_signal() -> int:
    import ctypes  # noqa: PLC0415 -- prctl(2) writes the answer to memory

    number = ctypes.c_int()
    linux.prctl(_PR_GET_PDEATHSIG, ctypes.addressof(number))
    return number.value


def main(directory: str) -> None:
    request = msgspec.json.decode(Path(directory, _REQUEST).read_bytes(), type=Request)
    reply = trio.run(_supervise, request, directory)
    Path(directory, _REPLY).write_bytes(msgspec.json.encode(reply))


if __name__ == "__main__":
    main(sys.argv[1])
