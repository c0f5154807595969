"""SHELL: who is at the other end of a local connection, as the kernel tells it. The parsing is pure.

For loopback TCP, NETLINK_SOCK_DIAG (sock_diag(7)) is asked for the *client's* socket. The kernel answers inside the
sendto call, so the answer is there when it returns, and one that is not there counts as a refusal. Only an established
socket that still belongs to a process has an owner to speak of: the kernel reports UID 0 and inode 0 for one whose
process has closed it, so every other state is refused, root or not. An answer holds for the network namespace that the
netlink socket was opened in.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from typing import NamedTuple

from codingagents.trust.errors import ProcessError

NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_NLM_F_REQUEST = 1
_TCP_ESTABLISHED = 1
_ALL_STATES = 0xFFFFFFFF
_NO_COOKIE = b"\xff" * 8

_HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port id
# inet_diag_req_v2: family, protocol, extensions, padding, states, then inet_diag_sockid
_REQUEST = struct.Struct("=BBBxI")
_PORTS = struct.Struct("!HH")
# inet_diag_msg after its sockid: expires, rqueue, wqueue, uid, inode
_TAIL = struct.Struct("=IIIII")
_SOCKID_BYTES = 48
_ADDRESS_BYTES = 16
_MAPPED = bytes(10) + b"\xff\xff"  # RFC 4291 2.5.5.2: how an IPv6 socket calls an IPv4 address

Address = tuple[str, int]


class Owner(NamedTuple):
    """What the kernel says of a socket."""

    established: bool
    uid: int
    inode: int


def question(client: Address, server: Address, sequence: int) -> bytes:
    """Return the netlink message that asks for the TCP socket at `client` that is connected to `server`."""
    family = socket.AF_INET6 if ":" in client[0] else socket.AF_INET
    body = (
        _REQUEST.pack(family, socket.IPPROTO_TCP, 0, _ALL_STATES)
        + _sockids(client, server)[family]
        + bytes(4)  # interface: any
        + _NO_COOKIE
    )
    return _HEADER.pack(_HEADER.size + len(body), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, sequence, 0) + body


def _sockids(client: Address, server: Address) -> dict[int, bytes]:
    """Return what the kernel may call the connection, by address family."""
    ports = _PORTS.pack(client[1], server[1])
    if ":" in client[0]:
        return {
            socket.AF_INET6: ports + b"".join(socket.inet_pton(socket.AF_INET6, host) for host, _ in (client, server))
        }
    addresses = [socket.inet_aton(host) for host, _ in (client, server)]
    return {
        socket.AF_INET: ports + b"".join(address.ljust(_ADDRESS_BYTES, b"\0") for address in addresses),
        socket.AF_INET6: ports + b"".join(_MAPPED + address for address in addresses),
    }


def parse_answer(data: bytes, client: Address, server: Address, sequence: int) -> Owner | None:
    """Return the owner that `data` names; None for an error (no such socket), nonsense, or another question's."""
    if len(data) < _HEADER.size + 4 + _SOCKID_BYTES + _TAIL.size:
        return None
    _, kind, _, answered, _ = _HEADER.unpack_from(data)
    if kind != _SOCK_DIAG_BY_FAMILY or answered != sequence:
        return None
    family, state = data[_HEADER.size], data[_HEADER.size + 1]
    at = _HEADER.size + 4
    if data[at : at + _PORTS.size + 2 * _ADDRESS_BYTES] != _sockids(client, server).get(family):
        return None
    _, _, _, uid, inode = _TAIL.unpack_from(data, at + _SOCKID_BYTES)
    return Owner(state == _TCP_ESTABLISHED, uid, inode)


def allowed(owner: Owner | None, expected_uid: int) -> bool:
    """Say whether the uid gate lets `owner` through."""
    return owner is not None and owner.established and owner.inode != 0 and owner.uid == expected_uid


class PeerUid:
    """Asks the kernel; holds one netlink socket."""

    def __init__(self, sock_diag: socket.socket | None = None) -> None:
        """Ask over `sock_diag`, this process's alone, in whose namespace the answers hold; else in this process's own.

        Needs no privilege. Raises `ProcessError` where the socket is not one that the kernel answers on.
        """
        if sock_diag is None:
            sock_diag = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, NETLINK_SOCK_DIAG)
        elif (sock_diag.family, sock_diag.proto) != (socket.AF_NETLINK, NETLINK_SOCK_DIAG):
            raise ProcessError("the third descriptor of a helper must be a NETLINK_SOCK_DIAG socket")
        self._socket = sock_diag
        self._socket.setblocking(False)
        self._socket.connect((0, 0))  # the kernel; nobody else can answer
        self._sequence = 0
        with contextlib.suppress(BlockingIOError):
            while self._socket.recv(8192):
                pass  # answers to whoever held the socket before

    def owner(self, client: Address, server: Address) -> Owner | None:
        """Return who owns the socket at `client`, or None where the kernel does not say so at once."""
        self._sequence = (self._sequence + 1) & 0xFFFFFFFF
        try:
            self._socket.send(question(client, server, self._sequence))
            while data := self._socket.recv(8192):
                if len(data) >= _HEADER.size and _HEADER.unpack_from(data)[3] == self._sequence:
                    return parse_answer(data, client, server, self._sequence)
        except OSError:
            return None
        return None

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
