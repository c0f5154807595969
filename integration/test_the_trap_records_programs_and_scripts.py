"""What a record says of who executed what: the process, the program's hash, and what the kernel runs for a script."""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from codingagents.supervisor import kernel
from codingagents.trust.events import ExecAllowed, ExecDigest
from trap_harness import (
    UID,
    UIDS,
    Outcome,
    Request,
    copy_program,
    every_reader,
    needs_root,
    python,
    run,
    shared_directory,
    start,
)

pytestmark = needs_root

EXEC_ALL = """
    say({path: outcome(lambda: os.execve(path, ["x"], {})) for path in sys.argv[1:]})
"""
TWICE = """
    say(outcome(lambda: os.execve(sys.argv[1], ["x"], {})))
    sys.stdin.readline()
    say(outcome(lambda: os.execve(sys.argv[1], ["x"], {})))
"""


def script(path: Path, first_line: bytes, mode: int = 0o755) -> str:
    path.write_bytes(first_line)
    path.chmod(mode)
    return str(path)


def record_of(outcome: Outcome, path: str) -> ExecAllowed:
    return next(event for event in outcome.allowed if event.executable_path == path)


def digests(outcome: Outcome) -> dict[str, ExecDigest]:
    return {event.resolved_path: event for event in outcome.events if isinstance(event, ExecDigest)}


def executed(*paths: str, trees: list[str], sys_ptrace: bool = True) -> Outcome:
    return run(Request(argv=python(EXEC_ALL, *paths), trees=trees, sys_ptrace=sys_ptrace, linger=0.5))


@every_reader
def test_the_process_is_named_by_its_own_ids_whichever_of_its_threads_calls(sys_ptrace: bool) -> None:
    program = """
        import subprocess
        def from_a_thread():
            def work():
                os.execve("/usr/bin/true", ["thread"], {})
            threading.Thread(target=work).start()
            time.sleep(60)
        pid = os.fork()
        if pid == 0:
            from_a_thread()
        os.waitpid(pid, 0)
        spawned = subprocess.Popen(["/usr/bin/true"], close_fds=False)  # vfork(2)
        spawned.wait()
        say([os.getpid(), pid, spawned.pid])
    """
    outcome = run(Request(argv=python(program), sys_ptrace=sys_ptrace))
    parent, threaded, vforked = outcome.said[0]
    by_thread, by_vfork = outcome.allowed[1:]
    assert by_thread.command_args == ["thread"]
    assert (by_thread.process_pid, by_thread.process_parent_pid, by_thread.user_id) == (threaded, parent, UID)
    assert by_thread.thread_id not in (threaded, 0)
    assert (by_vfork.process_pid, by_vfork.thread_id, by_vfork.process_parent_pid) == (vforked, vforked, parent)


@every_reader
def test_each_record_has_the_role_whose_trap_it_came_to(sys_ptrace: bool) -> None:
    """Roles at once, each with a script of its own; the names of traps are ours, the UIDs are what the kernel says."""
    with shared_directory() as files:
        paths = {role: script(files / role.value, b"#!/usr/bin/true\n") for role in UIDS}
        agent, *others = (
            Request(argv=python(EXEC_ALL, path), role=role, trees=[str(files)], sys_ptrace=sys_ptrace, linger=0.5)
            for role, path in paths.items()
        )
        agent.others = others
        outcome = run(agent)
    assert sorted(map(str, outcome.said)) == sorted(str({path: 0}) for path in paths.values())
    for role, path in paths.items():
        event, told = record_of(outcome, path), digests(outcome)[path]
        assert (event.role, event.user_id, told.role, told.problem) == (role.value, UIDS[role], role.value, None)
    assert len(outcome.allowed) == 2 * len(UIDS)


@every_reader
def test_scripts_are_recorded_with_all_that_the_kernel_runs_for_them(sys_ptrace: bool) -> None:
    with shared_directory() as files:
        true = os.path.realpath("/usr/bin/true")
        lines: dict[str, tuple[bytes, list[str]]] = {
            "plain": (b"#!/usr/bin/true\n", [true]),
            "by a link": (b"#! /bin/true -x\n", [true]),
            "relative": (b"#!bin/true\n", [true]),
            "nested": (f"#!{files}/plain\n".encode(), [f"{files}/plain", true]),
            "no newline": (b"#!/usr/bin/true", [true]),
            "NUL": (b"#!/usr/bin/true\0/x\n", [true]),
            "CR": (b"#!/usr/bin/true\r\n", ["/usr/bin/true\r"]),
            "not UTF-8": (b"#!/usr/bin/\xff\n", ["/usr/bin/\\xff"]),
            "300 bytes": (b"#!/usr/bin/" + b"x" * 300 + b"\n", []),
            "no name": (b"#!\n", []),
        }
        paths = {name: script(files / name, line) for name, (line, _) in lines.items()}
        program = "    os.chdir('/usr')\n" + EXEC_ALL
        request = Request(argv=python(program, *paths.values()), trees=[str(files)], sys_ptrace=sys_ptrace)
        outcome = run(request)
    answers = {name: outcome.said[0][path] for name, path in paths.items()}
    works = {"plain", "by a link", "relative", "nested", "no newline", "NUL"}
    assert {name for name, answer in answers.items() if answer == 0} == works
    assert {name: record_of(outcome, path).interpreters for name, path in paths.items()} == {
        name: expected for name, (_, expected) in lines.items()
    }
    assert outcome.reply.troubles == []


