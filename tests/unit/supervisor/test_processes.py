"""Children are started, signalled and reaped for real; nothing is faked but one endless row of orphans."""

import errno
import itertools
import os
import re
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import trio

from codingagents.supervisor import processes, signals
from codingagents.supervisor.processes import Child, Children, Exit, exit_code, failure_code
from codingagents.supervisor.reaper import Reaper

SH = "/bin/sh"
STDERR = {2: 2}


def reap_until_ended(children: Children, *wanted: Child) -> None:
    deadline = time.monotonic() + 5
    while any(child.exit is None for child in wanted):
        assert time.monotonic() < deadline, wanted
        children.reap()
        time.sleep(0.005)


def ended(child: Child) -> Exit:
    assert child.exit is not None
    return child.exit


def output_of(children: Children, script: str, fds: Mapping[int, int] = {}, **options: Any) -> str:
    read_end, write_end = os.pipe()
    child = children.spawn([SH, "-c", script], env={}, fds={1: write_end, **fds}, **options)
    os.close(write_end)
    with os.fdopen(read_end) as stream:
        text = stream.read()
    reap_until_ended(children, child)
    return text


@pytest.fixture
def children() -> Iterator[Children]:
    children = Children()
    yield children
    children.signal_everyone(signal.SIGKILL)
    while children.any_left():
        children.reap()
        time.sleep(0.005)


def test_codes_are_the_shells(children: Children) -> None:
    """An exit code stays itself, and death by signal N is 128 + N."""
    exited = children.spawn([SH, "-c", "exit 3"], env={}, fds=STDERR)
    killed = children.spawn([SH, "-c", "kill -TERM $$"], env={}, fds=STDERR)
    reap_until_ended(children, exited, killed)
    assert (ended(exited).code, ended(exited).signal) == (3, None)
    assert (ended(killed).code, ended(killed).signal) == (128 + signal.SIGTERM, signal.SIGTERM)
    assert exit_code(signal.SIGSEGV | 0x80) == 139  # with the core-dump bit


def test_a_failed_exec_is_known_at_once_and_leaves_no_child(children: Children, tmp_path: Path) -> None:
    """ENOENT is 127, EACCES and ENOEXEC are 126, and nothing is left to reap."""
    plain = tmp_path / "plain"
    plain.write_text("not a program")
    with pytest.raises(FileNotFoundError) as missing:
        children.spawn([str(tmp_path / "none")], env={}, fds={})
    with pytest.raises(PermissionError) as forbidden:
        children.spawn([str(plain)], env={}, fds={})
    plain.chmod(0o755)
    with pytest.raises(OSError, match="Exec format") as shapeless:
        children.spawn([str(plain)], env={}, fds={})
    assert [failure_code(error.value) for error in (missing, forbidden, shapeless)] == [127, 126, 126]
    assert not children.any_left()


def test_a_relative_program_is_a_bug(children: Children) -> None:
    """What runs must not depend on a working directory or on PATH."""
    with pytest.raises(ValueError, match="absolute"):
        children.spawn(["sh"], env={}, fds={})


def test_a_child_gets_exactly_the_descriptors_given(children: Children) -> None:
    """A descriptor without close-on-exec, as an inherited one is, stays here; missing standard ones are /dev/null."""
    leak = os.open("/dev/zero", os.O_RDONLY)
    os.set_inheritable(leak, True)
    given = os.open("/dev/full", os.O_RDONLY)
    listing = output_of(children, "exec ls -l /proc/self/fd", fds={7: given})
    found = dict(re.findall(r" (\d+) -> ([a-z/]+)", listing))
    assert found.pop("3").startswith("/proc/")  # the listing itself
    assert found == {"0": "/dev/null", "1": "pipe", "2": "/dev/null", "7": "/dev/full"}
    os.close(leak)
    os.close(given)


def test_descriptors_can_be_swapped(children: Children) -> None:
    """A source whose number is another one's target is not overwritten before it is used."""
    first, second = os.open("/dev/zero", os.O_RDONLY), os.open("/dev/full", os.O_RDONLY)
    script = f"readlink /proc/self/fd/{first}; readlink /proc/self/fd/{second}"
    assert output_of(children, script, fds={first: second, second: first}).split() == ["/dev/full", "/dev/zero"]
    assert output_of(children, script, fds={first: first, second: second}).split() == ["/dev/zero", "/dev/full"]
    assert not os.get_inheritable(first)
    os.close(first)
    os.close(second)


def test_the_working_directory_is_the_childs_only(children: Children, tmp_path: Path) -> None:
    """`cwd` holds in the child, is back here afterwards, and one that is missing is an error that starts nothing."""
    before = os.getcwd()
    assert output_of(children, "pwd", cwd=str(tmp_path)).strip() == str(tmp_path)
    with pytest.raises(FileNotFoundError):
        children.spawn([SH, "-c", "exit 0"], env={}, fds={}, cwd=str(tmp_path / "none"))
    assert os.getcwd() == before
    assert not children.any_left()


