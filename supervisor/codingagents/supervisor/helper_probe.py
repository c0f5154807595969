"""SHELL: has one helper try its layers where there is no session: it holds no secret, and its server is nobody.

It is made as a session makes its helpers, by a zygote, and ended once it has said what it tried. Judges nothing.
"""

from __future__ import annotations

import contextlib
import secrets as randomness
import signal
import socket
from typing import Final

import trio

from codingagents.rewrite.specs import HelperSpec, RemoteSpec
from codingagents.supervisor import helper_layers, helper_rows
from codingagents.supervisor.early import ZygoteProcess
from codingagents.supervisor.helper_channel import HelperChannel
from codingagents.supervisor.processes import Child, Children
from codingagents.supervisor.reaper import Reaper
from codingagents.supervisor.slots import Slot, bind_slot
from codingagents.supervisor.zygote_client import Zygote
from codingagents.trust import facts
from codingagents.trust.errors import ProcessError
from codingagents.trust.events import Layer
from codingagents.trust.vocabulary import Secret

_READY_SECONDS: Final = 20.0
# Port 9 is "discard"; nothing is sent there, for nobody is told where the helper listens.
_NOBODY: Final = RemoteSpec(name="doctor", scheme="http", host="127.0.0.1", port=9, path="/")


async def try_helper(children: Children, reaper: Reaper, *, uid: int, agent_uid: int) -> list[Layer]:
    """Return the rows of a helper of `uid`, its own and those seen from outside.

    `ProcessError` where it could not be made, or would not serve, and why.
    """
    process = ZygoteProcess(children)
    zygote = Zygote(process, children)
    try:
        slot = bind_slot(_NOBODY, uid, Secret(randomness.token_urlsafe(32)))
        try:
            return await _rows(zygote, slot, children, reaper, agent_uid)
        finally:
            slot.close()
    finally:
        zygote.close()
        await reaper.wait(process.child)


async def _rows(zygote: Zygote, slot: Slot, children: Children, reaper: Reaper, agent_uid: int) -> list[Layer]:
    ours, theirs = socket.socketpair()
    channel = HelperChannel(ours)
    with theirs:
        try:
            helper = await zygote.clone(_NOBODY.name, theirs, slot.listener)
        except ProcessError:
            ours.close()
            raise
    spec = HelperSpec(
        remote=_NOBODY,
        uid=slot.uid,
        gid=slot.uid,
        agent_uid=agent_uid,
        listen_port=slot.port,
        bearer=slot.bearer,
        secrets={},
    )
    try:
        return await _hear(channel, spec, helper)
    finally:
        children.signal(helper, signal.SIGKILL)
        await reaper.wait(helper)


async def _hear(channel: HelperChannel, spec: HelperSpec, helper: Child) -> list[Layer]:
    rows: list[Layer] = []
    why = "it did not become ready in time"

    def take(fact: facts.AnyFact, _length: int) -> None:
        nonlocal why
        if isinstance(fact, facts.Ready):
            rows.extend(helper_rows.report(fact, helper_layers.look(helper.pid), spec.uid))
            heard.cancel()
        elif isinstance(fact, facts.Failed):
            why = fact.reason

    with trio.move_on_after(_READY_SECONDS) as heard, contextlib.suppress(trio.BrokenResourceError):
        why = await channel.converse(spec, take) or why
    if not rows:
        raise ProcessError(f"a helper could not be confined: {why}")
    return rows
