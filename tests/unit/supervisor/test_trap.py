"""A trap's thread against a real listener: what goes wrong on our side is a denial, is said, and does not end it.

What a role can do to it is in integration/test_the_trap_*.
"""

import dataclasses
import errno
import os
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from codingagents.rewrite.specs import ExecRule, ExecSpec
from codingagents.supervisor.exec_policy import ExecPolicy
from codingagents.supervisor.exec_routes import OwnProgram, Routes
from codingagents.supervisor.scripts import Scripts
from codingagents.supervisor.tracee import TraceeReader
from codingagents.supervisor.tracee_paths import FileTree, proc_mounts
from codingagents.supervisor.trap import ExecTrap, TrapContext
from codingagents.trust.errors import EventLogError
from codingagents.trust.events import AnyEvent, ExecAllowed, ExecDenied, ExecDigest
from codingagents.trust.scrub import Scrubber
from codingagents.trust.vocabulary import Role

# Sends its listener, then tells the errno of an exec in a child for each byte that it gets; 0 where that ran. The
# byte says with which environment: "l" one that has a library loaded, "m" one of very many variables, else a plain one.
TRACEE = """
import os, socket
from codingagents.supervisor import seccomp
from codingagents.supervisor.role_filter import role_program
from codingagents.trust import linux
channel = socket.socket(fileno=0)
linux.set_no_new_privs()
layers = dict(exec_trap=True, memfd_rule=False, seccomp_static=False, userns=False)
listener, _ = seccomp.install(role_program(linux.machine(), **layers))
socket.send_fds(channel, [b"x"], [listener])
os.close(listener)
while what := channel.recv(1):
    environment = {"A": "LD_PRELOAD=x", "LD_PRELOAD": "/nowhere.so" if what == b"l" else ""}
    if what == b"m":
        environment |= {f"V{number}": "" for number in range(10000)}
    pid = os.fork()
    if pid == 0:
        try:
            os.execve("/usr/bin/true", ["true"], environment)
        except OSError as error:
            os._exit(error.errno)
    channel.send(bytes([os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])]))
"""


class Tracee:
    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        _, (self.listener,), _, _ = socket.recv_fds(channel, 1, 1)

    def exec(self, what: bytes = b"x") -> str:
        self._channel.send(what)
        code = self._channel.recv(1)[0]
        return errno.errorcode[code] if code else "ran"

    def end(self) -> None:
        self._channel.close()


@pytest.fixture
def tracee() -> Iterator[Tracee]:
    ours, theirs = socket.socketpair()
    ours.settimeout(10)
    with theirs:
        process = subprocess.Popen([sys.executable, "-I", "-c", TRACEE], stdin=theirs.fileno())
    with ours, process:
        yield Tracee(ours)
        ours.close()


class Log:
    def __init__(self) -> None:
        self.events: list[AnyEvent] = []
        self.failure: Exception | None = None

    def append(self, event: AnyEvent) -> None:
        if self.failure is not None:
            raise self.failure
        self.events.append(event)

    def settle(self) -> None:
        """Nothing waits."""


def context(log: Log, *rules: ExecRule, groups: tuple[int, ...] = (), become: bool = False) -> TrapContext:
    procs = proc_mounts()
    return TrapContext(
        role=Role.AGENT,
        uid=1,
        reader=TraceeReader(
            fs_ids=(2**32 - 2, 2**32 - 2) if become else None,
            groups=groups,
            tree=FileTree.of_us(),
            procs=procs,
            scripts=Scripts(file_ids=None, groups=groups, procs=procs),
        ),
        policy=ExecPolicy.compile(ExecSpec(rules=list(rules)), [], landlock=False, memfd_closed=False),
        log=log,
        scrubber=Scrubber({}),
        digest_bytes=2**28,
        probe_nonce="",
        landlock=False,
    )


class StandingStill(TraceeReader):
    """Its thread that reads files never begins, until it is let go."""

    may_begin = threading.Event()

    def prepare_file_thread(self) -> None:
        self.may_begin.wait()


def start(tracee: Tracee, context: TrapContext, on_trouble: Callable[[str], None]) -> ExecTrap:
    trap = ExecTrap(tracee.listener, context, on_trouble=on_trouble)
    trap.start()
    return trap


