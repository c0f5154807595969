"""Runs an init in every way it can be one: as PID 1 of a new PID namespace, and as a subreaper.

    @every_mode
    def test_…(mode: Mode) -> None:
        with mode.start([*INIT, "--", "sleep", "60"]) as init:
            init.signal(signal.SIGTERM)
            assert init.wait() == 143

Every process below an init carries a marker in its environment, so that a test can say what is left of it.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any

import pytest

SUPERVISOR = (sys.executable, "-I", "-m", "codingagents.supervisor")
INIT = (*SUPERVISOR, "init")
PATIENCE = 10.0  # seconds; only a failing test waits that long
_MARKER = "INIT_UNDER_TEST"


def wait_until(condition: Any, what: str) -> Any:
    """Return the first true value of `condition()`, or fail with `what`."""
    deadline = time.monotonic() + PATIENCE
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        time.sleep(0.01)
    return value


def stat_fields(pid: int) -> list[str]:
    """Return /proc/PID/stat from the state on: state, ppid, pgrp, session, …; empty where there is no such process."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def all_pids() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]


def children_of(pid: int) -> list[int]:
    return [child for child in all_pids() if stat_fields(child)[1:2] == [str(pid)]]


class Init:
    """One running init, seen from outside."""

    def __init__(self, process: subprocess.Popen[bytes], pid: int, marker: str) -> None:
        self.process = process
        self.pid = pid  # init's own, as this process sees it
        self._marker = marker.encode()
        self._buffer = b""

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait(self) -> int:
        """Return what the shell would see: 128 + N where the process itself died by signal N."""
        code = self.process.wait(PATIENCE)
        return code if code >= 0 else 128 - code

    def line(self, stream: IO[bytes] | None = None) -> str:
        """Return the next line of its standard output; fails where none comes."""
        source = stream or self.process.stdout
        assert source is not None
        while b"\n" not in self._buffer:
            ready, _, _ = select.select([source], [], [], PATIENCE)
            assert ready, f"no line came; pending: {self._buffer!r}"
            data = os.read(source.fileno(), 65536)
            assert data, f"end of output; pending: {self._buffer!r}"
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.decode()

    def zombies(self) -> list[int]:
        return [pid for pid in children_of(self.pid) if stat_fields(pid)[:1] == ["Z"]]

    def left(self) -> list[int]:
        """Return every process that was started below this init and still runs."""
        found = []
        for pid in all_pids():
            try:
                with open(f"/proc/{pid}/environ", "rb") as file:
                    if self._marker in file.read().split(b"\0"):
                        found.append(pid)
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue
        return found


@dataclass(frozen=True)
class Mode:
    """A way to be init; `prefix` comes before the program's argv."""

    name: str
    prefix: tuple[str, ...]

    @property
    def is_pid1(self) -> bool:
        return bool(self.prefix)

    @contextlib.contextmanager
    def start(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        stdin: Any = subprocess.DEVNULL,
        stdout: Any = subprocess.PIPE,
        stderr: Any = None,
        **options: Any,
    ) -> Iterator[Init]:
        """Start `argv` as an init; when the block ends, it and all below it are killed."""
        marker = f"{_MARKER}={secrets.token_hex(8)}"
        environment = {**(os.environ if env is None else env), _MARKER: marker.partition("=")[2]}
        process = subprocess.Popen(
            [*self.prefix, *argv], env=environment, stdin=stdin, stdout=stdout, stderr=stderr, **options
        )
        init = Init(process, process.pid, marker)
        try:
            if self.is_pid1:
                init.pid = wait_until(lambda: children_of(process.pid) or process.poll() is not None, "a namespace")[0]
            yield init
        finally:
            for pid in init.left():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.wait(PATIENCE)
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None:
                    stream.close()


MODES = (
    Mode("pid1", ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")),
    Mode("subreaper", ()),
)
every_mode = pytest.mark.parametrize("mode", MODES, ids=[mode.name for mode in MODES])
