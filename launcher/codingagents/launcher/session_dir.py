"""SHELL: where a session's files lie on the host, and the two things kept outside the session's reach.

Inside `sessions/<id>/` (0700): `session.json` and the event log, both the supervisor's to read or write. Outside, in
`trusted/`: the public key and the newest signed checkpoint, which prove the log later; the supervisor never learns that
place. Writes files, decides only which checkpoint is newer. Does not read the log.
"""

from __future__ import annotations

import dataclasses
from datetime import date
from pathlib import Path

from codingagents.rewrite import places
from codingagents.rewrite.private_files import private_directory, replace_private
from codingagents.rewrite.specs import SessionSpec
from codingagents.trust import wire
from codingagents.trust.checkpoint import key_line, open_checkpoint
from codingagents.trust.errors import ConfigError, TrustError
from codingagents.trust.vocabulary import SessionId, parse_session_id

RANDOM_BYTES = 4  # of a session id; ids only have to differ within one day and one user


def new_session_id(today: date, random: bytes) -> SessionId:
    """Return an id that sorts by day, such as `20270301-9f86d081`."""
    return parse_session_id(f"{today:%Y%m%d}-{random.hex()}")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SessionFiles:
    """The paths of one session. `base` is `~/.config/coding-agents`; `directory` may lie anywhere else."""

    session: SessionId
    base: Path
    directory: Path

    @property
    def spec(self) -> Path:
        """The `SessionSpec`, as the supervisor reads it."""
        return self.directory / places.SESSION_SPEC

    @property
    def log(self) -> Path:
        """The event log; only the supervisor writes it."""
        return self.directory / places.EVENT_LOG

    @property
    def public_key(self) -> Path:
        """What the log verifies against."""
        return self.base / places.TRUSTED / f"{self.session}{places.KEY_SUFFIX}"

    @property
    def checkpoint(self) -> Path:
        """The newest signed checkpoint that came up the control channel."""
        return self.base / places.TRUSTED / f"{self.session}{places.CHECKPOINT_SUFFIX}"


def place(session: SessionId, *, base: Path, directory: Path | None) -> SessionFiles:
    """Return where the session's files will lie; checks ownership of what is there, writes nothing.

    `directory` is the `--session-dir` option. Raises `ConfigError`.
    """
    trusted = private_directory(base / places.TRUSTED, create=False)
    base = trusted.parent
    chosen = private_directory(directory or base / places.SESSIONS / session, create=False)
    if chosen == trusted or trusted in chosen.parents or chosen in trusted.parents:
        raise ConfigError(f"--session-dir {chosen} must lie apart from {trusted}, which a session must not reach")
    if chosen.is_dir() and any(chosen.iterdir()):
        raise ConfigError(f"{chosen} is not empty; a session needs a directory of its own")
    return SessionFiles(session=session, base=base, directory=chosen)


def create(files: SessionFiles, spec: SessionSpec) -> None:
    """Make the directories, the spec in one and the public key in the other. Raises `AgentError`."""
    private_directory(files.public_key.parent, create=True)
    private_directory(files.directory, create=True)
    replace_private(files.public_key, key_line(files.session, spec.public_key).encode())
    replace_private(files.spec, wire.encode(spec))


class CheckpointKeeper:
    """Keeps the newest checkpoint of one session, by the number of lines it covers, and only if our key signed it."""

    def __init__(self, files: SessionFiles, public_key: str) -> None:
        """Start with none; `public_key` is base64."""
        self._files = files
        self._public_key = public_key
        self._size = -1

    def keep(self, note: str) -> bool:
        """Store `note` if it is newer than what is kept, and say whether it was. Raises `AgentError`."""
        checkpoint = open_checkpoint(note, self._public_key)
        if checkpoint.session != self._files.session:
            raise TrustError(f"the checkpoint is of session {checkpoint.session}, not {self._files.session}")
        if checkpoint.size <= self._size:
            return False
        replace_private(self._files.checkpoint, note.encode())
        self._size = checkpoint.size
        return True