@every_reader
def test_scripts_of_scripts_are_followed_as_deep_as_the_kernel_does(sys_ptrace: bool) -> None:
    with shared_directory() as files:
        before = "/usr/bin/true"
        paths = [before := script(files / f"depth{depth}", f"#!{before}\n".encode()) for depth in range(1, 8)]
        outcome = executed(*paths, trees=[str(files)], sys_ptrace=sys_ptrace)
        untrapped = run(Request(argv=python(EXEC_ALL, *paths), trees=[str(files)], layers_off=["exec_trap"]))
    assert outcome.said == untrapped.said, "the kernel's own answers"
    assert list(outcome.said[0].values()) == [0, 0, 0, 0, 0, "ELOOP", "ELOOP"]
    assert [len(record_of(outcome, path).interpreters) for path in paths[:5]] == [1, 2, 3, 4, 5]
    assert [event.errno for event in outcome.denied] == ["ELOOP", "ELOOP"]


@every_reader
def test_what_is_no_readable_program_is_never_opened(sys_ptrace: bool) -> None:
    with shared_directory() as files:
        os.mkfifo(files / "fifo", 0o777)
        os.mknod(files / "null", 0o777 | stat.S_IFCHR, os.makedev(1, 3))
        os.mknod(files / "disk", 0o777 | stat.S_IFBLK, os.makedev(7, 0))
        for name in ("fifo", "null", "disk"):
            (files / name).chmod(0o777)
        sparse = files / "sparse"
        with sparse.open("wb") as file:
            file.truncate(10 * 2**30)
        sparse.chmod(0o755)
        closed = Path(script(files / "closed", b"#!/usr/bin/true\n", 0o711))
        special = [str(files / name) for name in ("fifo", "null", "disk")]
        outcome = executed(*special, str(sparse), str(closed), trees=[str(files)], sys_ptrace=sys_ptrace)
    for path in special:
        event = record_of(outcome, path)
        assert (event.interpreters, event.digest) == ([], "skipped: not a regular file")
    assert record_of(outcome, str(sparse)).digest == f"skipped: larger than {256 * 2**20} bytes"
    assert record_of(outcome, str(closed)).interpreters == []
    told = digests(outcome)[str(closed)]
    assert (told.executable_sha256, told.problem) == ("", "cannot be read: Permission denied")


@every_reader
def test_a_program_is_hashed_once_while_it_keeps_its_bytes(sys_ptrace: bool) -> None:
    with start(Request(argv=python(TWICE, "/usr/bin/true"), sys_ptrace=sys_ptrace)) as running:
        assert running.hear() == "0"
        running.wait_for(b"exec.digest", b"/usr/bin/true")
        running.say("again")
        outcome = running.finish()
    first, second = outcome.allowed[1:]
    content = Path("/usr/bin/true")
    expected, seen = hashlib.sha256(content.read_bytes()).hexdigest(), content.stat()
    assert (first.digest, first.executable_sha256) == ("later", "")
    assert (second.digest, second.executable_sha256) == ("cached", expected)
    assert first.executable_file == f"{seen.st_dev}:{seen.st_ino}:{seen.st_mtime_ns}"
    told = digests(outcome)["/usr/bin/true"]
    assert (told.executable_sha256, told.bytes, told.problem) == (expected, seen.st_size, None)


