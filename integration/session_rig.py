"""Whole sessions for integration tests: a configuration, and `coding-agents run` around an agent that obeys.

    with Upstream() as upstream, place() as where, start(mode, where, upstream.server("one")) as session:
        assert session.answer() == "up"
        assert session.ask("post", "one")["status"] == 200

A session runs in one of two ways: `pid1`, by the launcher's local engine, and `subreaper`, where this process plays the
launcher to a supervisor that is no PID 1. Every process of a session carries a mark that is inherited whatever its
environment and parents are (a resource limit), so that a test can say what is left of it.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import itertools
import json
import os
import random
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import pytest

from codingagents.launcher import session_dir, uids
from codingagents.rewrite.anchors import read_anchors
from codingagents.rewrite.override_store import OverrideStore
from codingagents.rewrite.places import AGENT_PATH
from codingagents.rewrite.plan import anchor_sources, plan_session, uid_plan
from codingagents.rewrite.reading import read_config
from codingagents.rewrite.specs import SessionSecrets
from codingagents.supervisor import run_owner
from codingagents.trust import checkpoint, wire
from codingagents.trust.encoding import Record, decode_line
from codingagents.trust.events import Event, HelperReady, SessionEnded
from codingagents.trust.logfile import read_lines
from codingagents.trust.verify import Verified, verify_log
from codingagents.trust.vocabulary import Secret, SessionId
from session_upstream import TOKEN

PATIENCE = 20.0  # seconds; only a failing test waits that long
RUN_DIRECTORIES = (
    *("/run/coding-agents", "/run/agent-secrets", "/run/agent-task-runner"),
    *("/run/agent-tasks", "/run/agent-data", "/run/agent-data-export"),
)
MODES = ("pid1", "subreaper")
every_mode = pytest.mark.parametrize("mode", MODES)
# What `docker run` gives: no CAP_SYS_ADMIN, no CAP_SYS_PTRACE.
DOCKER_CAPABILITIES = (
    "setpriv",
    "--bounding-set",
    (
        "-all,+chown,+dac_override,+fowner,+fsetid,+kill,+setgid,+setuid,+setpcap,+net_bind_service,+net_raw,"
        "+sys_chroot,+mknod,+audit_write,+setfcap"
    ),
)
# Before a command line: it gets a session of its own, without a controlling terminal or with one.
WITHOUT_TERMINAL = ("setsid",)
_TERMINAL = """
import fcntl, os, sys, termios
os.setsid()
ours, theirs = os.openpty()
fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)
os.set_inheritable(ours, True)  # or it would hang up
os.execvp(sys.argv[1], sys.argv[1:])
"""
WITH_TERMINAL = (sys.executable, "-c", _TERMINAL)
_PYTHON = (sys.executable, "-I", "-m")
_AGENT_SOURCE = Path(__file__).with_name("session_agent.py")
_UID_SPAN = 64  # IDs that one session is given at most
_MARKS = range(600_000, 800_000)  # of RLIMIT_RTTIME, in µs; nothing here runs in real time, and helpers leave it alone
_numbers = itertools.count(random.randrange(10_000))  # no two sessions of a test run share identities or a mark

_Event = TypeVar("_Event", bound=Event)


def wait_until(condition: Callable[[], Any], what: str, *, patience: float = PATIENCE, pause: float = 0.01) -> Any:
    """Return the first true value of `condition()`, or fail with `what`."""
    deadline = time.monotonic() + patience
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        time.sleep(pause)
    return value


# -- sessions -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Place:
    """A home directory of the launcher's user, and a directory that an agent can reach."""

    home: Path
    open: Path

    @property
    def agent(self) -> list[str]:
        """The command line of the agent that does what it is told."""
        return ["/usr/bin/python3", "-I", str(self.open / _AGENT_SOURCE.name)]

    @property
    def base(self) -> Path:
        return self.home / ".config" / "coding-agents"


