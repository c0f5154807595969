"""SHELL: the record of what a tree's ACLs were before a session's roles got rights there; kept until all is taken back.

A record is there as a whole and on the disk, or it is not there: it is written to a file without a name, which gets its
name at the end. Whoever works with it holds flock(2) on it, so that a record that nobody holds was left by a launcher
that was killed. Decides nothing about rights.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

import msgspec

from codingagents.launcher.file_handles import Handle
from codingagents.rewrite.private_files import private_directory
from codingagents.rewrite.specs import UidPlan

_PASSED_THROUGH = 0o711  # copies lie beside records, and roles must reach those
_MAX_LINE = 1024 * 1024  # two ACLs of 65536 bytes and a handle, in base64


class Head(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The first line: which session has rights in which tree, and whose that is (`owner` and `group`, numbers)."""

    version: Literal[1] = 1
    session: str
    tree: str
    owner: int
    group: int
    uids: UidPlan


class Former(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Each further line, the tree's top first: an inode, its mode and its ACLs' bytes before; None: it had none."""

    kind: int
    handle: bytes
    mode: int
    access: bytes | None
    default: bytes | None

    @property
    def inode(self) -> Handle:
        """The way back to it."""
        return Handle(self.kind, self.handle)


@dataclass(frozen=True, slots=True)
class Record:
    """One record that this process holds."""

    path: Path
    file: BinaryIO

    def head(self) -> Head:
        """Return the first line. Raises `msgspec.MsgspecError`."""
        self.file.seek(0)
        return msgspec.json.decode(self.file.readline(_MAX_LINE), type=Head)

    def formers(self) -> Iterator[Former]:
        """Give the other lines. Raises `msgspec.MsgspecError`."""
        decoder = msgspec.json.Decoder(Former)
        self.file.seek(0)
        self.file.readline(_MAX_LINE)
        while line := self.file.readline(_MAX_LINE):
            yield decoder.decode(line)

    def forget(self) -> None:
        """Delete it: all is as it was."""
        self.path.unlink()


@contextlib.contextmanager
def new_record(records: Path, head: Head, fill: Callable[[Callable[[Former], None]], None]) -> Iterator[Record]:
    """Give a record in the directory `records`, of what `fill` says of each inode. Raises `AgentError`, `OSError`."""
    with contextlib.suppress(FileExistsError):
        os.mkdir(records.parent)
        os.chmod(records.parent, _PASSED_THROUGH)
    directory = private_directory(records, create=True)
    with open(os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600), "w+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        encode = msgspec.json.Encoder().encode
        file.write(encode(head) + b"\n")
        fill(lambda former: _written(file, encode(former) + b"\n"))
        file.flush()
        os.fsync(file.fileno())
        place = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.link(f"/proc/self/fd/{file.fileno()}", head.session, dst_dir_fd=place)  # open(2), O_TMPFILE
            os.fsync(place)
        finally:
            os.close(place)
        yield Record(directory / head.session, file)


def left_records(records: Path) -> Iterator[Record]:
    """Give each record in `records` that no launcher holds, held by us for as long as it is looked at.

    Raises `ConfigError` where others may write records there.
    """
    try:
        paths = sorted(private_directory(records, create=False).iterdir())
    except FileNotFoundError:
        return
    for path in paths:
        # Not there, or held: its launcher lives, or was done with it meanwhile.
        with contextlib.suppress(FileNotFoundError, BlockingIOError), open(path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(file.fileno()).st_nlink:
                yield Record(path, file)


def _written(file: BinaryIO, line: bytes) -> None:
    file.write(line)
