"""SHELL: options of the TCP sockets of a helper, the same on both of its legs. Opens and closes nothing."""

from __future__ import annotations

import socket

# A peer that vanished without a word is found within two minutes, on streams on which nobody sends for hours.
_OPTIONS = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60),  # seconds of silence before the first probe
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15),  # seconds between probes
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4),  # probes without an answer
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),  # an event leaves when it is there
)


def set_options(tcp: socket.socket) -> None:
    """Set keep-alive and TCP_NODELAY on `tcp`; what a listener accepts inherits them (Linux)."""
    for level, option, value in _OPTIONS:
        tcp.setsockopt(level, option, value)