@contextlib.contextmanager
def place() -> Iterator[Place]:
    with contextlib.ExitStack() as stack:
        home, reachable = (
            Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=f"session-{name}-"))).resolve()
            for name in ("home", "open")
        )
        reachable.chmod(0o755)
        shutil.copy(_AGENT_SOURCE, reachable)
        (reachable / _AGENT_SOURCE.name).chmod(0o644)
        yield Place(home=home, open=reachable)


@dataclass(frozen=True, kw_only=True)
class _Order:
    """Which session to start."""

    where: Place
    config: Path
    command: list[str]
    directory: Path
    uid_base: int  # the agent's UID
    mark: int
    agent: str
    engine: Literal["local", "docker"]  # what a session of mode `subreaper` is told
    before: list[str]  # comes before the module's name

    def argv(self, module: str, *words: object) -> list[str]:
        return [*self.before, "prlimit", f"--rttime={self.mark}:", *_PYTHON, module, *map(str, words)]


class Session:
    """One session, seen from outside by root.

    `process` is the launcher or, in mode `subreaper`, the supervisor, and `control` then the launcher's end. `begun` is
    the time just before it was started, `config` the file that it was started with.
    """

    def __init__(
        self, order: _Order, process: subprocess.Popen[bytes], begun: float, control: socket.socket | None = None
    ) -> None:
        self.process = process
        self.directory = order.directory
        self.config = order.config
        self.uid_base = order.uid_base
        self.control = control
        self.begun = begun
        self._trusted = order.where.base / "trusted"
        self._mark = order.mark
        self._buffer = b""
        self._errors = b""

    # -- what it says

    def line(self) -> str:
        while b"\n" not in self._buffer:
            assert self.process.stdout is not None
            ready, _, _ = select.select([self.process.stdout], [], [], PATIENCE)
            assert ready, f"the agent says nothing: {self.stderr()}"
            data = os.read(self.process.stdout.fileno(), 1 << 16)
            assert data, f"the agent is gone: {self.stderr()}"
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.decode()

    def rest(self) -> bytes:
        """Return what else was said, up to the end of the output."""
        assert self.process.stdout is not None
        return self._buffer + self.process.stdout.read()

    def tell(self, verb: str, *arguments: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([verb, *arguments]).encode() + b"\n")
        self.process.stdin.flush()

    def answer(self) -> Any:
        return json.loads(self.line())

    def ask(self, verb: str, *arguments: Any) -> Any:
        self.tell(verb, *arguments)
        return self.answer()

    def stderr(self) -> str:
        """Return what launcher and supervisor printed until now."""
        assert self.process.stderr is not None
        while not self.process.stderr.closed and select.select([self.process.stderr], [], [], 0)[0]:
            data = os.read(self.process.stderr.fileno(), 1 << 16)
            if not data:
                break
            self._errors += data
        return self._errors.decode()

    def sentences(self) -> list[str]:
        """Return the lines of `stderr` without those that the launcher prints anyway, in a tree of root's."""
        read_only = "coding-agents: warning: the agent can only read "
        noise = ("coding-agents: session ", "coding-agents: verify it with: ", read_only)
        return [line for line in self.stderr().splitlines() if not line.startswith(noise)]

    def wait(self) -> int:
        """Return the exit code as a shell would see it."""
        code = self.process.wait(PATIENCE)
        return code if code >= 0 else 128 - code

    # -- its event log

    @property
    def log(self) -> Path:
        return self.directory / "events.jsonl"

    def records(self) -> list[Record]:
        if not self.log.exists():
            return []
        return [decode_line(line) for line in read_lines(str(self.log), open_ok=True)]

    def events(self, kind: type[_Event]) -> list[_Event]:
        return [record.event for record in self.records() if isinstance(record.event, kind)]

    def event(self, kind: type[_Event], **fields: Any) -> _Event:
        """Wait for the first event of `kind` with these fields."""

        def found() -> _Event | None:
            for event in self.events(kind):
                if all(getattr(event, name) == value for name, value in fields.items()):
                    return event
            return None

        result: _Event = wait_until(found, f"an event {kind.__name__} with {fields}")
        return result

    def verify(self, *, open_ok: bool = False) -> Verified:
        """Prove the log with the key that lies outside the session; `open_ok` where it has no end."""
        key_file = self._trusted / f"{self.records()[0].session}.pub"
        key = checkpoint.parse_key_line(key_file.read_text())
        return verify_log(read_lines(str(self.log)), key.public_key, expect_session=key.session, open_ok=open_ok)

    # -- its processes

    def pids(self) -> list[int]:
        """Return every process that was started for this session and runs, the launcher included.

        Zombies are left out: when a session has ended, the machine's own init reaps them in its own time.
        """
        all_of_them = map(int, filter(str.isdecimal, os.listdir("/proc")))
        return [pid for pid in all_of_them if _mark_of(pid) == self._mark and fields(pid).get("State", "Z")[0] != "Z"]

    def named(self, name: str) -> int:
        """Return the process of that name as the kernel has it: `helper zygote`, `helper NAME`."""
        return int(wait_until(lambda: [pid for pid in self.pids() if comm(pid) == name[:15]], f"a process {name}")[0])

    def of_agent(self) -> list[int]:
        return [pid for pid in self.pids() if fields(pid).get("Uid", "").split()[:1] == [str(self.uid_base)]]

    def supervisor(self) -> int:
        return int(wait_until(self.supervisors, "a supervisor")[0])

    def supervisors(self) -> list[int]:
        """Return the supervisor, if it is there already."""
        argv = [(pid, command_line(pid)) for pid in self.pids()]
        return [pid for pid, words in argv if words[3:5] == ["codingagents.supervisor", "init"]]

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def assert_nothing_is_left(self) -> None:
        """Processes, mounts, sockets and files: to be called once the session has ended."""
        wait_until(lambda: not self.pids(), "the end of every process of the session", patience=5)
        for path in RUN_DIRECTORIES:
            assert not os.path.exists(path) or not os.listdir(path), f"{path} is not empty"
        mounts = Path("/proc/self/mountinfo").read_text()
        assert not re.findall(r"/run/(?:coding-agents|agent-)\S*", mounts)
        for ready in self.events(HelperReady):
            kind, _, rest = ready.listen.partition(":")
            if kind == "unix":
                assert not os.path.exists(rest), f"{rest} is left"
                continue
            host, _, port = rest.strip("/").rpartition(":")
            with pytest.raises(ConnectionRefusedError), socket.create_connection((host, int(port))):
                pass
        assert "coding-agents" not in Path("/proc/net/unix").read_text()
        if self.directory.exists():
            left = {path.name for path in self.directory.iterdir()} - {"session.json", "events.jsonl"}
            killed = {  # what a killed process leaves, and where nobody is there any more
                "operator.sock": not self.events(SessionEnded),
                "launcher.sock": self.process.returncode == -signal.SIGKILL,
            }
            for name in [name for name in left if killed.get(name)]:
                left.remove(name)
                with pytest.raises(ConnectionRefusedError), socket.socket(socket.AF_UNIX) as client:
                    client.connect(str(self.directory / name))
            assert left == set()

    def end(self) -> None:
        """Kill what still runs; what it then leaves in plain directories is not for the next test to find."""
        was_running = self.process.poll() is None
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(PATIENCE)
        if was_running:
            _clear_plain_directories()
        self.stderr()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr, self.control):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()


