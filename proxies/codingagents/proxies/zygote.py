"""ENTRY: `python -I -m codingagents.proxies.zygote --fd N`: loads what a helper imports, then makes helpers by cloning.

Never serves, never sees a spec or a secret: a clone reads those from its own channel. Descriptor N is a SOCK_SEQPACKET
socket; one `CloneRequest` in, one `Cloned` out, until EOF. A clone is the *parent's* child (CLONE_PARENT, clone(2)), so
that the supervisor can wait for it, and its pidfd comes from the clone itself (CLONE_PIDFD), so that no reaping of the
supervisor can give the number to another process first. One thread only: clone(2) copies no other.
"""

from __future__ import annotations

import array
import contextlib
import gc
import os
import signal
import socket
import sys
from typing import NoReturn

from codingagents.proxies import confinement, helper
from codingagents.proxies.descriptors import CHANNEL, LISTENER, SOCK_DIAG, keep_only
from codingagents.rewrite.specs import Cloned, CloneRequest
from codingagents.trust import cloning, linux, wire
from codingagents.trust.errors import WireError

_MAX_REQUEST = 4096  # bytes of one request


def _become_helper(server: str, channel: int, *others: int) -> NoReturn:
    """Run the helper in the clone; never returns into the zygote's loop, whatever happens."""
    status = 1
    try:
        confinement.die_with_parent()
        keep_only(channel, *others)
        channel = CHANNEL
        linux.name_process(f"helper {server}")
        gc.enable()
        status = helper.main(CHANNEL, LISTENER, SOCK_DIAG if len(others) > 1 else None)
    except BaseException as error:  # nothing may climb into the zygote's loop
        helper.report_failure(channel, error)
    finally:
        os._exit(status)


def _receive(control: socket.socket) -> tuple[bytes, list[int]]:
    """Return a message and its descriptors; (b"", []) is EOF. A cut message: `WireError`, its descriptors closed."""
    data, ancillary, flags, _ = control.recvmsg(_MAX_REQUEST, socket.CMSG_SPACE(8 * 4), socket.MSG_CMSG_CLOEXEC)
    descriptors = array.array("i")
    for level, kind, payload in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            descriptors.frombytes(payload[: len(payload) - len(payload) % descriptors.itemsize])
    if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
        _close(list(descriptors))
        raise WireError(f"a clone request must fit {_MAX_REQUEST} bytes and carry two or three descriptors")
    return data, list(descriptors)


def _close(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def _serve_one(control: socket.socket, data: bytes, descriptors: list[int]) -> None:
    try:
        request: CloneRequest = wire.decode(CloneRequest, data)
        if len(descriptors) not in (2, 3):
            raise WireError(f"a clone request carries two or three descriptors, not {len(descriptors)}")
        pid, pidfd = cloning.clone(cloning.CLONE_PARENT)
    except (WireError, OSError) as error:
        _close(descriptors)
        control.send(wire.encode(Cloned(pid=None, error=str(error))))
        return
    if pid == 0:
        _become_helper(request.server, *descriptors)
    _close(descriptors)
    try:
        socket.send_fds(control, [wire.encode(Cloned(pid=pid))], [pidfd])
    finally:
        os.close(pidfd)


def serve(control: socket.socket) -> None:
    """Answer clone requests until EOF. A supervisor that went away without one (ECONNRESET, EPIPE) is EOF too."""
    with contextlib.suppress(ConnectionError):
        while True:
            try:
                data, descriptors = _receive(control)
            except WireError as error:
                control.send(wire.encode(Cloned(pid=None, error=str(error))))
                continue
            if not data:
                _close(descriptors)
                return
            _serve_one(control, data, descriptors)


def main(arguments: list[str]) -> int:
    """Take `--fd N`, prepare, and serve; the exit code is 0 at EOF and 2 for wrong arguments."""
    if len(arguments) != 2 or arguments[0] != "--fd" or not arguments[1].isdecimal():
        print("usage: python -I -m codingagents.proxies.zygote --fd N", file=sys.stderr)  # noqa: T201 -- a command's usage
        return 2
    confinement.die_with_parent()
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # a terminal's keys are the supervisor's to act on; clones inherit this
    linux.name_process("helper zygote")
    control = socket.socket(fileno=int(arguments[1]))
    control.set_inheritable(False)
    helper.preload()
    gc.disable()
    gc.collect()
    gc.freeze()  # a clone's collector then never writes to the pages that it shares with its siblings
    serve(control)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
