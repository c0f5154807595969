"""The log on real descriptors: what is lost is told once, nothing is torn, checkpoints come in time."""

import base64
import errno
import functools
import os
import resource
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from codingagents.supervisor.event_log import CHECKPOINT_EVERY, EventLog
from codingagents.trust import checkpoint
from codingagents.trust.encoding import Record, decode_line
from codingagents.trust.errors import EventLogError
from codingagents.trust.events import Checkpoint, EventsGap, HelperFailed, HelperStarting, SessionEnded
from codingagents.trust.verify import Verified, verify_log
from codingagents.trust.vocabulary import SessionId

SESSION = SessionId("s-1")
KEY = checkpoint.new_key(b"\1" * 32)
START = datetime(2026, 11, 24, tzinfo=UTC)
ENDED = SessionEnded(exit_code=0, reason="done")


def event(reason: str = "a") -> HelperFailed:
    return HelperFailed(server="s", reason=reason)


class Bench:
    """A log on a file, whose clock goes on by a second whenever it is read."""

    def __init__(self, path: Path, *, complain: Callable[[str], None] | None = None) -> None:
        self.path = path
        self.descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self.notes: list[str] = []
        self.troubles: list[str] = []
        self.ticks = 0
        sign = functools.partial(checkpoint.sign_checkpoint, KEY, session=SESSION)
        self.log = EventLog(
            self.descriptor,
            SESSION,
            sign,
            on_checkpoint=self.notes.append,
            on_trouble=complain or self.troubles.append,
            now=self.now,
        )

    def now(self) -> datetime:
        self.ticks += 1
        return START + timedelta(seconds=self.ticks)

    @contextmanager
    def unwritable(self) -> Iterator[None]:
        """Put /dev/full in the file's place: every write is ENOSPC, and nothing of it is written."""
        kept = os.dup(self.descriptor)
        full = os.open("/dev/full", os.O_WRONLY)
        os.dup2(full, self.descriptor)
        os.close(full)
        yield
        os.dup2(kept, self.descriptor)
        os.close(kept)

    def records(self) -> list[Record]:
        return [decode_line(line) for line in self.path.read_bytes().splitlines()]

    def kinds(self) -> list[str]:
        return [type(record.event).__name__ for record in self.records()]

    def verify(self) -> Verified:
        lines = self.path.read_bytes().splitlines()
        return verify_log(lines, checkpoint.public_key(KEY), last_known=self.notes[-1] if self.notes else None)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path / "events.jsonl")


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Let no file of this process grow past `size` bytes: a write that crosses it is cut short, the next is EFBIG."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_what_is_appended_is_there_when_append_returns(bench: Bench) -> None:
    for reason in ("a", "b", "c"):
        bench.log.append(event(reason))
        assert bench.records()[-1].event == event(reason)
    bench.log.close(ENDED)
    assert bench.kinds() == ["HelperFailed"] * 3 + ["SessionEnded", "Checkpoint"]
    verified = bench.verify()
    assert (verified.events, verified.covered, verified.closed) == (5, 5, True)
    assert bench.troubles == []


def test_a_checkpoint_comes_with_every_so_many_events_and_covers_them(bench: Bench) -> None:
    for _ in range(2 * CHECKPOINT_EVERY):
        bench.log.append(event())
    kinds = bench.kinds()
    assert [at for at, kind in enumerate(kinds) if kind == "Checkpoint"] == [CHECKPOINT_EVERY, 2 * CHECKPOINT_EVERY + 1]
    assert len(bench.notes) == 2
    assert checkpoint.open_checkpoint(bench.notes[0], checkpoint.public_key(KEY)).size == CHECKPOINT_EVERY


def test_a_checkpoint_on_demand_covers_what_is_new_and_nothing_else(bench: Bench) -> None:
    bench.log.checkpoint()
    assert bench.kinds() == []
    bench.log.append(event())
    bench.log.checkpoint()
    bench.log.checkpoint()
    assert bench.kinds() == ["HelperFailed", "Checkpoint"]
    assert isinstance(last := bench.records()[-1].event, Checkpoint)
    assert bench.notes == [last.note]


