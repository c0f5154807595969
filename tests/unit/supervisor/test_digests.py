"""The thread that hashes, with real files: what it tells of each, what it remembers, and that nobody waits for it."""

import functools
import hashlib
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

import msgspec
import pytest

from codingagents.supervisor import kernel
from codingagents.supervisor.digests import CACHED, LATER, Digests
from codingagents.supervisor.event_log import EventLog
from codingagents.supervisor.programs import Program, local_mounts
from codingagents.trust import checkpoint, linux
from codingagents.trust.encoding import decode_line
from codingagents.trust.errors import EventLogError
from codingagents.trust.events import AnyEvent, EventsGap, ExecDigest
from codingagents.trust.vocabulary import SessionId

PATIENCE = 60.0  # seconds; only a failing test waits that long
OF_ROOT = Path("/usr/bin/env").resolve()  # written long ago
LIMIT = 2**28
WAITING = 64  # programs
NOBODY = 65534
STAMPS = 5  # CLOCK_REALTIME_COARSE, by which file systems tell the time


class Log:
    """Keeps what it is given, by whichever thread."""

    def __init__(self) -> None:
        self.events: queue.SimpleQueue[AnyEvent] = queue.SimpleQueue()
        self.threads: set[int] = set()
        self.failures: list[Exception] = []

    def append(self, event: AnyEvent) -> None:
        self.threads.add(threading.get_ident())
        if self.failures:
            raise self.failures.pop()
        self.events.put(event)

    def next(self) -> ExecDigest:
        event = self.events.get(timeout=PATIENCE)
        assert isinstance(event, ExecDigest)
        return event


class Bench:
    """Digests whose worker does not begin before `begin` is called."""

    def __init__(self, *, limit: int = LIMIT, mounts: frozenset[int] | None = None) -> None:
        self.log = Log()
        self.become: Callable[[], None] = lambda: None
        self._may_begin = threading.Event()
        self.digests = Digests(
            role="agent",
            limit=limit,
            mounts=local_mounts() if mounts is None else mounts,
            log=self.log,
            prepare_thread=self._prepare,
        )
        before = set(threading.enumerate())
        self.digests.start()
        (self.worker,) = set(threading.enumerate()) - before

    def _prepare(self) -> None:
        assert self._may_begin.wait(PATIENCE)
        self.become()

    def begin(self) -> Self:
        self._may_begin.set()
        return self

    def exec(self, path: Path, kind: type[Program] = Program) -> tuple[str, str]:
        """Do as a trap does with an exec of `path`; return what its record says: state and hash."""
        program = kind(os.open(path, os.O_PATH))
        told = self.digests.tell(program)
        if told.digest == LATER:
            self.digests.later(program, str(path))
        else:
            program.close()
        return told.digest, told.sha256


@pytest.fixture
def make() -> Iterator[Callable[..., Bench]]:
    """Makes benches, and ends them."""
    made: list[Bench] = []

    def make(**options: object) -> Bench:
        made.append(Bench(**options))  # type: ignore[arg-type]  # Bench's own
        return made[-1]

    yield make
    for bench in made:
        bench.begin().digests.close()
        bench.worker.join(PATIENCE)
        assert not bench.worker.is_alive()


@pytest.fixture
def bench(make: Callable[..., Bench]) -> Bench:
    return make()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write(tmp_path / "file", b"some bytes")


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    path.chmod(0o755)
    return path


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def held_below(directory: Path) -> list[str]:
    """Return what this process has open there."""
    names = []
    for number in os.listdir("/proc/self/fd"):
        try:
            names.append(os.readlink(f"/proc/self/fd/{number}"))
        except FileNotFoundError:  # the listing's own
            continue
    return [name for name in names if name.startswith(str(directory))]


def test_a_file_is_hashed_after_its_record_by_another_thread(bench: Bench, file: Path) -> None:
    assert bench.exec(file) == (LATER, "")
    assert bench.log.events.empty(), "nobody has waited: the worker has not even begun"
    bench.begin()
    seen = file.stat()
    assert bench.log.next() == ExecDigest(
        role="agent",
        resolved_path=str(file),
        executable_file=f"{seen.st_dev}:{seen.st_ino}:{seen.st_mtime_ns}",
        executable_sha256=sha256(file),
        bytes=10,
        problem=None,
    )
    assert bench.log.threads == {bench.worker.ident}
    assert held_below(file.parent) == []


def test_a_program_of_the_systems_is_hashed_once(bench: Bench) -> None:
    bench.begin()
    assert bench.exec(OF_ROOT) == (LATER, "")
    assert bench.log.next().executable_sha256 == sha256(OF_ROOT)
    assert bench.exec(OF_ROOT) == (CACHED, sha256(OF_ROOT))
    assert bench.log.events.empty()


def test_one_on_a_file_system_that_another_answers_for_is_hashed_each_time(make: Callable[..., Bench]) -> None:
    bench = make(mounts=frozenset()).begin()
    for _ in range(2):
        assert bench.exec(OF_ROOT) == (LATER, "")
        assert bench.log.next().executable_sha256 == sha256(OF_ROOT)


