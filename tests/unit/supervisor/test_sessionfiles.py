"""The session directory's files: read and made only as what they must be."""

import os
from pathlib import Path

import pytest

from codingagents.rewrite import places
from codingagents.rewrite.specs import SessionSpec, UidPlan
from codingagents.supervisor.sessionfiles import open_event_log, read_session_spec
from codingagents.trust import wire
from codingagents.trust.errors import AgentError, NotFoundError, ProcessError

SPEC = SessionSpec(
    session="s-1",
    agent="claude",
    engine="local",
    config_sha256="0" * 64,
    uids=UidPlan(agent=1, task=2, workspace_gid=3, servers={}),
    remotes=[],
    command=["true"],
    working_directory="/",
    environment={},
    public_key="k",
)


@pytest.fixture
def spec_file(tmp_path: Path) -> Path:
    path = tmp_path / places.SESSION_SPEC
    path.write_bytes(wire.encode(SPEC))
    path.chmod(0o600)
    return path


def refusal(directory: Path) -> AgentError:
    with pytest.raises(AgentError) as refused:
        read_session_spec(str(directory))
    return refused.value


def test_a_specification_is_read_as_it_was_written(spec_file: Path) -> None:
    assert read_session_spec(str(spec_file.parent)) == SPEC


def test_none_is_not_found(tmp_path: Path) -> None:
    error = refusal(tmp_path)
    assert isinstance(error, NotFoundError)
    assert "coding-agents run" in str(error)


def test_a_link_is_refused(spec_file: Path) -> None:
    spec_file.rename(spec_file.with_name("elsewhere"))
    spec_file.symlink_to("elsewhere")
    assert isinstance(refusal(spec_file.parent), NotFoundError)


@pytest.mark.parametrize("kind", ["fifo", "directory", "group-writable", "world-writable"])
def test_what_others_could_have_written_is_refused(spec_file: Path, kind: str) -> None:
    """And a FIFO is not waited for."""
    match kind:
        case "fifo":
            spec_file.unlink()
            os.mkfifo(spec_file, 0o600)
        case "directory":
            spec_file.unlink()
            spec_file.mkdir()
        case _:
            spec_file.chmod(0o620 if kind == "group-writable" else 0o602)
    assert "must be a regular file" in str(refusal(spec_file.parent))


@pytest.mark.skipif(os.geteuid() != 0, reason="giving a file away needs root")
def test_another_users_file_is_refused(spec_file: Path) -> None:
    os.chown(spec_file, 58041, 58041)
    assert "must be a regular file" in str(refusal(spec_file.parent))


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"[]", wire.encode(SPEC).replace(b'"version":1', b'"version":2'), wire.encode(SPEC)[:-2] + b',"x":1}'],
)
def test_what_is_no_specification_is_said_with_its_file(spec_file: Path, content: bytes) -> None:
    spec_file.write_bytes(content)
    error = refusal(spec_file.parent)
    assert isinstance(error, ProcessError)
    assert str(spec_file) in str(error)
    assert "one version" in str(error)


def test_one_that_is_too_large_is_not_read_whole(spec_file: Path) -> None:
    with spec_file.open("r+b") as file:
        file.truncate(10 * wire.MAX_LINE)  # a hole
    assert "over the limit" in str(refusal(spec_file.parent))


def test_the_log_is_made_for_its_owner_and_only_grows(tmp_path: Path) -> None:
    descriptor = open_event_log(str(tmp_path))
    os.write(descriptor, b"first\n")
    os.lseek(descriptor, 0, os.SEEK_SET)
    os.write(descriptor, b"second\n")
    os.close(descriptor)
    path = tmp_path / places.EVENT_LOG
    assert path.read_bytes() == b"first\nsecond\n"
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_log_that_is_there_already_is_refused(tmp_path: Path) -> None:
    (tmp_path / places.EVENT_LOG).symlink_to("nowhere")
    with pytest.raises(ProcessError, match="one session only"):
        open_event_log(str(tmp_path))
    assert not (tmp_path / "nowhere").exists()


def test_a_log_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    with pytest.raises(ProcessError, match=r"events\.jsonl: No such file or directory"):
        open_event_log(str(tmp_path / "none"))
