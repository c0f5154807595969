"""Attacks on root by the very user as whom it acts at that moment; root has no capability but SETUID and SETGID."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be other users")

ROLE: Final = 52871
OTHER: Final = 52872
LEAST: Final = ("setpriv", "--bounding-set", "-all,+setuid,+setgid", "--inh-caps", "-all")
_ATTACH, _DETACH = 16, 17

# Switches as the argument says, tells its pid, and holds until a line comes.
VICTIM: Final = """
import os, sys
from codingagents.supervisor import identities
how, uid = sys.argv[1], int(sys.argv[2])
def hold():
    print(os.getpid(), flush=True)
    sys.stdin.readline()
if how == "effective":
    with identities.effective_user(uid):
        hold()
elif how == "real":  # the control: what a plain seteuid-and-real switch would be
    os.setresuid(uid, uid, 0)
    hold()
print(os.getresuid(), flush=True)
hold()
"""


def _attack(pid: int) -> dict[str, bool]:
    """Return which attacks on `pid` succeed, each tried as ROLE."""
    libc = ctypes.CDLL(None, use_errno=True)

    def trace() -> None:
        if libc.ptrace(_ATTACH, pid, 0, 0) < 0:
            raise PermissionError
        os.waitpid(pid, 0)
        libc.ptrace(_DETACH, pid, 0, 0)

    acts: dict[str, Callable[[], object]] = {
        "signal": lambda: os.kill(pid, 0),
        "signal by pidfd": lambda: signal.pidfd_send_signal(os.pidfd_open(pid), 0),
        "trace": trace,
        "read memory": lambda: os.open(f"/proc/{pid}/mem", os.O_RDONLY),
        "read environment": lambda: open(f"/proc/{pid}/environ", "rb").read(1),  # noqa: SIM115 -- the child ends at once
        "see descriptors": lambda: os.listdir(f"/proc/{pid}/fd"),
    }
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.setgroups([])
        os.setresgid(ROLE, ROLE, ROLE)
        os.setresuid(ROLE, ROLE, ROLE)
        for name, act in acts.items():
            with contextlib.suppress(OSError):
                act()
                os.write(writing, f"{name}\n".encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        succeeded = pipe.read().splitlines()
    os.waitpid(child, 0)
    return {name: name in succeeded for name in acts}


@contextlib.contextmanager
def _victim(how: str) -> Iterator[subprocess.Popen[str]]:
    command = [*LEAST, sys.executable, "-I", "-c", VICTIM, how, str(ROLE)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def _go_on(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def test_the_role_cannot_signal_trace_or_read_who_acts_as_it() -> None:
    with _victim("effective") as victim:
        assert not any(_attack(int(_line(victim))).values())
        _go_on(victim)
        assert _line(victim) == "(0, 0, 0)"
        assert not any(_attack(int(_line(victim))).values()), "afterwards"


def test_control_whoever_takes_the_roles_real_uid_is_signalled_by_it() -> None:
    with _victim("real") as victim:
        succeeded = _attack(int(_line(victim)))
        assert succeeded["signal"]
        assert succeeded["signal by pidfd"]


# Starts a child that becomes ROLE with a grandchild in its group, and one that became OTHER; signals them by what
# `processes` has, and says what came of it.
KILLER: Final = """
import os, signal, sys, time
from codingagents.supervisor import processes, identities
from codingagents.supervisor.processes import Children
if sys.argv[1] == "control":
    identities.effective_user = None  # whoever needs it fails
role, other = int(sys.argv[2]), int(sys.argv[3])
children = Children()
processes.set_subreaper()
def start(uid):
    read_end, write_end = os.pipe()
    program = (
        f"import os, time; os.setresgid({uid}, {uid}, {uid}); os.setresuid({uid}, {uid}, {uid}); "
        "os.fork(); os.write(3, b'x'); time.sleep(600)"
    )
    child = children.spawn([sys.executable, "-I", "-c", program], env={}, fds={2: 2, 3: write_end})
    os.close(write_end)
    for _ in range(2):
        assert os.read(read_end, 1) == b"x"
    return child
by_group, by_user, all_else = start(role), start(other), start(role)
def wait_for(child):
    while child.exit is None:
        children.reap()
        time.sleep(0.005)
    return child.exit.how
say = lambda *words: print(*words, flush=True)
say("signal", children.signal(by_group, 0), "group", children.kill_group(by_group, signal.SIGTERM))
say("group", wait_for(by_group))
say("users", children.signal_users({other}, signal.SIGKILL), wait_for(by_user))
children.signal_everyone(signal.SIGKILL)
say("everyone", wait_for(all_else))
while children.any_left():
    children.reap()
    time.sleep(0.005)
with open("/proc/self/status") as status:
    say("capabilities", next(line.split()[1] for line in status if line.startswith("CapEff")))
say("uids", os.getresuid())
"""


@pytest.mark.parametrize("pid1", [False, True], ids=["a subreaper", "PID 1"])
def test_root_without_kill_reaches_the_processes_of_every_role(pid1: bool) -> None:
    namespace = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"] if pid1 else []
    command = [*namespace, *LEAST, sys.executable, "-I", "-c", KILLER, "-", str(ROLE), str(OTHER)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "signal True group True",
        "group killed by SIGTERM",
        "users 2 killed by SIGKILL",
        "everyone killed by SIGKILL",
        "capabilities 00000000000000c0",
        "uids (0, 0, 0)",
    ]


def test_control_it_is_by_acting_as_the_role_that_they_are_reached() -> None:
    command = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child", *LEAST]
    command += [sys.executable, "-I", "-c", KILLER, "control", str(ROLE), str(OTHER)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert "'NoneType' object is not callable" in done.stderr
    assert done.stdout == ""


# Makes what a role owns below argv[1], fills it as the role and closes it, and removes it again.
MAKER: Final = """
import os, sys
from codingagents.supervisor import identities, kernel
place, role = sys.argv[1], int(sys.argv[2])
home = f"{place}/home"
identities.make_directory_of(role, role, home)
found = os.lstat(home)
print(found.st_uid, found.st_gid, oct(found.st_mode), sorted(os.listdir(place)), flush=True)
with kernel.filesystem_identity(role, role):
    os.makedirs(f"{home}/closed/deeper")
    open(f"{home}/closed/deeper/file", "w").close()
    os.chmod(f"{home}/closed", 0)
file = f"{place}/file"
open(file, "w").close()
with identities.member_of(role):
    os.chown(file, -1, role)
print(os.lstat(file).st_gid, role in os.getgroups(), flush=True)
identities.empty_as(role, role, home)
os.rmdir(home)
print(sorted(os.listdir(place)), flush=True)
"""


def test_root_without_chown_makes_and_removes_what_belongs_to_a_role(tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir(mode=0o755)
    for parent in (tmp_path, *tmp_path.parents):  # a role has to get there
        if parent.stat().st_mode & 0o001 == 0:
            parent.chmod(parent.stat().st_mode | 0o011)
    command = [*LEAST, sys.executable, "-I", "-c", MAKER, str(place), str(ROLE)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        f"{ROLE} {ROLE} {oct(stat.S_IFDIR | 0o700)} ['home']",
        f"{ROLE} False",
        "['file']",
    ]


def test_control_the_same_by_chown_is_refused(tmp_path: Path) -> None:
    program = f"import os; os.chown({str(tmp_path)!r}, {ROLE}, {ROLE})"
    done = subprocess.run(
        [*LEAST, sys.executable, "-I", "-c", program], check=False, capture_output=True, text=True, timeout=60
    )
    assert "PermissionError" in done.stderr