@pytest.mark.parametrize("owner", [0, UID])
@pytest.mark.parametrize("how", ["renamed over", "written in place, times set back"])
def test_another_program_under_the_same_name_has_its_own_hash(how: str, owner: int) -> None:
    """Size, name and modification time are the same; the control shows that the change time is all that differs."""
    with shared_directory() as files:
        path = Path(copy_program("/usr/bin/true", files / "program"))
        os.chown(path, owner, owner)
        os.utime(path, ns=(10**18, 10**18))
        time.sleep(2.1)  # the clock's grain: before, nothing is remembered of the file
        before = path.stat()
        request = Request(argv=python(TWICE, str(path)), trees=[str(files)], linger=0.5)
        with start(request) as running:
            assert running.hear() == "0"
            running.wait_for(b"exec.digest", bytes(path))
            other = path.read_bytes().replace(b"true", b"TRUE")
            if how == "renamed over":
                (files / "new").write_bytes(other)
                (files / "new").chmod(0o755)
                os.chown(files / "new", owner, owner)
                (files / "new").rename(path)
            else:
                path.write_bytes(other)
            os.utime(path, ns=(10**18, 10**18))
            after = path.stat()
            running.say("again")
            outcome = running.finish()
        second = digests(outcome)[str(path)]
    assert [event.digest for event in outcome.allowed[1:]] == ["later", "later"]
    assert second.executable_sha256 == hashlib.sha256(other).hexdigest()
    without_ctime = [(each.st_dev, each.st_size, each.st_mtime_ns) for each in (before, after)]
    assert without_ctime[0] == without_ctime[1], "the control: a key without inode and change time is fooled"
    if how != "renamed over":
        assert before.st_ino == after.st_ino, "the control: a key without the change time is fooled"


def spawning(count: int, size: int) -> Outcome:
    """Run as many programs, one after the other, each of its own and of `size` bytes."""
    program = """
        os.chdir(sys.argv[1])
        for number in range(int(sys.argv[2])):
            os.posix_spawn(f"p{number}", ["x"], {})
            assert os.wait()[1] == 0
    """
    with shared_directory() as files:
        for number in range(count):
            target = Path(copy_program("/usr/bin/true", files / f"p{number}"))
            os.truncate(target, size)
        outcome = run(Request(argv=python(program, str(files), str(count)), trees=[str(files)]))
    assert (outcome.code, len(outcome.allowed)) == (0, 1 + count)
    return outcome


def test_many_programs_to_hash_cost_a_bounded_queue_and_quota() -> None:
    """Each record says what became of its hash, and each `later` has its digest."""
    count = 1000
    outcome = spawning(count, 30 * 2**20)
    outcome.verify()
    said = Counter(event.digest for event in outcome.allowed[1:])
    assert set(said) <= {"later", "skipped: busy", "skipped: too much to hash"}
    assert 0 < said["later"] < count
    assert len(digests(outcome)) == sum(event.digest == "later" for event in outcome.allowed)


def test_programs_that_take_long_to_hash_hold_up_no_exec() -> None:
    """When the last one runs, most still have to be hashed: an exec that waits would leave one at most."""
    count = 60  # times 34 MB: within the queue and the quota
    outcome = spawning(count, 34 * 10**6)
    assert [event.digest for event in outcome.allowed[1:]] == ["later"] * count
    last = outcome.events.index(outcome.allowed[-1])
    still = sum(isinstance(event, ExecDigest) for event in outcome.events[last:])
    assert still > count / 2


@every_reader
@pytest.mark.parametrize("hidden", [True, False], ids=["hidepid=2", "without hidepid"])
def test_a_record_is_right_where_proc_hides_the_processes_of_others(hidden: bool, sys_ptrace: bool) -> None:
    """As in a container of its own, and as administrators mount it; the agent's own look is the control."""
    program = """
        import subprocess
        os.chdir(sys.argv[1])
        spawned = subprocess.Popen(["./script", "argument"], close_fds=False)
        spawned.wait()
        say([os.getpid(), spawned.pid, os.path.exists("/proc/1/stat")])
    """
    with shared_directory() as files:
        path = script(files / "script", b"#!/usr/bin/true\n")
        request = Request(argv=python(program, str(files)), trees=[str(files)], sys_ptrace=sys_ptrace, linger=0.5)
        outcome = where_proc_hides(request) if hidden else run(request)
        expected = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    parent, spawned, sees_others = outcome.said[0]
    assert sees_others is not hidden
    event = outcome.allowed[-1]
    assert (event.process_pid, event.thread_id) == (spawned, spawned)
    assert (event.process_parent_pid, event.user_id) == (parent, UID)
    assert (event.resolved_path, event.working_directory) == (path, str(files))
    assert event.command_args == ["./script", "argument"]
    assert event.interpreters == [os.path.realpath("/usr/bin/true")]
    assert digests(outcome)[path].executable_sha256 == expected
    assert outcome.denied == []
    assert outcome.reply.troubles == []


def where_proc_hides(request: Request) -> Outcome:
    """Run `request` with a /proc that shows to each user its own processes only."""

    def hide_and_run() -> Outcome:
        kernel.unshare(kernel.CLONE_NEWNS)  # this thread's
        kernel.mount("none", "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
        flags = kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC
        kernel.mount("proc", "/proc", "proc", flags, "hidepid=2")
        return run(request)

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(hide_and_run).result()
