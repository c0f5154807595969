"""SHELL: asks the zygote for helpers and owns each as a child. Decides nothing, and tells a helper nothing.

What a helper is told, and when it is made again, is for `helpers`; the zygote itself is `proxies/zygote.py`.
"""

from __future__ import annotations

import array
import socket
from typing import Final

import trio

from codingagents.rewrite.specs import Cloned, CloneRequest
from codingagents.supervisor.early import ZygoteProcess
from codingagents.supervisor.processes import Child, Children
from codingagents.trust import wire
from codingagents.trust.errors import ProcessError

_CLONE_SECONDS: Final = 10.0


class Zygote:
    """The process that has the helper stack loaded and clones helpers as our own children."""

    def __init__(self, process: ZygoteProcess, children: Children) -> None:
        """Own the channel of a zygote that was spawned early."""
        self.child = process.child
        self.is_broken = False  # there is no answer to come any more
        self._children = children
        process.channel.setblocking(False)
        self._socket = trio.socket.from_stdlib_socket(process.channel)
        self._lock = trio.Lock()

    async def clone(self, server: str, channel: socket.socket, listener: socket.socket) -> Child:
        """Return a new helper; `ProcessError` where the zygote is gone or could not make one."""
        async with self._lock:
            descriptors = array.array("i", [channel.fileno(), listener.fileno()])
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)]
            try:
                with trio.fail_after(_CLONE_SECONDS):
                    await self._socket.sendmsg([wire.encode(CloneRequest(server=server))], rights)
                    data, ancillary, _, _ = await self._socket.recvmsg(
                        4096, socket.CMSG_SPACE(4), socket.MSG_CMSG_CLOEXEC
                    )
            except (OSError, trio.ClosedResourceError, trio.TooSlowError) as error:
                self._socket.close()  # an answer that comes late would be taken for the next request's
                self.is_broken = True
                raise ProcessError(f"the zygote does not answer: {str(error) or 'timeout'}") from None
            received = array.array("i")
            for _, _, payload in ancillary:
                received.frombytes(payload)
            if not data:
                self.is_broken = True
                raise ProcessError("the zygote is gone")
            answer: Cloned = wire.decode(Cloned, data)
            if answer.pid is None or len(received) != 1:
                raise ProcessError(f"the zygote made no helper: {answer.error}")
            try:
                return self._children.adopt(answer.pid, received[0])
            except ProcessLookupError as error:
                raise ProcessError(str(error.strerror)) from None

    def close(self) -> None:
        """Let it end: EOF is its signal."""
        self._socket.close()
