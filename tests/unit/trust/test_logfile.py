from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from codingagents.trust.encoding import MAX_EVENT_LINE
from codingagents.trust.errors import ChainError, NotFoundError, UsageError
from codingagents.trust.logfile import follow_lines, read_lines


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "events.log"


def test_lines_come_without_newlines_and_empty_ones_are_kept(log: Path) -> None:
    log.write_bytes(b"one\n\nthree\n")
    assert list(read_lines(str(log))) == [b"one", b"", b"three"]
    log.write_bytes(b"")
    assert list(read_lines(str(log))) == []


def test_a_log_is_read_across_chunks(log: Path) -> None:
    lines = [bytes([65 + index % 26]) * (MAX_EVENT_LINE // 3) for index in range(8)]
    log.write_bytes(b"".join(line + b"\n" for line in lines))
    assert list(read_lines(str(log))) == lines


def test_a_torn_last_line_is_named_or_left_out_of_an_open_log(log: Path) -> None:
    log.write_bytes(b"one\ntwo\nthr")
    with pytest.raises(ChainError, match="newline") as torn:
        list(read_lines(str(log)))
    assert torn.value.line == 3
    assert list(read_lines(str(log), open_ok=True)) == [b"one", b"two"]


def test_the_longest_line_is_read_and_a_longer_one_is_named(log: Path) -> None:
    log.write_bytes(b"one\n" + b"x" * MAX_EVENT_LINE + b"\n")
    assert [len(line) for line in read_lines(str(log))] == [3, MAX_EVENT_LINE]
    log.write_bytes(b"one\n" + b"x" * (MAX_EVENT_LINE + 1) + b"\n")
    with pytest.raises(ChainError, match="longer") as long:
        list(read_lines(str(log)))
    assert long.value.line == 2


def steps(*actions: Callable[[], object]) -> Callable[[], bool]:
    """A `wait` that does one action each time and then says that it is over."""
    left = list(actions)

    def wait() -> bool:
        if not left:
            return False
        left.pop(0)()
        return True

    return wait


def append(log: Path, data: bytes) -> Callable[[], object]:
    def write() -> None:
        with log.open("ab") as file:
            file.write(data)

    return write


def test_following_gives_each_line_once_it_is_complete(log: Path) -> None:
    log.write_bytes(b"one\ntw")
    wait = steps(append(log, b"o\nth"), append(log, b"ree"), append(log, b"\n"))
    assert list(follow_lines(str(log), wait)) == [b"one", b"two", b"three"]


def test_a_torn_line_that_its_writer_took_back_is_not_shown(log: Path) -> None:
    log.write_bytes(b"one\ntorn line")
    wait = steps(lambda: os.truncate(log, 4), append(log, b"other\n"))
    assert list(follow_lines(str(log), wait)) == [b"one", b"other"]


def test_lines_that_vanish_after_they_were_read_are_an_error(log: Path) -> None:
    log.write_bytes(b"one\ntwo\n")
    with pytest.raises(ChainError, match="shorter") as shorter:
        list(follow_lines(str(log), steps(lambda: os.truncate(log, 4))))
    assert shorter.value.line == 3


def test_what_is_no_log_is_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no event log"):
        list(read_lines(str(tmp_path / "none")))
    with pytest.raises(UsageError, match="regular"):
        list(read_lines(str(tmp_path)))
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(UsageError, match="regular"):
        list(read_lines(str(tmp_path / "fifo")))
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(UsageError, match="cannot be read"):
        list(read_lines(str(tmp_path / "loop")))
    with pytest.raises(UsageError, match="not a path"):
        list(read_lines("a\0b"))


def test_the_file_is_closed_when_reading_stops_early(log: Path) -> None:
    log.write_bytes(b"one\ntwo\n")
    before = len(os.listdir("/proc/self/fd"))
    lines = read_lines(str(log))
    assert next(lines) == b"one"
    lines.close()  # type: ignore[attr-defined]  # a generator
    assert len(os.listdir("/proc/self/fd")) == before
