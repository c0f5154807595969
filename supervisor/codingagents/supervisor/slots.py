"""SHELL: what belongs to a server and outlives its helper processes; first of all the socket that it is reached at.

Binds that socket and knows what clients are told of it. Serves nothing, and does not decide who may connect.
"""

from __future__ import annotations

import contextlib
import datetime
import itertools
import os
import secrets as randomness
import socket
from dataclasses import dataclass
from typing import Final

from codingagents.rewrite import places
from codingagents.rewrite.specs import ListenCertificate, RemoteSpec, SessionSpec
from codingagents.supervisor import accepting
from codingagents.trust.errors import ProcessError
from codingagents.trust.vocabulary import Secret

_BACKLOG: Final = 128
_BINDS: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """One server's place in the session. `certificate` is set exactly where its helper listens on https."""

    remote: RemoteSpec
    uid: int
    listener: socket.socket
    bearer: Secret
    certificate: ListenCertificate | None = None

    @property
    def port(self) -> int:
        """The loopback port that clients are given; 0 on a unix socket."""
        if self.remote.listen == "unix":
            return 0
        port: int = self.listener.getsockname()[1]
        return port

    @property
    def socket_path(self) -> str:
        """The path of the unix socket, "" where it is not one."""
        return places.socket_path(self.remote.name) if self.remote.listen == "unix" else ""

    @property
    def origin(self) -> str:
        """Where it listens: `http://127.0.0.1:PORT`, `https://127.0.0.1:PORT` or `unix:PATH`."""
        if self.remote.listen == "unix":
            return f"unix:{self.socket_path}"
        return f"{self.remote.listen}://127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """What a client's configuration says: the upstream's path on the helper's own origin.

        For a unix socket it is the URL that is asked for over it, whose host any client can send; `socket_path` is
        where.
        """
        return f"{'http://localhost' if self.remote.listen == 'unix' else self.origin}{self.remote.path}"

    def close(self) -> None:
        """Give the socket up, and its path."""
        self.listener.close()
        if self.socket_path:
            with contextlib.suppress(FileNotFoundError):  # its directory may have gone first
                os.unlink(self.socket_path)


def bind_slots(spec: SessionSpec) -> list[Slot]:
    """Bind the sockets of all of a session's servers, each with a local bearer of its own.

    Where one listens on https, a certificate authority is made for the session, and left at `places.SESSION_CA`.
    `ProcessError` where one cannot be bound.
    """
    certificates: dict[str, ListenCertificate] = {}
    if https := [remote.name for remote in spec.remotes if remote.listen == "https"]:
        from codingagents.supervisor import session_ca  # noqa: PLC0415 -- 30 ms that other sessions do without

        authority, certificates = session_ca.issue(spec.session, https, datetime.datetime.now(datetime.UTC))
        _publish(places.SESSION_CA, authority)
    return [
        bind_slot(
            remote,
            spec.uids.servers[remote.name],
            Secret(randomness.token_urlsafe(32)),
            agent_gid=spec.uids.agent,
            certificate=certificates.get(remote.name),
        )
        for remote in spec.remotes
    ]


def _publish(path: str, text: str) -> None:
    """Write a file that all may read and only root can replace: its directory is root's alone."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
    with open(descriptor, "w", encoding="ascii") as file:
        os.fchmod(descriptor, 0o644)  # whatever the umask was
        file.write(text)


def bind_slot(
    remote: RemoteSpec, uid: int, bearer: Secret, *, agent_gid: int = 0, certificate: ListenCertificate | None = None
) -> Slot:
    """Bind the helper's listening socket as `remote.listen` says.

    On loopback at a port of the kernel's choice; or at `Slot.socket_path`, for root and the group `agent_gid` only.
    `ProcessError` where it cannot be bound.
    """
    try:
        if remote.listen == "unix":
            listener = accepting.bind_for_group(places.socket_path(remote.name), agent_gid)
        else:
            listener = _bind_loopback()
    except OSError as error:
        raise ProcessError(f"cannot bind the socket of server {remote.name}: {error.strerror}") from None
    listener.listen(_BACKLOG)
    return Slot(remote=remote, uid=uid, listener=listener, bearer=bearer, certificate=certificate)


def _bind_loopback() -> socket.socket:
    """Bind a port of the kernel's choice by its number: only then it stays ours once nobody listens on it."""
    for attempt in itertools.count(1):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as scout:
            scout.bind(("127.0.0.1", 0))
            address = scout.getsockname()
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            listener.bind(address)
        except OSError:  # somebody else was given it meanwhile
            listener.close()
            if attempt == _BINDS:
                raise
        else:
            return listener
    raise AssertionError("unreachable")
