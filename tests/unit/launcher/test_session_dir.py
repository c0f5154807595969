"""Where a session's files lie, and who may have touched them."""

import datetime
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from codingagents.launcher import session_dir
from codingagents.rewrite.specs import SessionSpec, UidPlan
from codingagents.trust import checkpoint, wire
from codingagents.trust.errors import AgentError, ConfigError, TrustError
from codingagents.trust.vocabulary import SessionId

SESSION = SessionId("20270301-00ff00ff")
KEY = checkpoint.new_key(bytes(range(32)))
PUBLIC = checkpoint.public_key(KEY)
MOMENT = datetime.datetime(2027, 3, 1, tzinfo=datetime.UTC)


def spec() -> SessionSpec:
    return SessionSpec(
        session=SESSION,
        agent="claude",
        engine="local",
        config_sha256="0" * 64,
        uids=UidPlan(agent=1, task=2, workspace_gid=3, servers={}),
        remotes=[],
        command=["true"],
        working_directory="/",
        environment={},
        public_key=PUBLIC,
    )


def note(size: int, session: SessionId = SESSION) -> str:
    return checkpoint.sign_checkpoint(KEY, session=session, size=size, root=bytes(32), moment=MOMENT)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def test_an_id_is_a_day_and_randomness() -> None:
    """Ids sort by day and are what the vocabulary accepts."""
    assert session_dir.new_session_id(datetime.date(2027, 3, 1), b"\x00\xff\x00\xff") == SESSION


def test_a_session_is_laid_out_privately_with_the_key_outside(tmp_path: Path) -> None:
    """What proves the log lies where the session's directory does not reach."""
    base = tmp_path / "home" / ".config" / "coding-agents"
    files = session_dir.place(SESSION, base=base, directory=None)
    assert not base.exists()  # placing writes nothing
    session_dir.create(files, spec())
    assert files.directory == base / "sessions" / SESSION
    assert wire.decode(SessionSpec, files.spec.read_bytes()) == spec()
    assert checkpoint.parse_key_line(files.public_key.read_text()).public_key == PUBLIC
    assert files.directory not in files.public_key.parents
    directories = [tmp_path / "home", base, base / "sessions", files.directory, base / "trusted"]
    assert {mode(path) for path in directories} == {0o700}
    assert {mode(path) for path in (files.spec, files.public_key)} == {0o600}


def test_a_directory_can_be_chosen(tmp_path: Path) -> None:
    """`--session-dir` moves the session, not the key."""
    files = session_dir.place(SESSION, base=tmp_path / "base", directory=tmp_path / "own")
    session_dir.create(files, spec())
    assert files.spec == tmp_path / "own" / "session.json"
    assert files.public_key == tmp_path / "base" / "trusted" / f"{SESSION}.pub"


def _symlink(tmp_path: Path) -> Path:
    (tmp_path / "real").mkdir(0o700)
    (tmp_path / "link").symlink_to(tmp_path / "real")
    return tmp_path / "link"


def _file(tmp_path: Path) -> Path:
    (tmp_path / "file").touch(0o600)
    return tmp_path / "file"


def _open_directory(tmp_path: Path) -> Path:
    (tmp_path / "open").mkdir(0o755)
    return tmp_path / "open"


def _used(tmp_path: Path) -> Path:
    (tmp_path / "used").mkdir(0o700)
    (tmp_path / "used" / "session.json").touch()
    return tmp_path / "used"


def _below_writable(tmp_path: Path) -> Path:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o777)
    return tmp_path / "shared" / "session"


@pytest.mark.parametrize(
    ("prepare", "words"),
    [
        (_symlink, "must be a directory, not a symbolic link or a file"),
        (_file, "must be a directory, not a symbolic link or a file"),
        (_open_directory, "has mode 0755; run: chmod 700"),
        (_used, "is not empty"),
        (_below_writable, "may be written by others"),
        (lambda tmp_path: tmp_path / "base" / "trusted" / "x", "must lie apart from"),
        (lambda tmp_path: tmp_path / "base", "must lie apart from"),
    ],
)
def test_a_directory_that_others_could_reach_is_refused(
    tmp_path: Path, prepare: Callable[[Path], Path], words: str
) -> None:
    """Refused before anything is written."""
    directory = prepare(tmp_path)
    with pytest.raises(ConfigError, match=words):
        session_dir.place(SESSION, base=tmp_path / "base", directory=directory)
    assert not (tmp_path / "base").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
@pytest.mark.parametrize("whose", ["base", "session"])
def test_a_foreign_owner_is_refused(tmp_path: Path, whose: str) -> None:
    """An owner can replace what lies in the directory."""
    base, own = tmp_path / "base", tmp_path / "own"
    for path in (base, own):
        path.mkdir(0o700)
    os.chown(base if whose == "base" else own, 54321, 54321)
    with pytest.raises(ConfigError, match="belongs to UID 54321"):
        session_dir.place(SESSION, base=base, directory=own)


def test_the_newest_signed_checkpoint_is_kept(tmp_path: Path) -> None:
    """By size, whatever the order of arrival."""
    files = session_dir.place(SESSION, base=tmp_path / "base", directory=None)
    session_dir.create(files, spec())
    keeper = session_dir.CheckpointKeeper(files, PUBLIC)
    assert [keeper.keep(note(size)) for size in (3, 9, 9, 4)] == [True, True, False, False]
    assert files.checkpoint.read_text() == note(9)
    assert mode(files.checkpoint) == 0o600
    assert sorted(path.name for path in files.checkpoint.parent.iterdir()) == [
        f"{SESSION}.checkpoint",
        f"{SESSION}.pub",
    ]


def test_a_checkpoint_of_another_key_or_session_is_not_kept(tmp_path: Path) -> None:
    """Nothing is stored that would not verify."""
    files = session_dir.place(SESSION, base=tmp_path / "base", directory=None)
    session_dir.create(files, spec())
    keeper = session_dir.CheckpointKeeper(files, PUBLIC)
    for bad in (note(3).replace("3", "4", 1), note(3, SessionId("another")), "", "x" * 1000):
        with pytest.raises(TrustError):
            keeper.keep(bad)
    assert not files.checkpoint.exists()


def test_a_directory_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    """The file system's refusal is told with the path."""
    files = session_dir.place(SESSION, base=tmp_path / "base", directory=None)
    keeper = session_dir.CheckpointKeeper(files, PUBLIC)  # create() was not called: there is no directory
    with pytest.raises(AgentError, match=r"cannot write .*checkpoint: No such file or directory"):
        keeper.keep(note(1))
