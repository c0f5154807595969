"""SHELL: what getaddrinfo(3) reads of this machine, found before a helper can look no more.

Resolves nothing. The rules made of these paths are of the files that are there now (landlock(7)). A resolver that
replaces its file does so in a directory of its own, which is therefore allowed as a whole; /etc is not.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re

_FILES = ("/etc/hosts", "/etc/nsswitch.conf", "/etc/resolv.conf", "/etc/gai.conf", "/etc/host.conf")


def readable_paths() -> list[str]:
    """Return the files that are there, links resolved, and for a linked one that lies outside /etc its directory."""
    found = []
    for path in _FILES:
        target = os.path.realpath(path)
        folder = os.path.dirname(target)
        own_folder = folder.count("/") > 1 and not folder.startswith("/etc/")
        if os.path.exists(target):
            found.append(folder if own_folder else target)
    return found


def preload() -> None:
    """Load the modules that nsswitch.conf(5) names for hosts: a helper can map no library any more.

    Best effort: one that is missing is missing for getaddrinfo(3) too, which goes on to the next.
    """
    services: list[str] = []
    with contextlib.suppress(OSError), open("/etc/nsswitch.conf", encoding="utf-8", errors="replace") as file:
        for line in file:
            if line.startswith("hosts:"):
                services = re.findall(r"[a-z0-9_]+", re.sub(r"\[.*?\]|#.*", "", line.removeprefix("hosts:")))
    for service in services or ["files", "dns"]:
        with contextlib.suppress(OSError):
            ctypes.CDLL(f"libnss_{service}.so.2")
