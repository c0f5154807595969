"""Nothing that a role does with its own processes, files and memory stops the trap, delays others or goes unrecorded.

Each program ends with an exec of its own, whose answer shows that the trap still serves.
"""

from __future__ import annotations

import os
import signal

import pytest

from codingagents.supervisor import kernel
from trap_harness import (
    SESSION,
    UID,
    Outcome,
    Request,
    deny,
    every_reader,
    needs_root,
    python,
    run,
    shared_directory,
    start,
)

pytestmark = needs_root

STILL_SERVED = """
    say([outcome(lambda: os.execve(path, ["x"], {})) for path in ("/usr/bin/true", "/usr/bin/false")])
"""


def assert_still_served(outcome: Outcome) -> None:
    """The last two execs: one allowed, one denied by rule."""
    assert outcome.said[-1] == [0, "EPERM"]
    assert outcome.denied[-1].rule == "deny /usr/bin/false"
    assert outcome.reply.troubles == []
    assert outcome.verify().session == SESSION


def attack(script: str, *arguments: str, sys_ptrace: bool) -> Outcome:
    argv = python(script + STILL_SERVED, *arguments)
    outcome = run(Request(argv=argv, rules=[deny("/usr/bin/false")], sys_ptrace=sys_ptrace))
    assert_still_served(outcome)
    return outcome


@every_reader
@pytest.mark.parametrize("kind", ["fifo", "fifo behind a link", "device", "terminal", "directory", "socket"])
def test_what_is_no_file_is_not_waited_for(kind: str, sys_ptrace: bool) -> None:
    """Opening a FIFO that nobody writes to would block for ever; the kernel itself answers EACCES."""
    script = """
    import socket
    kind, directory = sys.argv[1:]
    os.chdir(directory)
    path = {"device": "/dev/zero", "terminal": "/dev/tty", "directory": "/usr/bin"}.get(kind, "it")
    if kind.startswith("fifo"):
        os.mkfifo("it" if kind == "fifo" else "fifo", 0o777)
    if kind == "fifo behind a link":
        os.symlink("fifo", "it")
    if kind == "socket":
        socket.socket(socket.AF_UNIX).bind("it")
    begun = time.monotonic()
    say(outcome(lambda: os.execve(path, ["x"], {})))
    say(time.monotonic() - begun)
    """
    with shared_directory() as files:
        files.chmod(0o777)
        outcome = attack(script, kind, str(files), sys_ptrace=sys_ptrace)
    answer, seconds, _ = outcome.said
    assert answer == "EACCES"
    assert seconds < 2


@every_reader
def test_tracees_that_are_killed_while_they_wait_do_not_stop_the_trap(sys_ptrace: bool) -> None:
    """Their death between the poll and the receipt would block whoever receives, until the next exec of the tree."""
    script = """
    import random, signal
    random.seed(7)
    for _ in range(200):
        pid = os.fork()
        if pid == 0:
            for _ in range(50):
                try:
                    os.execve("/usr/bin/false", ["x"], {})
                except OSError:
                    pass
            os._exit(0)
        time.sleep(random.random() / 500)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    """
    attack(script, sys_ptrace=sys_ptrace)


@every_reader
def test_many_tracees_at_once_are_each_answered(sys_ptrace: bool) -> None:
    script = """
    pids = []
    for number in range(60):
        pid = os.fork()
        if pid == 0:
            try:
                os.execve("/usr/bin/false" if number % 2 else "/usr/bin/true", ["x"], {})
            except OSError:
                os._exit(7)
        pids.append(pid)
    say([os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids])
    """
    assert attack(script, sys_ptrace=sys_ptrace).said[0] == [0, 7] * 30


@every_reader
def test_signals_to_a_waiting_tracee_neither_lose_nor_repeat_its_exec(sys_ptrace: bool) -> None:
    script = """
    import signal
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGURG, lambda *_: None)
        done = 0
        for _ in range(100):
            done += outcome(lambda: os.execve("/usr/bin/true", ["counted"], {})) == 0
        os._exit(done)
    for _ in range(4000):
        try:
            os.kill(pid, signal.SIGURG)
        except ProcessLookupError:
            break
        time.sleep(0.00005)
    say(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    """
    outcome = attack(script, sys_ptrace=sys_ptrace)
    assert outcome.said[0] == 100
    assert sum(event.command_args == ["counted"] for event in outcome.allowed) == 100


def test_signals_to_the_supervisor_are_not_the_traps_to_take() -> None:
    """It gets SIGCHLD for each orphan of the role; Python's handlers would interrupt the trap's receipts."""
    script = """
    say("up")
    sys.stdin.readline()
    """
    with start(Request(argv=python(script + STILL_SERVED), rules=[deny("/usr/bin/false")])) as running:
        assert running.hear() == '"up"'
        supervisor = str(running.process.pid)
        threads = [name for name in os.listdir(f"/proc/{supervisor}/task") if name != supervisor]
        blocked = [int(kernel.status_fields(f"{supervisor}/task/{name}")["SigBlk"], 16) for name in threads]
        running.say("go on")
        assert_still_served(running.finish())
    assert len(threads) == 2, "the trap's, and the one that hashes"
    for mask in blocked:
        assert mask >> signal.SIGCHLD - 1 & 1
        assert mask >> signal.SIGTERM - 1 & 1


