"""A hostile agent hands over sockets whose last close waits (SO_LINGER, socket(7)): only a thread of ours waits."""

from __future__ import annotations

import subprocess

import pytest

import runner_rig
from codingagents.rewrite import places
from session_rig import Session, place

_LINGER = 30  # seconds; longer than any machine is slow
# Argument 1: how the socket gets there. A connected pair of which one end never reads, full, is what lingers.
_ATTACK = """
import base64, socket, struct, sys, time
how, runner, request, linger = sys.argv[1], sys.argv[2], base64.b64decode(sys.argv[3]), int(sys.argv[4])
listening = socket.create_server(("127.0.0.1", 0))
slow = socket.create_connection(listening.getsockname())
peer, _ = listening.accept()
slow.setblocking(False)
try:
    while True:
        slow.send(bytes(65536))
except BlockingIOError:
    pass
slow.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, linger))
def connect():
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(runner)
    return connection
if how == "control":
    ours, theirs = socket.socketpair()
    socket.send_fds(ours, [b"x"], [slow.fileno()])
    slow.close()
    began = time.monotonic()
    theirs.recv(1)  # without room for it: the kernel closes
    print(time.monotonic() - began)
    sys.exit()
attack = connect()
if how == "half":
    socket.send_fds(attack, [b"T1 "], [0, 1, slow.fileno()])
elif how == "too-many":
    socket.send_fds(attack, [b"T1 "], [0, 1, 2, slow.fileno()])
elif how == "later":
    socket.send_fds(attack, [request], [0, 1, 2])
    socket.send_fds(attack, [b"signal 18\\n"], [slow.fileno()])
slow.close()
if how != "later":
    attack.close()
time.sleep(0.3)
began = time.monotonic()
for _ in range(3):
    client = connect()
    socket.send_fds(client, [request], [0, 1, 2])
    said = client.makefile("rb").read()
    assert b"exited 0" in said, said
print(time.monotonic() - began)
"""


def seconds(session: Session, how: str, linger: int) -> float:
    """Return how long three tasks took, as the agent's user, after the attack."""
    inside = ["nsenter", "--target", str(session.supervisor()), "--mount", "--"]
    become = ["setpriv", f"--reuid={session.uid_base}", f"--regid={session.uid_base}", "--clear-groups", "--"]
    words = ["/usr/bin/python3", "-ISc", _ATTACK, how, places.RUNNER_SOCKET, runner_rig.request("/bin/true")]
    done = subprocess.run([*inside, *become, *words, str(linger)], check=True, capture_output=True, timeout=120)
    return float(done.stdout)


@pytest.mark.parametrize("how", ["half", "too-many", "later"])
def test_a_descriptor_whose_close_waits_holds_up_no_other_task(how: str) -> None:
    with place() as where, runner_rig.start("subreaper", where) as session:
        assert seconds(session, "control", 2) > 1.9
        assert seconds(session, how, _LINGER) < _LINGER / 2
        session.tell("leave", 0)
        assert session.wait() == 0