def test_it_serves_until_the_last_task_of_the_tree_is_gone(tracee: Tracee) -> None:
    log, troubles = Log(), list[str]()
    trap = start(tracee, context(log), troubles.append)
    assert [tracee.exec(), tracee.exec()] == ["ran", "ran"]
    assert not trap.join(0.05)
    tracee.end()
    assert trap.join(10)
    execs = [event for event in log.events if isinstance(event, ExecAllowed)]
    assert [type(event) for event in log.events if not isinstance(event, ExecDigest)] == [ExecAllowed, ExecAllowed]
    assert {event.user_id for event in execs} == {os.getuid()}, "its own, not the one that the role was given"
    assert troubles == []


def test_no_exec_waits_for_the_thread_that_hashes(tracee: Tracee) -> None:
    """Not even where it stands still, and more wait for it than may."""
    log = Log()
    made = context(log)
    reader = StandingStill(
        **{field.name: getattr(made.reader, field.name) for field in dataclasses.fields(made.reader)}
    )
    trap = start(tracee, dataclasses.replace(made, reader=reader), print)
    assert [tracee.exec() for _ in range(70)] == ["ran"] * 70
    said = Counter(event.digest for event in log.events if isinstance(event, ExecAllowed))
    assert said == {"later": 64, "skipped: busy": 6}
    assert len(log.events) == 70, "the control: nothing was hashed yet"
    reader.may_begin.set()
    tracee.end()
    assert trap.join(10)
    assert len(log.events) == 70 + 64


def test_a_new_policy_holds_from_the_next_exec(tracee: Tracee) -> None:
    log = Log()
    trap = start(tracee, context(log), print)
    assert tracee.exec() == "ran"
    trap.adopt(context(log, ExecRule(action="deny", path="/usr/bin/true")))
    assert tracee.exec() == "EPERM"
    assert [type(event) for event in log.events if not isinstance(event, ExecDigest)] == [ExecAllowed, ExecDenied]


def test_what_cannot_be_recorded_is_denied_with_the_reason_and_what_comes_later_is_served(tracee: Tracee) -> None:
    log, troubles = Log(), list[str]()
    start(tracee, context(log), troubles.append)
    log.failure = EventLogError("the disk is full")
    assert [tracee.exec(), tracee.exec()] == ["ENOSPC", "ENOSPC"]
    log.failure = None
    assert tracee.exec() == "ran"
    assert troubles == []


def test_a_fault_of_ours_is_a_denial_and_is_said(tracee: Tracee) -> None:
    log, troubles = Log(), list[str]()
    start(tracee, context(log), troubles.append)
    log.failure = ZeroDivisionError("a bug")
    assert tracee.exec() == "EPERM"
    log.failure = None
    assert tracee.exec() == "ran"
    assert troubles == ["an exec was denied after an internal error: ZeroDivisionError: a bug"]


def test_a_fault_that_cannot_be_said_is_a_denial_all_the_same(tracee: Tracee) -> None:
    """Standard error can be a pipe that the role has filled and made non-blocking."""

    def complain(sentence: str) -> None:
        raise BlockingIOError(errno.EAGAIN, "the pipe is full")

    log = Log()
    start(tracee, context(log), complain)
    log.failure = ZeroDivisionError("a bug")
    assert tracee.exec() == "EPERM"
    log.failure = None
    assert tracee.exec() == "ran"


def test_a_trap_that_cannot_become_the_role_refuses_everything(tracee: Tracee) -> None:
    """As root, by more groups than the kernel takes; as anyone else, because they may set none."""
    troubles: list[str] = []
    trap = start(tracee, context(Log(), groups=tuple(range(70_000)), become=True), troubles.append)
    assert trap.join(10)
    assert tracee.exec() == "ENOSYS"
    assert len(troubles) == 1
    assert troubles[0].startswith("the exec trap ended; every further exec is refused: ")


def test_the_environment_of_a_routed_agents_exec_is_looked_through(tracee: Tracee) -> None:
    """To its end, or the exec is refused; for others it is not looked at at all."""
    log = Log()
    made = context(log)
    routes = Routes(client="c", own=[OwnProgram(path="/usr/bin/true", why="its own")], interpreters=[])
    policy = ExecPolicy.compile(ExecSpec(mode="enforce"), [], landlock=False, memfd_closed=False, routes=routes)
    trap = start(tracee, made, print)
    assert [tracee.exec(what) for what in (b"x", b"l", b"m")] == ["ran"] * 3
    trap.adopt(dataclasses.replace(made, policy=policy, reader=dataclasses.replace(made.reader, environments=True)))
    assert [tracee.exec(what) for what in (b"x", b"l", b"m")] == ["ran", "EPERM", "EPERM"]
    reasons = [event.reason for event in log.events if isinstance(event, ExecDenied)]
    assert reasons == ["LD_PRELOAD would have other code run in it", "unreadable: Argument list too long"]
