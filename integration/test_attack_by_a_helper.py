"""A helper that is not ours any more: what code in its place could try."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="helpers take UIDs of their own: needs root")

UID = 58071  # of no account
# Tries every way to run a program, each in a child of its own; in the control nothing was dropped.
TRY = """
import ctypes, errno, json, os, platform, sys
from codingagents.proxies import confinement
if sys.argv[1] == "dropped":
    confinement.drop(int(sys.argv[2]), int(sys.argv[2]))
libc = ctypes.CDLL(None, use_errno=True)
argv, envp = (ctypes.c_char_p * 2)(b"true", None), (ctypes.c_char_p * 1)(None)
path = b"/usr/bin/true"
EXECVE, EXECVEAT = confinement._EXECS[platform.machine()][1:]
acts = {
    "execve": lambda: libc.syscall(ctypes.c_long(EXECVE), path, argv, envp),
    "execveat": lambda: libc.syscall(ctypes.c_long(EXECVEAT), -100, path, argv, envp, 0),
    "fexecve": lambda: libc.fexecve(os.open(path, os.O_RDONLY), argv, envp),
}
if platform.machine() == "x86_64":
    acts["execve of x32"] = lambda: libc.syscall(ctypes.c_long(0x40000000 + 520), path, argv, envp)
def outcome(act):
    pid = os.fork()
    if pid == 0:
        act()
        os._exit(100 + ctypes.get_errno())
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return errno.errorcode[code - 100] if code > 100 else code
print(json.dumps({name: outcome(act) for name, act in acts.items()}))
"""


def attempts(how: str) -> dict[str, int | str]:
    done = subprocess.run([sys.executable, "-I", "-c", TRY, how, str(UID)], check=True, stdout=subprocess.PIPE)
    said: dict[str, int | str] = json.loads(done.stdout)
    return said


def test_a_helper_can_run_no_program() -> None:
    """It is not trapped, so what it ran would be in no record."""
    control = attempts("as it was")
    assert {control[name] for name in ("execve", "execveat", "fexecve")} == {0}
    assert set(attempts("dropped").values()) == {"EPERM"}
