"""A helper that is not ours any more: what code in its place could try, with and without each defence."""

from __future__ import annotations

import functools
import json
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="helpers take UIDs of their own: needs root")

ATTACKER = Path(__file__).with_name("helper_attacker.py")
# What a confined helper gets; what Landlock and seccomp would answer alone, where either does.
REFUSED: dict[str, tuple[str, str | None, str | None]] = {
    "execve": ("EPERM", "EACCES", "EPERM"),
    "execveat": ("EPERM", "EACCES", "EPERM"),
    "memfd and exec": ("EPERM", "EACCES", "EPERM"),  # its interpreter is no memfd
    "write a file in /tmp": ("EPERM", "EACCES", "EPERM"),
    "make a directory": ("EPERM", "EACCES", "EPERM"),
    "read /etc/passwd": ("EACCES", "EACCES", None),
    "list a directory": ("EACCES", "EACCES", None),
    "read a sibling's memory": ("EACCES", "EACCES", None),
    "process_vm_readv": ("EPERM", "EPERM", "EPERM"),
    "ptrace a sibling": ("EPERM", "EPERM", "EPERM"),
    "signal a sibling": ("EPERM", "EPERM", "EPERM"),
    "signal a sibling by pidfd": ("ENOSYS", "EPERM", "ENOSYS"),
    "connect to another TCP port": ("EACCES", "EACCES", None),
    "connect to a unix socket": ("EPERM", None, "EPERM"),
    "bind TCP": ("EPERM", "EACCES", "EPERM"),
    "bind UDP": ("EPERM", None, "EPERM"),
    "unshare": ("EPERM", None, "EPERM"),
    "netlink socket of routes": ("EPERM", None, "EPERM"),
    "io_uring": ("ENOSYS", None, "ENOSYS"),
    "fork": ("EPERM", None, "EPERM"),
    "map code": ("EPERM", None, "EPERM"),
    "turn memory into code": ("EPERM", None, "EPERM"),
    "be dumpable": ("EPERM", None, "EPERM"),
    "outlive the supervisor": ("EPERM", None, "EPERM"),
    "change a limit": ("EPERM", None, "EPERM"),
    "install a filter": ("EPERM", None, "EPERM"),
}
ROOTS = ("packet socket", "raw socket")  # which no other user may have either
DAILY = ("read /etc/hosts", "resolve a name", "make a thread")


@functools.cache
def outcomes(mode: str) -> dict[str, str]:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder, socket.create_server(("127.0.0.1", 0)) as server:
        os.chmod(folder, 0o755)
        with socket.socket(socket.AF_UNIX) as local:
            local.bind(f"{folder}/open-to-all")
            local.listen(100)
            os.chmod(f"{folder}/open-to-all", 0o666)
            command = [sys.executable, "-I", str(ATTACKER), mode, str(server.getsockname()[1]), f"{folder}/open-to-all"]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=60)
    said: dict[str, str] = json.loads(done.stdout)
    return said


@pytest.mark.parametrize("act", REFUSED)
def test_a_helper_is_refused(act: str) -> None:
    """And only because it is confined: its UID alone may do it."""
    assert outcomes("nothing")[act] == "succeeded"
    assert outcomes("all")[act] == REFUSED[act][0]


@pytest.mark.parametrize("act", REFUSED)
def test_one_layer_holds_where_the_other_is_not_there(act: str) -> None:
    """Most of what matters is refused twice."""
    _, by_landlock, by_seccomp = REFUSED[act]
    assert outcomes("landlock")[act] == (by_landlock or "succeeded")
    assert outcomes("seccomp")[act] == (by_seccomp or "succeeded")


@pytest.mark.parametrize("act", ROOTS)
def test_what_root_alone_may_do_is_refused_too(act: str) -> None:
    assert outcomes("root")[act] == "succeeded"
    assert outcomes("all")[act] == "EPERM"


def test_a_bomb_of_threads_ends_early() -> None:
    """Processes it cannot make at all; threads it needs for name resolution, and they are counted."""
    assert outcomes("nothing")["many threads"] == "succeeded"
    assert outcomes("all")["many threads"] == "EAGAIN"


def test_a_socket_of_a_family_that_the_kernel_may_not_have_is_refused_by_us() -> None:
    """EPERM is ours, EAFNOSUPPORT would be the kernel's."""
    assert outcomes("nothing")["kernel crypto socket"] in ("succeeded", "EAFNOSUPPORT")
    assert outcomes("all")["kernel crypto socket"] == "EPERM"


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="x32 is a second table of x86-64's calls")
def test_calls_of_another_table_are_death() -> None:
    assert outcomes("nothing")["execve of x32"] in ("succeeded", "ENOSYS")  # few kernels have it
    assert outcomes("all")["execve of x32"] == "ended with -31"  # SIGSYS


@pytest.mark.parametrize("act", DAILY)
def test_a_helpers_daily_work_is_not_refused(act: str) -> None:
    assert {mode: outcomes(mode)[act] for mode in ("nothing", "landlock", "seccomp", "all")} == dict.fromkeys(
        ("nothing", "landlock", "seccomp", "all"), "succeeded"
    )


def test_the_port_of_its_own_server_is_not_refused() -> None:
    """Nobody listens there, and that is what it hears."""
    assert (
        outcomes("nothing")["connect to its own port"] == outcomes("all")["connect to its own port"] == "ECONNREFUSED"
    )
