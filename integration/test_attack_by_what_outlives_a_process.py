"""Kernel objects that belong to no process: keys that a session could inherit, and memory that it could leave behind.

Each attack is tried where it must work, too.
"""

from __future__ import annotations

import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest

import session_rig as rig
from codingagents.trust import linux
from session_rig import every_mode

UID = 58041  # of no account
KEY = "key-of-whoever-started-the-session"
_ADD_KEY = {"x86_64": 248, "aarch64": 217}[platform.machine()]
_KEYCTL = linux.machine().number("keyctl")

# Puts a key into a session keyring of its own, as a login does, and becomes what follows.
KEYRING = f"""
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
assert libc.syscall({_KEYCTL}, 1, None) >= 0
key = {KEY!r}.encode()
assert libc.syscall({_ADD_KEY}, b"user", b"of-the-login", key, len(key), -3) >= 0
os.execvp(sys.argv[1], sys.argv[1:])
"""
# Searches the session keyring and reads what it finds.
READ_KEY = f"""
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
found = ctypes.create_string_buffer(100)
key = libc.syscall({_KEYCTL}, 10, -3, b"user", b"of-the-login", 0)
size = libc.syscall({_KEYCTL}, 11, key, found, 100) if key >= 0 else -1
print(found.raw[:size].decode() if size >= 0 else ctypes.get_errno())
"""
# Makes a page of shared memory, mode 0600, and goes away.
LEAVE_MEMORY = """
import ctypes
number = ctypes.CDLL(None, use_errno=True).shmget(0, 4096, 0o1600)
assert number >= 0
print(open("/proc/sysvipc/shm").read().splitlines()[1:] != [])
"""
PYTHON = ("/usr/bin/python3", "-I", "-c")
AS_NOBODY = ("setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups")


def has_keyrings() -> bool:
    return Path("/proc/keys").exists()


def memory_of(uid: int) -> list[int]:
    """Return the shared memory that this UID owns, in the IPC namespace of this process."""
    lines = [line.split() for line in Path("/proc/sysvipc/shm").read_text().splitlines()[1:]]
    return [int(fields[1]) for fields in lines if int(fields[7]) == uid]


@pytest.mark.skipif(not has_keyrings(), reason="this kernel has no keyrings")
@every_mode
def test_the_agent_does_not_inherit_the_keyring_of_the_login(mode: str) -> None:
    prefix = [sys.executable, "-I", "-c", KEYRING]
    control = subprocess.run([*prefix, *AS_NOBODY, *PYTHON, READ_KEY], check=True, stdout=subprocess.PIPE, text=True)
    assert control.stdout.strip() == KEY, "another UID alone does not keep a process from an inherited keyring"
    with rig.place() as where, rig.start(mode, where, "", prefix=prefix) as session:
        assert session.answer() == "up"
        assert re.fullmatch(r"\d+\n", session.ask("run", *PYTHON, READ_KEY)["output"])


@every_mode
def test_shared_memory_ends_with_the_session(mode: str) -> None:
    subprocess.run([*AS_NOBODY, *PYTHON, LEAVE_MEMORY], check=True, stdout=subprocess.DEVNULL)
    left = memory_of(UID)
    for number in left:
        subprocess.run(["ipcrm", "-m", str(number)], check=True)
    assert left, "such memory stays where nothing takes it along"
    with rig.place() as where, rig.start(mode, where, "") as session:
        assert session.answer() == "up"
        assert session.ask("run", *PYTHON, LEAVE_MEMORY)["output"] == "True\n"
        session.tell("leave", 0)
        assert session.wait() == 0
        assert memory_of(session.uid_base) == []
