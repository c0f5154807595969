"""Stands for the supervisor: `pid1.py MODE init --session DIR --control-fd N`. Writes what it saw to DIR/seen.json."""

import json
import os
import signal
import socket
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from codingagents.launcher.engines.forwarding import FORWARDED
from codingagents.rewrite.specs import ControlCheckpoint, RenewedSecrets, SessionSecrets
from codingagents.trust import checkpoint, wire
from codingagents.trust.vocabulary import SessionId

MODE, _, _, DIRECTORY, _, CONTROL = sys.argv[1:7]
SEEN = Path(DIRECTORY) / "seen.json"
control = socket.socket(fileno=int(CONTROL))


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def write(**facts: object) -> None:
    draft = SEEN.with_suffix(".new")
    draft.write_text(json.dumps(facts))
    draft.rename(SEEN)


def line() -> bytes:
    received = bytearray()
    while not received.endswith(b"\n"):
        received += control.recv(65536)
    return bytes(received)


def secrets() -> SessionSecrets:
    return wire.decode(SessionSecrets, line())


def until_eof() -> None:
    while control.recv(65536):
        pass


def report() -> None:
    """Say everything about the start, and send checkpoints out of order."""
    got = secrets()
    for size in (3, 5, 4):
        note = checkpoint.sign_checkpoint(
            got.signing_key,
            session=SessionId(Path(DIRECTORY).name),
            size=size,
            root=bytes(32),
            moment=datetime(2027, 1, 1, tzinfo=UTC),
        )
        control.sendall(wire.encode(ControlCheckpoint(note=note)))
    write(
        pid=os.getpid(),
        argv=sys.argv,
        environment=dict(os.environ),
        cwd=os.getcwd(),
        fds=[fd for fd in range(100) if is_open(fd)],
        blocked=sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ())),
        session_leader=os.getsid(0) == os.getpid(),
        secrets={name: secret.reveal() for name, secret in got.secrets.items()},
    )
    sys.exit(7)


def signals() -> None:
    """Count what arrives until SIGTERM; `slow` is busy with imports before it can take any."""
    got: list[str] = []

    def take(number: int, _: object) -> None:
        got.append(signal.Signals(number).name)

    if MODE == "slow":
        write(ready=False)
        time.sleep(0.4)
    for number in FORWARDED:
        signal.signal(number, take)
    write(ready=True)
    while "SIGTERM" not in got:
        signal.sigtimedwait((), 0.05)
    write(got=got)
    sys.exit(128 + signal.SIGTERM)


match MODE:
    case "report":
        report()
    case "signals" | "slow":
        signals()
    case "orphan":
        write(ready=True)
        until_eof()
        write(eof=True)
    case "renewed":
        secrets()
        write(ready=True)
        renewed: RenewedSecrets = wire.decode(RenewedSecrets, line())
        write(renewed={name: secret.reveal() for name, secret in renewed.secrets.items()})
    case "garbage":
        control.sendall(b"not a message\n")
        until_eof()
        write(eof=True)
    case "crash":
        signal.signal(signal.SIGSEGV, signal.SIG_DFL)
        import ctypes

        ctypes.string_at(0)
