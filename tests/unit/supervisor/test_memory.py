"""Memory of processes, by what the kernel says of this one and of one that holds a known amount."""

import os
import subprocess
import sys

import pytest

from codingagents.supervisor import memory
from codingagents.supervisor.helper_listing import Memory

AT = "2026-11-24T00:00:00Z"
HOLD = "import sys; held = bytearray(b'x' * 50_000_000); print(flush=True); sys.stdin.read()"


def test_what_a_process_holds_alone_is_its_own() -> None:
    with subprocess.Popen([sys.executable, "-c", HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        (found,) = memory.of_processes([process.pid], AT).values()
        process.communicate()
    assert found.uss_bytes is not None
    assert found.pss_bytes is not None
    assert 50_000_000 < found.uss_bytes <= found.pss_bytes <= found.rss_bytes < 150_000_000
    assert found.taken_at == AT


def test_a_process_that_is_gone_has_no_row() -> None:
    with subprocess.Popen(["/bin/true"]) as process:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert memory.of_processes([process.pid, 2**22 + 1], AT) == {}, "nor has a zombie"


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another UID needs root")
def test_where_only_residence_may_be_seen_the_rest_is_unknown() -> None:
    """As under Docker's default Linux capabilities, by a process that may not look into another user's."""
    code = f"""
import os, sys
sys.path[:] = {sys.path!r}
from codingagents.supervisor import memory
os.setresuid(60001, 60001, 60001)
print(memory.of_processes([int(sys.argv[1])], "now"))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(os.getpid())], check=True, capture_output=True, text=True
    ).stdout
    found: dict[int, Memory] = eval(done, {"Memory": Memory})  # our own repr
    assert found[os.getpid()].uss_bytes is None
    assert found[os.getpid()].pss_bytes is None
    assert found[os.getpid()].rss_bytes > 1_000_000