def _clear_plain_directories() -> None:
    with contextlib.suppress(FileNotFoundError, BlockingIOError), open(run_owner.LOCK) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # else they are another session's
        for path in RUN_DIRECTORIES:
            shutil.rmtree(path, ignore_errors=True)


def command_line(pid: int) -> list[str]:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").split("\0")[:-1]
    return []


def comm(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().rstrip("\n")
    return ""


def fields(pid: int) -> dict[str, str]:
    """Return /proc/PID/status, empty where there is no such process."""
    with contextlib.suppress(OSError):
        lines = Path(f"/proc/{pid}/status").read_text(errors="replace").splitlines()
        return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}
    return {}


def _mark_of(pid: int) -> int:
    with contextlib.suppress(OSError):
        found = re.search(r"Max realtime timeout +(\d+)", Path(f"/proc/{pid}/limits").read_text())
        return int(found[1]) if found else 0
    return 0


# -- starting one -------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def start(
    mode: str,
    where: Place,
    config: str,
    command: Sequence[str] = (),
    *,
    directory: Path | None = None,
    prefix: Sequence[str] = (),
    agent: str = "claude",
    engine: Literal["local", "docker"] = "local",
) -> Iterator[Session]:
    """Start a session of `command` (by default the agent that does what it is told); kill what is left at the end.

    `prefix` comes before the whole command line.
    """
    number = next(_numbers)
    in_use = uids.ids_of_processes()  # of another test run, for example
    uid_base = uids.choose_base(
        _UID_SPAN, start=number * _UID_SPAN, taken=lambda uid: uid in in_use or uids.has_account(uid)
    )
    file = where.home / f"config-{number}.toml"
    file.write_text(textwrap.dedent(config))
    order = _Order(
        where=where,
        config=file,
        command=list(command) or where.agent,
        directory=directory or where.home / f"session-{number}",
        uid_base=uid_base,
        mark=_MARKS[number % len(_MARKS)],
        agent=agent,
        engine=engine,
        before=list(prefix),
    )
    session = (_run_launcher if mode == "pid1" else _run_supervisor)(order)
    try:
        yield session
    finally:
        session.end()


