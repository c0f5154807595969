"""A file that is to be executed, on real files: nothing is opened for its sake, and what keeps its bytes is known."""

import fcntl
import mmap
import os
import signal
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from codingagents.supervisor import kernel
from codingagents.supervisor.programs import Program, local_mounts

SECOND = 10**9
STAMPS = 5  # CLOCK_REALTIME_COARSE, by which file systems tell the time
OF_ROOT = kernel.Stat(mode=stat.S_IFREG | 0o755, uid=0, size=1, device=1, inode=1, mtime=0, ctime=0, mount=7)


def program(path: Path) -> Program:
    return Program(os.open(path, os.O_PATH))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    path.chmod(0o755)
    return path


def wait_for_another_time(held: Program) -> None:
    """By the clock of file systems, for a few milliseconds at most."""
    while time.clock_gettime_ns(STAMPS) <= held.seen.ctime:
        pass


@contextmanager
def leased(path: Path) -> Iterator[None]:
    """Whoever opens the file waits until this process gives way, or fails by `O_NONBLOCK`."""
    handler = signal.signal(signal.SIGIO, signal.SIG_IGN)
    try:
        with path.open("rb+") as file:
            fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
            yield
    finally:
        signal.signal(signal.SIGIO, handler)


def test_the_very_file_is_read_whatever_its_name_leads_to_by_then(file: Path) -> None:
    with program(file) as held:
        file.rename(file.with_name("elsewhere"))
        file.write_bytes(b"another")
        assert held.head(4) == b"0123"
        assert held.head(99) == b"0123456789"
    with program(file) as held:
        file.unlink()
        assert held.head(99) == b"another"


def test_it_is_read_in_pieces_up_to_the_size_that_was_seen(file: Path) -> None:
    with program(file) as held:
        pieces: list[bytes] = []
        with file.open("ab") as more:
            more.write(b"more")
        assert held.read_all(pieces.append, chunk=4) == 10
        assert pieces == [b"0123", b"4567", b"89"]
        file.write_bytes(b"less")
        assert held.read_all(pieces.append, chunk=4) == 4


@pytest.mark.parametrize("change", ["written", "mode", "times", "unlinked", "renamed over"])
def test_whatever_is_done_to_it_is_a_change(file: Path, change: str) -> None:
    with program(file) as held:
        wait_for_another_time(held)
        assert not held.changed()
        match change:
            case "written":
                file.write_bytes(b"1234567890")
            case "mode":
                file.chmod(0o700)
            case "times":
                os.utime(file, ns=(1, 1))
            case "unlinked":
                file.unlink()
            case _:
                file.with_name("new").write_bytes(b"0123456789")
                file.with_name("new").rename(file)
        assert held.changed()


def test_a_store_into_memory_that_was_mapped_and_stored_to_does_not_show(file: Path) -> None:
    """The limit of what a change time tells; hence whose files keep their bytes."""
    with file.open("rb+") as opened, mmap.mmap(opened.fileno(), 0) as mapped:
        mapped[0] = ord("a")
        with program(file) as held:
            mapped[0] = ord("b")
            assert not held.changed()
            assert held.head(1) == b"b"
            wait_for_another_time(held)
            opened.write(b"c")
            opened.flush()
            assert held.changed(), "the control: a write(2) does"


def test_a_name_of_records_has_device_inode_and_modification_time(file: Path) -> None:
    seen = file.stat()
    with program(file) as held:
        assert held.identity == f"{seen.st_dev}:{seen.st_ino}:{seen.st_mtime_ns}"


@pytest.mark.parametrize("kind", ["directory", "FIFO"])
def test_only_a_regular_file_is_one(tmp_path: Path, kind: str) -> None:
    """Nobody writes to the FIFO: whoever opened it would wait for ever."""
    path = tmp_path / "it"
    path.mkdir() if kind == "directory" else os.mkfifo(path)
    with program(path) as held:
        assert not held.is_regular
        with pytest.raises(AssertionError):
            held.head(1)


def test_a_file_under_a_lease_holds_up_nobody(file: Path) -> None:
    """Its owner can make each open(2) wait for up to /proc/sys/fs/lease-break-time, which is 45 seconds."""
    with leased(file), program(file) as held, pytest.raises(BlockingIOError):
        held.head(1)
    with program(file) as held:
        assert held.head(1) == b"0", "the control"


def test_a_descriptor_is_closed_once_also_where_looking_fails(file: Path) -> None:
    descriptor = os.open(file, os.O_PATH)
    held = Program(descriptor)
    held.close()
    other = os.open(file, os.O_PATH)
    assert other == descriptor, "the number is another's now"
    held.close()
    os.close(other)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.close(descriptor)
    with pytest.raises(OSError, match="Bad file descriptor"):
        Program(descriptor)


@pytest.mark.parametrize(
    ("expected", "changes"),
    [
        (True, {}),
        (True, {"mode": stat.S_IFREG | stat.S_ISUID | 0o755}),
        (False, {"uid": 1}),
        (False, {"mode": stat.S_IFREG | 0o775}),
        (False, {"mode": stat.S_IFREG | 0o757}),
        (False, {"mount": 8}),
        (True, {"mtime": 100 * SECOND}),  # anyone's choice
        (True, {"ctime": 98 * SECOND - 1}),
        (False, {"ctime": 98 * SECOND}),  # two seconds ago: within the grain
        (False, {"ctime": 200 * SECOND}),  # of a clock that was set back
    ],
)
def test_what_keeps_its_bytes(file: Path, expected: bool, changes: dict[str, int]) -> None:
    with program(file) as held:
        held.seen = msgspec.structs.replace(OF_ROOT, **changes)
        assert held.keeps(frozenset({7}), now=100 * SECOND) is expected


def test_the_mounts_to_rely_on_are_of_this_machines_file_systems() -> None:
    """procfs and sysfs make their times up."""
    mounts = local_mounts()
    for path, expected in (("/usr/bin/env", True), ("/proc/self", False)):
        with program(Path(path)) as held:
            assert (held.seen.mount in mounts) is expected, path