def test_the_environment_is_the_one_given(children: Children) -> None:
    """Nothing of ours leaks into a child's environment."""
    assert output_of(children, "tr '\\0' '\\n' < /proc/$$/environ") == ""


def test_a_child_leads_its_own_session_unless_told_otherwise(children: Children) -> None:
    """A session of its own is the default, so that its group can be signalled."""
    field = "read -r line < /proc/$$/stat; set -- ${line##*) }; echo $$ $3 $4"  # pid, group, session
    pid, group, session = output_of(children, field).split()
    assert (group, session) == (pid, pid)
    pid, group, session = output_of(children, field, new_session=False).split()
    assert (int(group), int(session)) == (os.getpgrp(), os.getsid(0))


def test_signal_mask_and_dispositions_are_the_inherited_ones() -> None:
    """A child sees what we inherited, whatever was blocked, ignored or handled here meanwhile."""
    show = ["/usr/bin/awk", "/^Sig(Blk|Ign)/ {print $2}", "/proc/self/status"]
    code = f"""
import os, signal, time
from codingagents.supervisor import signals
from codingagents.supervisor.processes import Children
signals.block_all()
signal.signal(signal.SIGUSR1, signal.SIG_IGN)
signal.signal(signal.SIGUSR2, lambda *_: None)
signal.signal(signal.SIGHUP, lambda *_: None)
children = Children()
child = children.spawn({show}, env={{}}, fds={{1: 1, 2: 2}})
while child.exit is None: children.reap(); time.sleep(.01)
assert callable(signal.getsignal(signal.SIGHUP))
"""
    wrapper = ["/usr/bin/env", "--ignore-signal=HUP", "--block-signal=WINCH"]
    done = subprocess.run(
        [*wrapper, sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True, restore_signals=True
    )
    blocked, ignored = (int(mask, 16) for mask in done.stdout.split())
    assert blocked == 1 << signal.SIGWINCH - 1
    glibc_internal = 1 << 31 | 1 << 32  # posix_spawn leaves these two ignored; no program can use them
    assert ignored & ~glibc_internal == 1 << signal.SIGHUP - 1


def test_signals_reach_a_child_by_its_descriptor(children: Children) -> None:
    """A live child is signalled; one that ended is reported so, and never reached by its number."""
    child = children.spawn(["/bin/sleep", "60"], env={}, fds=STDERR)
    assert children.signal(child, signal.SIGUSR1)
    reap_until_ended(children, child)
    assert ended(child).signal == signal.SIGUSR1
    assert not children.signal(child, signal.SIGTERM)
    assert not children.kill_group(child, signal.SIGTERM)


def test_a_group_is_signalled_whole(children: Children) -> None:
    """Both the leader and its own child die."""
    read_end, write_end = os.pipe()
    child = children.spawn([SH, "-c", "sleep 60 & echo up; wait"], env={"PATH": "/bin"}, fds={1: write_end})
    os.close(write_end)
    assert os.read(read_end, 3) == b"up\n"
    children.kill_group(child, signal.SIGTERM)
    reap_until_ended(children, child)
    assert os.read(read_end, 1) == b""  # EOF: nobody holds the write end
    os.close(read_end)


def test_a_reaped_childs_descriptor_is_closed(children: Children) -> None:
    """No descriptor is left behind by a child's life."""
    before = len(os.listdir("/proc/self/fd"))
    child = children.spawn([SH, "-c", "exit 0"], env={}, fds={})
    reap_until_ended(children, child)
    assert len(os.listdir("/proc/self/fd")) == before


def forked(code: int) -> tuple[int, int]:
    """Stand for a zygote: a child of ours that `Children` did not start."""
    started = subprocess.Popen(["/bin/sh", "-c", f"exit {code}"])
    started.returncode = 0  # its own waits must not touch it
    return started.pid, os.pidfd_open(started.pid)


def test_a_clone_is_adopted_before_or_after_its_end(children: Children) -> None:
    """Its exit is right either way, and it is not counted as an orphan."""
    early = children.adopt(*forked(3))
    reap_until_ended(children, early)
    pid, pidfd = forked(4)
    select.select([pidfd], [], [])
    children.reap()
    assert children.orphans_reaped == 1
    late = children.adopt(pid, pidfd)
    assert (ended(early).code, ended(late).code, children.orphans_reaped) == (3, 4, 0)


def test_an_exit_of_an_earlier_process_with_the_number_is_not_claimed(children: Children) -> None:
    """The pidfd says whether the process is the one that ended, so a reused number cannot mislead."""
    pid, pidfd = forked(4)
    children._unclaimed[pid] = Exit(pid, 9 << 8)
    select.select([pidfd], [], [])
    child = children.adopt(pid, pidfd)
    assert child.exit is None
    reap_until_ended(children, child)
    assert ended(child).code == 4


def test_unclaimed_exits_are_bounded(children: Children, monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent that makes orphans without end costs no memory; an adoption that comes too late says so."""
    monkeypatch.setattr(processes, "_MAX_UNCLAIMED", 2)
    pidfds = dict(forked(0) for _ in range(3))
    for pidfd in pidfds.values():
        select.select([pidfd], [], [])
    order = [gone.pid for gone in children.reap()]
    assert len(children._unclaimed) == 2
    with pytest.raises(ProcessLookupError):
        children.adopt(order[0], pidfds[order[0]])
    assert ended(children.adopt(order[2], pidfds[order[2]])).code == 0
    os.close(pidfds[order[1]])


def test_orphans_without_end_do_not_keep_the_loop_from_all_else(
    children: Children, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several lineages that fork and exit for ever make orphans faster than Python reaps: a stop must still be heard.

    They are stood for by a waitpid(2) that always has one more, as a few cores' worth of them do.
    """
    numbers = itertools.count(1 << 22)
    monkeypatch.setattr(os, "waitpid", lambda *_: (next(numbers), 0))

    async def main() -> bool:
        with trio.move_on_after(0.05) as heard:
            await Reaper(children).run()
        return heard.cancelled_caught

    assert len(children.reap()) == processes.REAP_AT_ONCE
    assert trio.run(main)
    assert children.orphans_reaped > 2 * processes.REAP_AT_ONCE, "it went on by itself: no SIGCHLD came"


def test_descendants_are_found_below_a_subreaper() -> None:
    """A double-forked daemon in a session of its own is signalled and reaped, and then nothing is left."""
    code = """
import os, signal, time
from codingagents.supervisor import processes
processes.set_subreaper()
children = processes.Children()
read_end, write_end = os.pipe()
script = "setsid sh -c 'sleep 60 & echo up' & wait"
child = children.spawn(["/bin/sh", "-c", script], env={"PATH": "/usr/bin:/bin"}, fds={1: write_end, 2: 2})
os.read(read_end, 3)
while child.exit is None: children.reap(); time.sleep(.01)
assert children.any_left()
children.signal_everyone(signal.SIGTERM)
while children.any_left(): children.reap(); time.sleep(.01)
print(children.orphans_reaped)
"""
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True, timeout=10)
    assert int(done.stdout) >= 1


def test_another_thread_may_not_spawn_or_reap(children: Children) -> None:
    """The parent-death signal of a child follows the thread that made it."""
    refused = []

    def attempt() -> None:
        for act in (children.reap, lambda: children.spawn(["/bin/true"], env={}, fds={})):
            with pytest.raises(RuntimeError):
                act()
            refused.append(act)

    thread = threading.Thread(target=attempt)
    thread.start()
    thread.join()
    assert len(refused) == 2


def test_a_forked_child_runs_its_preparation_and_reports_what_failed(children: Children) -> None:
    """`fork_exec` looks the program up in the PATH given, and errno comes back from either step."""
    read_end, write_end = os.pipe()

    def prepare() -> None:
        os.dup2(write_end, 1)

    child = children.fork_exec(["sh", "-c", "echo $A"], env={b"PATH": b"/bin", b"A": b"\xff"}, before_exec=prepare)
    os.close(write_end)
    assert os.read(read_end, 10) == b"\xff\n"
    os.close(read_end)
    reap_until_ended(children, child)

    def fail() -> None:
        raise OSError(errno.EPERM, "no")

    with pytest.raises(PermissionError):
        children.fork_exec(["sh"], env={b"PATH": b"/bin"}, before_exec=fail)
    with pytest.raises(FileNotFoundError):
        children.fork_exec(["sh"], env={b"PATH": b"/none"}, before_exec=lambda: None)
    assert not children.any_left()


def test_every_wait_of_eight_late_waiters_is_right(children: Children) -> None:
    """Eight children that exit 3 are all 3 when awaited 0.2 s late, beside an orphan-reaping loop."""

    async def main() -> list[int]:
        reaper = Reaper(children)
        async with trio.open_nursery() as nursery:
            spawned = [children.spawn([SH, "-c", "exit 3"], env={}, fds={}) for _ in range(8)]
            await nursery.start(reaper.run)
            await trio.sleep(0.2)
            codes = [(await reaper.wait(child)).code for child in spawned]
            nursery.cancel_scope.cancel()
        return codes

    assert trio.run(main) == [3] * 8


def test_a_waiter_is_woken_and_a_cancelled_one_does_no_harm(children: Children) -> None:
    """Two tasks wait for one child, one gives up, the other gets the code."""

    async def main() -> int:
        reaper = Reaper(children)
        async with trio.open_nursery() as nursery:
            await nursery.start(reaper.run)
            child = children.spawn(["/bin/sleep", "60"], env={}, fds={})
            with trio.move_on_after(0.01) as scope:
                await reaper.wait(child)
            assert scope.cancelled_caught
            nursery.start_soon(reaper.wait, child)
            children.signal(child, signal.SIGINT)
            code = (await reaper.wait(child)).code
            nursery.cancel_scope.cancel()
        return code

    assert trio.run(main) == 128 + signal.SIGINT


def test_what_was_inherited_is_read_once() -> None:
    """Later changes of mask and dispositions do not change what children will get."""
    before = signals.inherited()
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    assert signals.inherited() is before
    signal.signal(signal.SIGUSR1, signal.SIG_DFL)
