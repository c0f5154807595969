"""Other users of the machine can connect to a helper, and can do no more than that."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from codingagents.rewrite.specs import LimitsSpec
from helper_rig import Helper, Zygote, closing_children
from scripted_upstream import Upstream

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="becoming other UIDs needs root")

AGENT, OTHER = 58061, 58062  # of no account
CONNECTIONS = 8
# Opens connections and keeps them until it is told to end.
HOLD = """
import os, socket, sys
uid, port, count = map(int, sys.argv[1:])
os.setresuid(uid, uid, uid)
held = [socket.create_connection(("127.0.0.1", port)) for _ in range(count)]
print("held", flush=True)
sys.stdin.read()
"""
# Sends what comes on standard input and says what is answered first.
ASK = """
import os, socket, sys
uid, port = map(int, sys.argv[1:])
os.setresuid(uid, uid, uid)
with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
    client.sendall(sys.stdin.buffer.read())
    print(client.recv(65536).decode())
"""


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    with closing_children(), Zygote() as started:
        yield started


@contextmanager
def holding(uid: int, helper: Helper) -> Iterator[None]:
    argv = [sys.executable, "-I", "-c", HOLD, str(uid), str(helper.port), str(CONNECTIONS)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        yield


def ask(uid: int, helper: Helper) -> bytes:
    argv = [sys.executable, "-I", "-c", ASK, str(uid), str(helper.port)]
    return subprocess.run(argv, check=True, input=helper.head(length=0), stdout=subprocess.PIPE).stdout


def test_connections_of_other_users_do_not_keep_the_agent_out(zygote: Zygote) -> None:
    """As many as a helper takes, of another user; of the agent itself, as the control, they do."""
    with Upstream() as upstream:
        remote = upstream.remote(limits=LimitsSpec(connections=CONNECTIONS))
        with Helper(zygote, remote, agent_uid=AGENT) as helper:
            with holding(AGENT, helper):
                assert b"too_many_connections" in ask(AGENT, helper)
            with holding(OTHER, helper):
                assert ask(AGENT, helper).startswith(b"HTTP/1.1 200 ")
            with holding(OTHER, helper):
                assert b"too_many_connections" in ask(OTHER, helper), "they are dropped for the agent only"
