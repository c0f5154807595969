"""What is run for a script, on real files; integration/test_the_trap_records_… compares with what the kernel runs."""

import dataclasses
import os
from pathlib import Path

import pytest

from codingagents.supervisor.programs import Program, local_mounts
from codingagents.supervisor.scripts import Interpreted, Scripts
from codingagents.supervisor.tracee_paths import proc_mounts

NOBODY, GROUP = 65534, 65533
TRUE = os.fsencode(os.path.realpath("/usr/bin/true"))


def scripts(**options: object) -> Scripts:
    return Scripts(**{"file_ids": None, "groups": (), "procs": proc_mounts()} | options)  # type: ignore[arg-type]  # a test's own


def found(path: Path, reader: Scripts | None = None) -> Interpreted:
    with Program(os.open(path, os.O_PATH)) as program:
        return (reader or scripts()).interpreters(os.getpid(), program)


def script(path: Path, line: bytes, mode: int = 0o755) -> Path:
    path.write_bytes(line)
    path.chmod(mode)
    return path


def test_a_script_leads_to_its_interpreter_and_that_ones(tmp_path: Path) -> None:
    first = script(tmp_path / "first", b"#!/usr/bin/true\n")
    second = script(tmp_path / "second", b"#!%s\n" % bytes(first))
    assert found(second).names == (bytes(first.resolve()), TRUE)
    assert found(Path("/usr/bin/true").resolve()) == Interpreted()


def test_what_is_not_there_is_named_as_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    here = bytes(tmp_path.resolve())
    (tmp_path / "directory").mkdir()
    for written, expected in (
        (b"/nowhere/sh", b"/nowhere/sh"),
        (b"nowhere", here + b"/nowhere"),
        (b"directory", here + b"/directory"),
    ):
        assert found(script(tmp_path / "it", b"#!" + written + b"\n")).names == (expected,)


def test_more_than_the_kernel_follows_is_too_deep(tmp_path: Path) -> None:
    before = b"/usr/bin/true"
    for depth in range(6):
        before = bytes(script(tmp_path / f"{depth}", b"#!%s\n" % before))
    assert not found(tmp_path / "4").too_deep
    deep = found(tmp_path / "5")
    assert (deep.too_deep, len(deep.names)) == (True, 5)


def test_one_that_leads_to_itself_is_too_deep(tmp_path: Path) -> None:
    path = tmp_path / "it"
    assert found(script(path, b"#!%s\n" % bytes(path))).too_deep


def test_one_that_was_just_written_is_read_each_time(tmp_path: Path) -> None:
    reader = scripts()
    for line, expected in ((b"#!/usr/bin/true\n", (TRUE,)), (b"#!/nowhere/sh\n", (b"/nowhere/sh",))):
        assert found(script(tmp_path / "it", line), reader).names == expected


def test_the_systems_are_read_once() -> None:
    """The one that is remembered is told also by a reader that could not open it any more."""
    path = Path("/usr/bin/ldd").resolve()  # libc-bin's, written long ago
    reader = scripts()
    first = found(path, reader)
    assert first.names
    with Unreadable(os.open(path, os.O_PATH)) as program:
        assert reader.interpreters(os.getpid(), program) == first
        assert scripts().interpreters(os.getpid(), program) == Interpreted(), "the control"


def test_what_does_not_keep_its_bytes_is_not_remembered_either() -> None:
    """Else it were told once its change time is old enough, with what was read before."""
    path = Path("/usr/bin/ldd").resolve()
    reader = scripts(mounts=frozenset())
    assert found(path, reader).names
    later = dataclasses.replace(reader, mounts=local_mounts())
    with Unreadable(os.open(path, os.O_PATH)) as program:
        assert later.interpreters(os.getpid(), program) == Interpreted()
        assert found(path, later).names
        assert later.interpreters(os.getpid(), program).names, "the control"


class Unreadable(Program):
    """A file that nobody may open."""

    def reopen(self) -> int:
        raise PermissionError


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another UID needs root")
def test_a_script_is_read_as_the_role_and_the_thread_is_itself_again(tmp_path: Path) -> None:
    path = script(tmp_path / "it", b"#!/usr/bin/true\n", 0o711)
    groups = os.getgroups()
    role = scripts(file_ids=(NOBODY, NOBODY), groups=(GROUP,))
    assert found(path, role) == Interpreted(), "only executable: the kernel may read it, the role may not"
    assert found(path).names == (TRUE,), "the control"
    assert os.getgroups() == groups
    os.chown(path, 0, GROUP)
    path.chmod(0o750)
    assert found(path, role).names == (TRUE,)


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming another UID needs root")
def test_a_script_that_its_owner_closed_is_not_taken_for_a_program(tmp_path: Path) -> None:
    """The kernel reads it all the same, and its first line alone can be a program, past a rule about interpreters."""
    path = script(tmp_path / "it", b'#!/usr/bin/python3 -cprint("ran");#\n', 0o111)
    role = scripts(file_ids=(NOBODY, NOBODY))
    os.chown(path, NOBODY, NOBODY)
    with pytest.raises(PermissionError):
        found(path, role)
    path.chmod(0o511)
    assert found(path, role).names == (os.fsencode(os.path.realpath("/usr/bin/python3")),), "the control"