def test_what_cannot_be_written_is_refused_and_later_told_in_one_gap(bench: Bench) -> None:
    bench.log.append(event())
    with bench.unwritable():
        for _ in range(3):
            with pytest.raises(EventLogError, match="No space left on device"):
                bench.log.append(event("lost"))
        with pytest.raises(EventLogError):
            bench.log.append(HelperStarting(server="s", user_id=1, attempt=1))
        bench.log.checkpoint()
    bench.log.append(event("back"))
    bench.log.append(event("and on"))
    bench.log.close(ENDED)
    assert bench.kinds() == ["HelperFailed", "EventsGap", "HelperFailed", "HelperFailed", "SessionEnded", "Checkpoint"]
    gap = bench.records()[1].event
    assert isinstance(gap, EventsGap)
    assert (gap.lost, gap.lost_kinds) == (4, {"helper.failed": 3, "helper.starting": 1})
    assert gap.reason == os.strerror(errno.ENOSPC)
    assert bench.records()[0].time < gap.since < bench.records()[1].time
    bench.verify()


def test_the_operator_hears_once_that_writing_stopped_and_once_that_it_goes_on(bench: Bench) -> None:
    with bench.unwritable():
        for _ in range(3):
            with pytest.raises(EventLogError):
                bench.log.append(event())
    bench.log.append(event())
    assert len(bench.troubles) == 2
    assert "denied until it can" in bench.troubles[0]
    assert "3 events were lost" in bench.troubles[1]


def test_two_stops_are_two_gaps(bench: Bench) -> None:
    for _ in range(2):
        with bench.unwritable(), pytest.raises(EventLogError):
            bench.log.append(event("lost"))
        bench.log.append(event())
    assert bench.kinds() == ["EventsGap", "HelperFailed"] * 2
    assert all(record.event.lost == 1 for record in bench.records() if isinstance(record.event, EventsGap))


@pytest.mark.parametrize("room", [1, 50, 200])
def test_a_line_that_fits_only_in_part_leaves_nothing(bench: Bench, room: int) -> None:
    bench.log.append(event())
    before = bench.path.read_bytes()
    with file_size_limit(len(before) + room):
        for _ in range(2):
            with pytest.raises(EventLogError, match=os.strerror(errno.EFBIG)):
                bench.log.append(event())
            assert bench.path.read_bytes() == before
    bench.log.append(event())
    bench.log.close(ENDED)
    assert bench.kinds() == ["HelperFailed", "EventsGap", "HelperFailed", "SessionEnded", "Checkpoint"]
    bench.verify()


def test_a_gap_that_fits_without_what_follows_it_is_true_all_the_same(bench: Bench) -> None:
    """The gap is written, the event is not: it is lost anew, and the next gap counts it."""
    with bench.unwritable(), pytest.raises(EventLogError):
        bench.log.append(event())
    with file_size_limit(700), pytest.raises(EventLogError):
        bench.log.append(event("x" * 600))
    assert bench.kinds() == ["EventsGap"]
    bench.log.append(event())
    gaps = [record.event for record in bench.records() if isinstance(record.event, EventsGap)]
    assert [gap.lost for gap in gaps] == [1, 1]
    assert bench.kinds() == ["EventsGap", "EventsGap", "HelperFailed"]