@every_reader
def test_a_thread_group_that_dies_under_its_own_exec_is_no_trouble(sys_ptrace: bool) -> None:
    """One thread execs, which ends the others, some of them in the middle of an exec of their own."""
    script = """
    def act():
        gate = threading.Barrier(8)
        def work(number):
            gate.wait()
            os.execve("/usr/bin/true", ["x"], {})
        for number in range(7):
            threading.Thread(target=work, args=(number,), daemon=True).start()
        gate.wait()
        os.execve("/usr/bin/true", ["x"], {})
    say([outcome(act) for _ in range(20)])
    """
    assert attack(script, sys_ptrace=sys_ptrace).said[0] == [0] * 20


@every_reader
def test_paths_without_end_are_refused(sys_ptrace: bool) -> None:
    """What the walk cannot follow to its end is not let through: the kernel's own walk may get further."""
    script = """
    os.chdir(sys.argv[1])
    os.symlink("loop", "loop")
    os.symlink("/usr/bin/false", "link0")
    for number in range(1, 60):
        os.symlink(f"link{number - 1}", f"link{number}")
    def execve(path):
        return outcome(lambda: os.execve(path, ["x"], {}))
    say([execve("loop"), execve("link30"), execve("link59")])
    say([execve("/" + "x" * 300), execve("/usr/bin/" + "./" * 2000 + "false"), execve("/" + "y" * 5000)])
    for _ in range(25):  # beyond what one path can say
        os.mkdir("d" * 200)
        os.chdir("d" * 200)
    os.symlink("/usr/bin/false", "link")
    say([execve("link"), execve("./link"), outcome(lambda: os.execve("/usr/bin/true", ["x"], {}))])
    """
    with shared_directory() as files:
        files.chmod(0o777)
        outcome = attack(script, str(files), sys_ptrace=sys_ptrace)
    links, paths, deep, _ = outcome.said
    assert links == ["EPERM"] * 3
    assert paths == ["EPERM", "EPERM", "EPERM"]
    assert deep == ["EPERM", "EPERM", 0]


@every_reader
def test_a_directory_that_ends_in_the_middle_of_a_path_is_no_trouble(sys_ptrace: bool) -> None:
    """A sibling makes and unmakes every part of the path."""
    script = """
    import shutil
    os.chdir(sys.argv[1])
    running = True
    def churn():
        while running:
            try:
                os.makedirs("a/b")
                os.symlink("/usr/bin/false", "a/b/link")
                os.rename("a", "c")
                shutil.rmtree("c")
            except OSError:
                pass
    thread = threading.Thread(target=churn)
    thread.start()
    answers = {}
    for turn in range(20000):  # until the path was whole for the trap once, which is chance
        if turn >= 150 and "EPERM" in answers:
            break
        pid = ctypes.c_int()
        failure = libc.posix_spawn(ctypes.byref(pid), b"a/b/link", None, None, strings(b"x"), strings())
        if not failure:
            os.waitpid(pid.value, 0)
        answers[errno.errorcode.get(failure, "ran")] = answers.get(errno.errorcode.get(failure, "ran"), 0) + 1
    running = False
    thread.join()
    say(sorted(answers))
    """
    with shared_directory() as files:
        files.chmod(0o777)
        outcome = attack(script, str(files), sys_ptrace=sys_ptrace)
    assert set(outcome.said[0]) <= {"ENOENT", "EPERM", "ran"}  # `ran`: the race that advisory denials lose
    assert "EPERM" in outcome.said[0]


@every_reader
def test_the_supervisor_stays_what_it_was_and_out_of_reach(sys_ptrace: bool) -> None:
    """Though its trap's thread has the role's filesystem identity, the role can signal, trace and read none of it."""
    script = """
    supervisor = os.getppid()
    reached = []
    running = True
    def probe():
        while running:
            for act in (
                lambda: os.kill(supervisor, 0),
                lambda: open(f"/proc/{supervisor}/mem", "rb").close(),
                lambda: open(f"/proc/{supervisor}/environ", "rb").read(),
                lambda: [open(f"/proc/{supervisor}/task/{name}/mem", "rb").close()
                         for name in os.listdir(f"/proc/{supervisor}/task")],
                lambda: os.readlink(f"/proc/{supervisor}/exe"),
            ):
                try:
                    act()
                except OSError:
                    continue
                reached.append(1)
    thread = threading.Thread(target=probe)
    thread.start()
    for _ in range(150):
        pid = ctypes.c_int()
        if not libc.posix_spawn(ctypes.byref(pid), b"/usr/bin/true", None, None, strings(b"x"), strings()):
            os.waitpid(pid.value, 0)
    running = False
    thread.join()
    say(len(reached))
    """
    outcome = attack(script, sys_ptrace=sys_ptrace)
    assert outcome.said[0] == 0
    assert (outcome.reply.dumpable, outcome.reply.death_signal) == (1, signal.SIGKILL)


@every_reader
def test_the_trap_serves_what_outlives_the_first_program_and_ends_with_the_last(sys_ptrace: bool) -> None:
    script = """
    if os.fork() == 0:
        os.setsid()
        time.sleep(0.3)
        os.execve("/usr/bin/true", ["outlived"], {})
    """
    outcome = run(Request(argv=python(script), sys_ptrace=sys_ptrace, linger=1.0))
    assert outcome.allowed[-1].command_args == ["outlived"]
    assert sorted(outcome.reply.fs_uids) == ([0, 0, UID] if sys_ptrace else [0, UID, UID]), (
        "of the main thread, of the trap's and of the one that hashes"
    )
