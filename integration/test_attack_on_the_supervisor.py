"""An agent that wants the supervisor to hang, to hear nothing, or to be outlived."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import session_rig as rig
from full_disk import fill, small_disk
from session_rig import Session, every_mode

FILL_STDERR = """
import os
os.set_blocking(2, False)
for size in (4096, 1):
    try:
        while True:
            os.write(2, b"x" * size)
    except BlockingIOError:
        pass
os.set_blocking(2, True)
"""


def end_with_a_full_disk(session: Session, disk: Path) -> None:
    """Have the supervisor complain of its event log, and stop it."""
    fill(disk)
    rig.wait_until(lambda: session.ask("run", "/bin/true")["errno"] == "ENOSPC", "the log's last page")
    session.signal(signal.SIGTERM)


@every_mode
def test_a_standard_error_that_takes_nothing_more_does_not_hold_up_the_end(mode: str) -> None:
    """The agent fills the pipe that it shares with the supervisor, which then has something to say about its log.

    The control is the same with room in the pipe: the sentence comes.
    """
    with small_disk(256) as disk, rig.place() as where:
        with rig.start(mode, where, "", directory=disk / "full") as session:
            assert session.answer() == "up"
            assert session.ask("run", "/usr/bin/python3", "-I", "-c", FILL_STDERR)["code"] == 0
            end_with_a_full_disk(session, disk)
            rig.wait_until(lambda: not session.supervisors(), "the supervisor's end")
            assert "event log" not in session.stderr()
            assert session.wait() == 128 + signal.SIGTERM
            session.assert_nothing_is_left()
        os.unlink(disk / "ballast")
        with rig.start(mode, where, "", directory=disk / "room") as session:
            assert session.answer() == "up"
            end_with_a_full_disk(session, disk)
            assert session.wait() == 128 + signal.SIGTERM
            assert "the event log cannot be written (No space left on device)" in session.stderr()
