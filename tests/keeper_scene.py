"""A keeper of one helper in its surroundings, with scripts in the helper's place."""

from __future__ import annotations

import functools
import os
import socket
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import trio
import trio.testing

from codingagents.rewrite.specs import ControlTrust, HeaderTemplate, RemoteSpec
from codingagents.supervisor.early import ZygoteProcess
from codingagents.supervisor.event_log import EventLog
from codingagents.supervisor.helper_life import Look
from codingagents.supervisor.helper_rows import Seen
from codingagents.supervisor.helpers import HelperKeeper
from codingagents.supervisor.kept_trust import KeptTrust
from codingagents.supervisor.processes import Child, Children
from codingagents.supervisor.reaper import Reaper
from codingagents.supervisor.slots import Slot
from codingagents.supervisor.trust_snapshot import Snapshots
from codingagents.trust import checkpoint
from codingagents.trust.encoding import decode_line
from codingagents.trust.events import (
    AnyEvent,
)
from codingagents.trust.vocabulary import Secret, SessionId

SESSION = SessionId("s-1")
KEY = checkpoint.new_key(b"\1" * 32)
REMOTE = RemoteSpec(
    name="github",
    scheme="https",
    host="example.test",
    port=443,
    path="/mcp",
    headers=[HeaderTemplate(name="Authorization", template="Bearer ${TOKEN}")],
)
SECRETS = {"TOKEN": Secret("t0ken"), "OTHER": Secret("another server's")}

# A helper's beginning: it reads its specification, as one line, from descriptor 3.
HELPER = """
import json, os, socket, sys, time
channel = socket.socket(fileno=3)
lines = channel.makefile()
spec = json.loads(lines.readline())
def tell(**fact):
    channel.sendall(json.dumps(fact).encode() + b"\\n")
ready = {"fact": "ready", "open_fds": ["socket"]}
request = {"fact": "request", "method": "POST", "status": 200, "error_type": None,
    "request_bytes": 1, "response_bytes": 2, "duration_ms": 3}
"""
# Until the channel is closed: answers pings, counting what it never did.
SERVE = """
tell(**ready)
pong = {"fact": "pong", "connections": 2, "upstream_connections": 1, "requests": 5, "errors": 3, "refused": 1}
for line in lines:
    command = json.loads(line)
    if command["command"] == "ping":
        tell(**pong, number=command["number"])
"""


PONG = """
tell(fact="pong", number=1, connections=0, upstream_connections=0, requests=0, errors=0, refused=0)
time.sleep(60)
"""


NO_CAPABILITIES = dict.fromkeys(("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"), "0" * 16)


def confined(uid: int, descriptors: Sequence[str] | None = None) -> Seen:
    """Return what a helper looks like from outside that runs as `uid` and is confined as it must be."""
    return Seen(
        status={
            "Uid": "\t".join([str(uid)] * 4), "Gid": "\t".join([str(uid)] * 4), "Groups": "", **NO_CAPABILITIES,
            "NoNewPrivs": "1", "Seccomp": "2", "Seccomp_filters": "1",
        },
        limits={"Max core file size": "0", "Max file size": "0", "Max locked memory": "0", "Max open files": "1600"},
        memory_owner=0,
        descriptors=descriptors,
    )  # fmt: skip


class SpawningZygote:
    """Makes a helper of a script instead of a clone; each life gets the next script, the last one for ever."""

    def __init__(self, children: Children, scripts: list[str]) -> None:
        self._children = children
        self._scripts = scripts
        self.lives = 0
        self.meanwhile: Callable[[], None] = lambda: None  # what happens while it makes one

    async def clone(self, server: str, channel: socket.socket, listener: socket.socket) -> Child:
        script = self._scripts[min(self.lives, len(self._scripts) - 1)]
        self.lives += 1
        await trio.lowlevel.checkpoint()
        self.meanwhile()
        fds = {2: 2, 3: channel.fileno(), 4: listener.fileno()}
        return self._children.spawn([sys.executable, "-I", "-c", HELPER + script], env={}, fds=fds)


class Scene:
    """A keeper in its surroundings; `script` is what its helpers do."""

    def __init__(self, directory: Path, slot: Slot, scripts: list[str], look: Look | None = None) -> None:
        """`look` sees the scripts; by default as confined, which they are not."""
        self.path = directory / "events.jsonl"
        self.descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        sign = functools.partial(checkpoint.sign_checkpoint, KEY, session=SESSION)
        self._log = EventLog(self.descriptor, SESSION, sign)
        children = Children()
        self.reaper = Reaper(children)
        self.answers: list[ControlTrust] = []  # that the launcher would get
        self.complaints: list[str] = []
        self.trust_changes: list[None] = []
        self.zygote = SpawningZygote(children, scripts)
        self.keeper = HelperKeeper(
            slot,
            zygote=self.zygote,
            children=children,
            reaper=self.reaper,
            log=self._log,
            agent_uid=7,
            secrets=SECRETS,
            trust=KeptTrust(
                slot.remote,
                self._log,
                Snapshots(self.complaints.append, str(directory)),
                answer=self.answers.append,
                changed=lambda: self.trust_changes.append(None),
            ),
            look=look or (lambda _: confined(slot.uid)),
        )

    @property
    def events(self) -> list[AnyEvent]:
        return [decode_line(line).event for line in self.path.read_bytes().splitlines()]

    def of(self, kind: type) -> list[AnyEvent]:
        return [event for event in self.events if isinstance(event, kind)]

    async def until(self, kind: type, count: int = 1) -> None:
        with trio.fail_after(10):
            while len(self.of(kind)) < count:  # noqa: ASYNC110 -- the log announces nothing
                await trio.sleep(0.01)

    async def until_lost(self, count: int) -> None:
        """Wait until so many events could not be written."""
        with trio.fail_after(10):
            while self._log._lost.total() < count:  # noqa: ASYNC110 -- the log announces nothing
                await trio.sleep(0.01)

    def play(self, act: Callable[[Scene], Awaitable[None]]) -> None:
        """Run the keeper while `act` goes on, then stop it; it must end by itself."""

        async def scene() -> None:
            with trio.fail_after(30):
                async with trio.open_nursery() as nursery:
                    await nursery.start(self.reaper.run)
                    nursery.start_soon(self.keeper.run)
                    await act(self)
                    await self.keeper.stop(5.0)
                    await self.keeper.ended.wait()
                    nursery.cancel_scope.cancel()

        trio.run(scene)


class SilentZygoteProcess(ZygoteProcess):
    """The zygote's channel without a zygote; `theirs` is its end."""

    def __init__(self) -> None:
        self.channel, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.child = Child(1, -1)