def _popen(argv: list[str], **options: Any) -> subprocess.Popen[bytes]:
    pipe = subprocess.PIPE
    return subprocess.Popen(argv, stdin=pipe, stdout=pipe, stderr=pipe, **options)


def _run_launcher(order: _Order) -> Session:
    words = [
        *("run", "--config", order.config, "--workspace", order.where.open, "--secret", "TOKEN=env:UPSTREAM_TOKEN"),
        *("--uid-base", order.uid_base, "--session-dir", order.directory, "--agent", order.agent, "--", *order.command),
    ]
    environment = {"HOME": str(order.where.home), "PATH": os.environ["PATH"], "UPSTREAM_TOKEN": TOKEN}
    begun = time.time()
    return Session(order, _popen(order.argv("codingagents.launcher", *words), env=environment), begun)


def _run_supervisor(order: _Order) -> Session:
    """Do what the launcher does, without its PID namespace."""
    parsed, digest = read_config(order.config)
    now = datetime.datetime.now(datetime.UTC)
    key = checkpoint.new_key(os.urandom(32))
    spec = plan_session(
        parsed,
        session=session_dir.new_session_id(now.date(), os.urandom(4)),
        agent=order.agent,
        engine=order.engine,
        uids=uid_plan(order.uid_base, [server.name for server in parsed.active]),
        secret_names_available={"TOKEN"},
        anchors=read_anchors(anchor_sources(parsed), parsed.file, OverrideStore(Path("/nonexistent/overrides"))),
        command=order.command,
        working_directory=str(order.where.open),
        environment={"PATH": AGENT_PATH},
        public_key=checkpoint.public_key(key),
        config_sha256=digest,
        today=now.date(),
    )
    files = session_dir.place(SessionId(spec.session), base=order.where.base, directory=order.directory)
    session_dir.create(files, spec)
    ours, theirs = socket.socketpair()
    with theirs:
        number = theirs.fileno()
        words = ["init", "--session", order.directory, "--control-fd", number]
        argv = order.argv("codingagents.supervisor", *words)
        begun = time.time()
        process = _popen(argv, pass_fds=[number], env={"PATH": AGENT_PATH})
    secrets = SessionSecrets(secrets={"TOKEN": Secret(TOKEN)} if parsed.active else {}, signing_key=key)
    with contextlib.suppress(BrokenPipeError):  # it may have been stopped already
        ours.sendall(wire.encode(secrets, reveal_secrets=True))
    return Session(order, process, begun, ours)
