"""SHELL: unix sockets at a name in a directory, for the owner of the process alone. Accepts nobody; no policy."""

from __future__ import annotations

import os
import socket


def address(place: int, name: str) -> str:
    """Return the address of `name` in the directory `place`: one that fits sun_path (108 bytes) wherever that is."""
    return f"/proc/self/fd/{place}/{name}"


def bind(place: int, name: str, backlog: int) -> socket.socket:
    """Return a socket there, listening and its owner's alone; before `listen` nobody can connect. Raises `OSError`."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(address(place, name))
        os.chmod(name, 0o600, dir_fd=place)
        listener.listen(backlog)
    except OSError:
        listener.close()
        raise
    return listener