def test_a_torn_line_that_could_not_be_cut_off_at_once_is_cut_off_before_the_next(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.log.append(event())
    before = bench.path.read_bytes()

    def broken(descriptor: int, size: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with file_size_limit(len(before) + 10), monkeypatch.context() as patch:
        patch.setattr(os, "ftruncate", broken)
        with pytest.raises(EventLogError):
            bench.log.append(event())
        assert len(bench.path.read_bytes()) == len(before) + 10
        with pytest.raises(EventLogError):
            bench.log.append(event())
    bench.log.append(event())
    bench.log.close(ENDED)
    assert bench.kinds() == ["HelperFailed", "EventsGap", "HelperFailed", "SessionEnded", "Checkpoint"]
    bench.verify()


def test_a_checkpoint_that_could_not_be_written_is_made_up_for(bench: Bench) -> None:
    for _ in range(CHECKPOINT_EVERY - 1):
        bench.log.append(event())
    with file_size_limit(bench.path.stat().st_size + 400):
        bench.log.append(event())
        assert bench.notes == []
    bench.log.append(event())
    assert bench.kinds()[-2:] == ["HelperFailed", "Checkpoint"]
    assert checkpoint.open_checkpoint(bench.notes[0], checkpoint.public_key(KEY)).size == CHECKPOINT_EVERY + 1


def test_an_event_that_no_reader_would_accept_is_refused_and_loses_nothing_else(bench: Bench) -> None:
    with pytest.raises(EventLogError, match="UTF-8"):
        bench.log.append(event("\udc80"))
    bench.log.append(event())
    assert bench.kinds() == ["HelperFailed"]


@pytest.mark.parametrize("final", [ENDED, None])
def test_closing_without_room_is_said_and_does_not_raise(bench: Bench, final: SessionEnded | None) -> None:
    bench.log.append(event())
    kept = bench.path.read_bytes()
    full = os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, bench.descriptor)
    os.close(full)
    bench.log.close(final)
    assert bench.path.read_bytes() == kept
    assert bench.troubles
    assert all("the event log lacks its" in sentence for sentence in bench.troubles)


def test_a_closed_log_writes_to_no_other_file_that_got_its_number(bench: Bench, tmp_path: Path) -> None:
    bench.log.close(ENDED)
    other = os.open(tmp_path / "other", os.O_WRONLY | os.O_CREAT)
    try:
        assert other == bench.descriptor
        with pytest.raises(EventLogError, match="the event log is closed"):
            bench.log.append(event())
        assert (tmp_path / "other").read_bytes() == b""
        assert bench.troubles == []
    finally:
        os.close(other)


def test_a_complaint_that_cannot_be_made_stops_nothing(tmp_path: Path) -> None:
    """Standard error can be a pipe that the agent has filled and made non-blocking."""

    def complain(sentence: str) -> None:
        raise BlockingIOError(errno.EAGAIN, "the pipe is full")

    bench = Bench(tmp_path / "events.jsonl", complain=complain)
    with bench.unwritable(), pytest.raises(EventLogError):
        bench.log.append(event())
    bench.log.append(event())
    assert bench.kinds() == ["EventsGap", "HelperFailed"]


def test_threads_that_append_at_once_make_one_chain(bench: Bench) -> None:
    threads, each = 8, 100
    gate = threading.Barrier(threads)

    def work(name: int) -> None:
        gate.wait()
        for number in range(each):
            bench.log.append(event(f"{name}/{number}"))

    workers = [threading.Thread(target=work, args=(name,)) for name in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    bench.log.close(ENDED)
    bench.verify()
    reasons = [record.event.reason for record in bench.records() if isinstance(record.event, HelperFailed)]
    assert len(reasons) == threads * each
    for name in range(threads):  # in the order in which each thread made them
        assert [reason for reason in reasons if reason.startswith(f"{name}/")] == [f"{name}/{n}" for n in range(each)]


def test_the_notes_hold_the_root_over_the_lines_before_them(bench: Bench) -> None:
    bench.log.append(event())
    bench.log.close(None)
    note = checkpoint.open_checkpoint(bench.notes[-1], checkpoint.public_key(KEY))
    assert (note.size, note.session) == (1, SESSION)
    assert base64.b64encode(note.root).decode() in bench.notes[-1]
    assert note.time == bench.records()[-1].time
