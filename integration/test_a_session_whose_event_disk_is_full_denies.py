"""The session directory lies on a tiny file system that fills up: what cannot be recorded is denied until it can be."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import session_rig as rig
from codingagents.trust.events import Checkpoint, EventsGap, HelperStarting
from session_rig import Place, every_mode
from session_upstream import Upstream

pytest_plugins = ("session_fixtures",)  # where


SIZE = "64k"
LOG = "coding-agents: the event log"
CANNOT_BE_WRITTEN = f"{LOG} cannot be written (No space left on device); execs and grants are denied until it can"
PAGE = 4096  # bytes that the file system gives at a time


class Disk:
    """A file system of 16 pages, and a file that takes all that is left of it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._ballast = directory / "ballast"

    def fill(self) -> None:
        with open(self._ballast, "wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(1024))

    def free(self) -> None:
        self._ballast.unlink()


@pytest.fixture
def disk() -> Iterator[Disk]:
    with tempfile.TemporaryDirectory(prefix="session-disk-") as name:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE},mode=0700", "disk", name], check=True)
        try:
            yield Disk(Path(name).resolve())
        finally:
            subprocess.run(["umount", name], check=True)


@every_mode
def test_execs_and_helper_restarts_are_denied_while_the_log_cannot_be_written(
    mode: str, disk: Disk, where: Place
) -> None:
    """ENOSPC for the agent, no helper for its servers; both are back with the room, and one gap event tells of it."""
    with Upstream() as upstream, rig.start(mode, where, upstream.server("one"), directory=disk.directory) as session:
        assert session.answer() == "up"
        assert session.ask("post", "one")["status"] == 200
        helper = session.named("helper one")
        while session.log.stat().st_size % PAGE > PAGE // 3:  # leave room in the last page for short events
            assert session.ask("run", "/bin/true")["code"] == 0
        disk.fill()
        long = ("/bin/true", *["x" * 200] * 20)
        rig.wait_until(lambda: session.ask("run", *long)["errno"] == "ENOSPC", "the first denial", pause=0)
        for _ in range(5):  # for a short one there is room, but it does not end the outage
            assert session.ask("run", "/bin/true") == {"errno": "ENOSPC", "code": None}
            assert session.ask("run", *long) == {"errno": "ENOSPC", "code": None}
        assert session.ask("post", "one")["status"] == 200  # what was granted before goes on

        os.kill(helper, signal.SIGKILL)
        session.tell("post", "one")  # waits in the helper's backlog
        time.sleep(1)
        assert [pid for pid in session.pids() if rig.comm(pid) == "helper one"] == []
        assert [line for line in session.sentences() if "can be written again" in line] == []

        disk.free()
        begun = time.monotonic()
        assert session.answer()["status"] == 200
        assert time.monotonic() - begun < 6  # the longest backoff is 5 s
        assert session.ask("run", "/bin/true")["code"] == 0
        session.tell("leave", 0)
        assert session.wait() == 0
        assert session.verify().closed
        (gap,) = session.events(EventsGap)
        assert gap.reason == "No space left on device"
        assert gap.lost == sum(gap.lost_kinds.values())
        assert gap.lost_kinds["exec.allowed"] == 11
        assert gap.lost_kinds["helper.stopped"] == 1
        assert gap.lost_kinds["helper.starting"] >= 1
        assert [event.attempt for event in session.events(HelperStarting)] == [1, 2]
        assert session.sentences() == [
            CANNOT_BE_WRITTEN,
            f"{LOG} can be written again; {gap.lost} events were lost and are counted in it",
        ]
        session.assert_nothing_is_left()


@every_mode
def test_a_stop_while_the_log_cannot_be_written_is_a_stop(mode: str, disk: Disk, where: Place) -> None:
    """Nothing is left; what the log lacks is said, and what it has still verifies."""
    with rig.start(mode, where, "", directory=disk.directory) as session:
        assert session.answer() == "up"
        session.event(Checkpoint)  # what nobody signed proves nothing
        disk.fill()
        rig.wait_until(lambda: session.ask("run", "/bin/true")["errno"] == "ENOSPC", "the first denial", pause=0)
        session.signal(signal.SIGTERM)
        assert session.wait() == 128 + signal.SIGTERM
        disk.free()
        session.assert_nothing_is_left()
        # The last page may have had room for the gap, but not for the end as well.
        said = [line for line in session.sentences() if not line.startswith(f"{LOG} can be written again; ")]
        assert said == [CANNOT_BE_WRITTEN, f"{LOG} lacks its end: No space left on device"]
        assert session.verify(open_ok=True).events == len(session.records())