def test_one_that_was_just_written_is_hashed_each_time(bench: Bench, file: Path) -> None:
    """It could be written once more without another change time; of another user's file that is always so."""
    bench.begin()
    for content in (b"some bytes", b"other ones"):
        file.write_bytes(content)
        assert bench.exec(file) == (LATER, "")
        assert bench.log.next().executable_sha256 == sha256(file)


class WithoutChangeTime(Program):
    """As if the change time were not a part of what was seen."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor)
        self.seen = self._without(self.seen)

    def changed(self) -> bool:
        return self._without(kernel.statx(self._descriptor)) != self.seen

    @staticmethod
    def _without(seen: kernel.Stat) -> kernel.Stat:
        return msgspec.structs.replace(seen, ctime=0)


@pytest.mark.skipif(os.geteuid() != 0, reason="only a file of root's is remembered, which only root can make")
@pytest.mark.parametrize("kind", [Program, WithoutChangeTime])
def test_a_file_written_in_place_whose_times_are_set_back_is_hashed_anew(
    bench: Bench, file: Path, kind: type[Program]
) -> None:
    """The control, a key without the change time, has a stale hash for it."""
    bench.begin()
    before = sha256(file)
    with Program(os.open(file, os.O_PATH)) as program:
        while not program.keeps(local_mounts(), time.time_ns()):
            time.sleep(0.05)  # for two seconds, the clock's grain; only the control needs none
    assert bench.exec(file, kind) == (LATER, "")
    assert bench.log.next().executable_sha256 == before
    assert bench.exec(file, kind) == (CACHED, before), "it is remembered, while nobody writes it"

    seen = file.stat()
    file.write_bytes(b"evil bytes")
    os.utime(file, ns=(seen.st_atime_ns, seen.st_mtime_ns))
    assert sha256(file) != before
    if kind is WithoutChangeTime:
        assert bench.exec(file, kind) == (CACHED, before)
    else:
        assert bench.exec(file, kind) == (LATER, "")
        assert bench.log.next().executable_sha256 == sha256(file)


def test_what_is_no_regular_file_or_too_large_is_not_hashed(make: Callable[..., Bench], tmp_path: Path) -> None:
    """Nobody writes to the FIFO: whoever opened it would wait for ever."""
    bench = make(limit=10)
    os.mkfifo(tmp_path / "fifo")
    assert bench.digests.tell(None).digest == "skipped: nothing there"
    assert bench.exec(tmp_path / "fifo") == ("skipped: not a regular file", "")
    assert bench.exec(tmp_path) == ("skipped: not a regular file", "")
    assert bench.exec(write(tmp_path / "11", b"x" * 11)) == ("skipped: larger than 10 bytes", "")
    assert bench.exec(write(tmp_path / "10", b"x" * 10)) == (LATER, "")


def test_a_limit_of_nothing_hashes_nothing(make: Callable[..., Bench], tmp_path: Path) -> None:
    empty = write(tmp_path / "empty", b"")
    assert make(limit=0).exec(empty) == ("skipped: larger than 0 bytes", "")
    bench = make().begin()
    assert bench.exec(empty) == (LATER, "")
    assert bench.log.next().executable_sha256 == hashlib.sha256().hexdigest()


def test_so_many_may_wait_and_the_next_is_told_so(bench: Bench, file: Path) -> None:
    assert [bench.exec(file)[0] for _ in range(WAITING + 2)] == [LATER] * WAITING + ["skipped: busy"] * 2
    assert len(held_below(file.parent)) == WAITING
    bench.begin()
    assert {bench.log.next().executable_sha256 for _ in range(WAITING)} == {sha256(file)}
    assert bench.exec(file) == (LATER, "")
    assert bench.log.next().problem is None
    assert held_below(file.parent) == []


def test_who_has_had_too_much_hashed_waits_while_the_quota_fills(make: Callable[..., Bench], file: Path) -> None:
    bench = make(limit=2**40)
    large = file.with_name("large")
    with large.open("wb") as sparse:
        sparse.truncate(3 * 2**29)
    with Program(os.open(large, os.O_PATH)) as program, Program(os.open(file, os.O_PATH)) as small:
        said = [bench.digests.tell(each).digest for each in (program, program, small)]
    assert said == [LATER, "skipped: too much to hash", LATER]


@pytest.mark.parametrize("change", ["unlinked", "renamed over", "larger", "shorter", "other bytes"])
def test_what_changed_before_it_was_read_is_told(bench: Bench, file: Path, change: str) -> None:
    """Also where the file still has its bytes: nobody knows."""
    with Program(os.open(file, os.O_PATH)) as program:
        assert bench.exec(file) == (LATER, "")
        while time.clock_gettime_ns(STAMPS) <= program.seen.ctime:
            pass  # a few milliseconds at most
        match change:
            case "unlinked":
                file.unlink()
            case "renamed over":
                write(file.with_name("new"), b"some bytes").rename(file)
            case "larger":
                file.write_bytes(b"some bytes and more")
            case "shorter":
                file.write_bytes(b"some")
            case _:
                file.write_bytes(b"evil bytes")
                os.utime(file, ns=(program.seen.mtime, program.seen.mtime))
    bench.begin()
    event = bench.log.next()
    assert (event.executable_sha256, event.bytes, event.problem) == ("", 0, "changed after its exec")


class Growing(Program):
    """A file that has another size right after some of it was read."""

    becomes = 11

    def read_all(self, take: Callable[[bytes], object], *, chunk: int) -> int:
        def take_and_meddle(data: bytes) -> None:
            take(data)
            os.truncate(f"/proc/self/fd/{self._descriptor}", self.becomes)

        return super().read_all(take_and_meddle, chunk=4)


class Emptied(Growing):
    becomes = 0


@pytest.mark.parametrize("kind", [Growing, Emptied])
def test_what_changed_while_it_was_read_is_told(bench: Bench, file: Path, kind: type[Program]) -> None:
    bench.begin()
    assert bench.exec(file, kind) == (LATER, "")
    event = bench.log.next()
    assert (event.executable_sha256, event.bytes, event.problem) == ("", 0, "changed while it was hashed")


def test_what_the_role_may_not_read_is_not_read_by_root_either(bench: Bench, file: Path) -> None:
    def become_nobody() -> None:
        if os.geteuid() == 0:
            kernel.set_fs_ids(NOBODY, NOBODY)
            linux.prctl(linux.PR_SET_DUMPABLE, 1)

    file.chmod(0o111)
    bench.become = become_nobody
    assert bench.exec(file) == (LATER, "")
    event = bench.begin().log.next()
    assert (event.executable_sha256, event.problem) == ("", "cannot be read: Permission denied")
    assert bench.exec(OF_ROOT) == (LATER, "")
    assert bench.log.next().problem is None, "the control: what everyone may read is"


def test_a_worker_that_cannot_be_the_role_reads_nothing(bench: Bench, file: Path) -> None:
    def fail() -> None:
        raise PermissionError

    bench.become = fail
    assert bench.exec(file) == (LATER, "")
    event = bench.begin().log.next()
    assert (event.executable_sha256, event.problem) == ("", "cannot be read as the role")


class TimedOut(Program):
    """A file of a server that does not answer."""

    def reopen(self) -> int:
        raise TimeoutError(110, "Connection timed out")


def test_a_server_that_does_not_answer_is_not_taken_for_the_end_of_the_session(bench: Bench, file: Path) -> None:
    bench.begin()
    assert bench.exec(file, TimedOut) == (LATER, "")
    assert bench.log.next().problem == "cannot be read: Connection timed out"


def test_a_digest_that_cannot_be_recorded_does_not_end_the_worker(bench: Bench, file: Path) -> None:
    bench.log.failures.append(EventLogError("the disk is full"))
    assert bench.exec(file) == (LATER, "")
    assert bench.exec(OF_ROOT) == (LATER, "")
    assert bench.begin().log.next().resolved_path == str(OF_ROOT)
    assert bench.exec(file) == (LATER, "")
    assert bench.log.next().executable_sha256 == sha256(file)


def test_digests_that_could_not_be_recorded_are_counted_in_the_log(tmp_path: Path, file: Path) -> None:
    session, troubles = SessionId("s"), list[str]()
    descriptor = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    kept, full = os.dup(descriptor), os.open("/dev/full", os.O_WRONLY)
    os.dup2(full, descriptor)
    sign = functools.partial(checkpoint.sign_checkpoint, checkpoint.new_key(b"\1" * 32), session=session)
    log = EventLog(descriptor, session, sign, on_trouble=troubles.append)
    digests = Digests(role="agent", limit=LIMIT, mounts=local_mounts(), log=log, prepare_thread=lambda: None)
    digests.start()
    digests.later(Program(os.open(file, os.O_PATH)), str(file))
    digests.close()
    assert len(troubles) == 1
    os.dup2(kept, descriptor)
    log.close(None)
    for number in (kept, full):
        os.close(number)
    gap = decode_line((tmp_path / "log").read_bytes().splitlines()[0]).event
    assert isinstance(gap, EventsGap)
    assert gap.lost_kinds == {"exec.digest": 1}


def test_what_waits_when_the_session_ends_is_hashed_while_there_is_time(bench: Bench, file: Path) -> None:
    for _ in range(3):
        bench.exec(file)
    bench.begin().digests.close()
    assert not bench.worker.is_alive()
    assert [bench.log.next().executable_sha256 for _ in range(3)] == [sha256(file)] * 3


def test_nobody_waits_for_a_worker_that_reads_on_and_what_it_leaves_is_told(bench: Bench, file: Path) -> None:
    """Here it has not even begun when the time is over."""
    for _ in range(3):
        bench.exec(file)
    bench.digests.close()
    assert bench.worker.is_alive()
    assert bench.log.events.empty()
    bench.begin()
    told = [bench.log.next() for _ in range(3)]
    assert {(event.executable_sha256, event.problem) for event in told} == {("", "the session ended")}
    assert held_below(file.parent) == []


def test_what_never_began_can_be_ended() -> None:
    log = Log()
    Digests(role="agent", limit=1, mounts=frozenset(), log=log, prepare_thread=lambda: None).close()
    assert log.events.empty()
