"""On a disk that is really full: refused while there is no room, nothing torn, one gap that counts, a chain that holds.

`tests/unit/supervisor/test_event_log.py` has the same by file size limits, where each cut can be placed.
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from codingagents.rewrite import places
from codingagents.supervisor.event_log import EventLog
from codingagents.supervisor.sessionfiles import open_event_log
from codingagents.trust import checkpoint
from codingagents.trust.encoding import decode_line
from codingagents.trust.errors import EventLogError
from codingagents.trust.events import AnyEvent, EventsGap, HelperFailed, HelperStarting, SessionEnded
from codingagents.trust.verify import Verified, verify_log
from codingagents.trust.vocabulary import SessionId
from full_disk import fill, small_disk

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")

SESSION = SessionId("full-disk")
KEY = checkpoint.new_key(b"\3" * 32)
ENDED = SessionEnded(exit_code=0, reason="done")


class Bench:
    def __init__(self, disk: Path) -> None:
        self.path = disk / places.EVENT_LOG
        self.notes: list[str] = []
        self.log = EventLog(
            open_event_log(str(disk)),
            SESSION,
            functools.partial(checkpoint.sign_checkpoint, KEY, session=SESSION),
            on_checkpoint=self.notes.append,
        )

    def events(self) -> list[AnyEvent]:
        return [decode_line(line).event for line in self.path.read_bytes().splitlines()]

    def gaps(self) -> list[EventsGap]:
        return [event for event in self.events() if isinstance(event, EventsGap)]

    def assert_nothing_is_torn(self) -> Verified:
        data = self.path.read_bytes()
        assert data.endswith(b"\n")
        note = self.notes[-1] if self.notes else None
        return verify_log(data.splitlines(), checkpoint.public_key(KEY), last_known=note, open_ok=True)


@pytest.fixture
def disk() -> Iterator[Path]:
    with small_disk(kilobytes=512) as path:
        yield path


def event(reason: str) -> HelperFailed:
    return HelperFailed(server="s", reason=reason)


@pytest.mark.parametrize("size", [1, 333, 5000])
def test_what_finds_no_room_is_counted_and_the_rest_holds(disk: Path, size: int) -> None:
    bench = Bench(disk)
    bench.log.append(event("before"))
    bench.log.checkpoint()
    ballast = fill(disk)
    appended, lost = 1, 0
    while not lost:
        try:
            bench.log.append(event("x" * size))
            appended += 1
        except EventLogError:
            lost += 1
        bench.assert_nothing_is_torn()
    for _ in range(4):
        with pytest.raises(EventLogError, match="No space left on device"):
            bench.log.append(HelperStarting(server="s" * 5000, user_id=1, attempt=1))
        bench.log.checkpoint()
        bench.assert_nothing_is_torn()
    ballast.unlink()
    bench.log.append(event("after"))
    bench.log.append(event("and on"))
    bench.log.close(ENDED)
    kinds = Counter(type(event).__name__ for event in bench.events())
    assert kinds["HelperFailed"] == appended + 2
    assert [(gap.lost, gap.lost_kinds) for gap in bench.gaps()] == [(5, {"helper.failed": 1, "helper.starting": 4})]
    assert bench.assert_nothing_is_torn().closed


def test_threads_that_share_a_disk_which_fills_and_empties_lose_nothing_uncounted(disk: Path) -> None:
    bench = Bench(disk)
    threads, each = 4, 150
    recorded: list[list[str]] = [[] for _ in range(threads)]
    lost = [0] * threads
    halfway = threading.Barrier(threads + 1)

    def work(number: int) -> None:
        for count in range(each):
            if count == each // 2:
                halfway.wait()  # the disk becomes full
                halfway.wait()
            reason = f"{number}/{count}"
            try:
                bench.log.append(event(reason))
                recorded[number].append(reason)
            except EventLogError:
                lost[number] += 1
            if count == each * 3 // 4:
                with contextlib.suppress(FileNotFoundError):
                    (disk / "ballast").unlink()

    workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    for worker in workers:
        worker.start()
    halfway.wait()
    fill(disk)
    halfway.wait()
    for worker in workers:
        worker.join()
    bench.log.close(ENDED)
    assert bench.assert_nothing_is_torn().closed
    assert sum(lost) > 0, "the disk was never full"
    assert sum(gap.lost for gap in bench.gaps()) == sum(lost)
    reasons = [event.reason for event in bench.events() if isinstance(event, HelperFailed)]
    for number in range(threads):
        assert [reason for reason in reasons if reason.startswith(f"{number}/")] == recorded[number]


def test_a_session_that_ends_on_a_full_disk_leaves_a_log_that_holds_up_to_there(disk: Path) -> None:
    bench = Bench(disk)
    bench.log.append(event("before"))
    bench.log.checkpoint()
    fill(disk)
    with pytest.raises(EventLogError):
        bench.log.append(event("x" * 5000))
    bench.log.close(SessionEnded(exit_code=0, reason="x" * 5000))
    verified = bench.assert_nothing_is_torn()
    assert [type(event).__name__ for event in bench.events()] == ["HelperFailed", "Checkpoint", "EventsGap"]
    assert (verified.covered, verified.closed) == (2, False)
