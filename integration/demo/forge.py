"""What somebody who can write a session's event log would do to it, to hide a program that was denied.

Pure: lines in (without newlines), a file's bytes out. The forger knows the format and the project's own code, and has
no key of the session's; `rechained` is as far as that goes, and `resigned` signs with a key of the forger's own.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence

import msgspec

from codingagents.trust.chain import line_hash
from codingagents.trust.checkpoint import new_key, sign_checkpoint
from codingagents.trust.encoding import Record, decode_line, encode_event
from codingagents.trust.events import Checkpoint, ExecDenied
from codingagents.trust.merkle import MerkleTree
from codingagents.trust.vocabulary import Secret

HARMLESS = "/usr/bin/true"


def find_denied(lines: Sequence[bytes], path: str) -> int:
    """Return the 1-based number of the line that says that `path` was denied; `LookupError` where there is none."""
    for number, line in enumerate(lines, start=1):
        event = decode_line(line).event
        if isinstance(event, ExecDenied) and event.executable_path == path:
            return number
    raise LookupError(f"no line says that {path} was denied")


def one_byte_changed(lines: Sequence[bytes], number: int, path: str) -> bytes:
    """Return the log with the last letter of `path` changed where line `number` has it first."""
    changed = lines[number - 1].replace(path.encode(), path[:-1].encode() + b"_", 1)
    return _file([*lines[: number - 1], changed, *lines[number:]])


def rechained(lines: Sequence[bytes], number: int) -> bytes:
    """Return the log with a harmless program in line `number` and every later `prev` made to fit."""
    return _file(_rewritten(lines, number, None))


def resigned(lines: Sequence[bytes], number: int, random: bytes) -> bytes:
    """Return the same, every checkpoint signed anew with a key made of `random` (32 bytes)."""
    return _file(_rewritten(lines, number, new_key(random)))


def _rewritten(lines: Sequence[bytes], number: int, key: Secret | None) -> list[bytes]:
    done: list[bytes] = []
    tree = MerkleTree()
    for position, line in enumerate(lines, start=1):
        record = decode_line(line)
        event = record.event
        if position == number:
            assert isinstance(event, ExecDenied)
            event = msgspec.structs.replace(event, executable_path=HARMLESS, resolved_path=HARMLESS)
        elif isinstance(event, Checkpoint) and key is not None:
            event = Checkpoint(note=_signed(key, record, tree))
        prev = line_hash(done[-1]) if done else record.prev
        text = encode_event(event, session=record.session, seq=record.seq, prev=prev, time=record.time)
        done.append(text.rstrip(b"\n"))
        tree.append(done[-1])
    return done


def _signed(key: Secret, record: Record, tree: MerkleTree) -> str:
    moment = datetime.datetime.fromisoformat(record.time)
    return sign_checkpoint(key, session=record.session, size=tree.size, root=tree.root(), moment=moment)


def _file(lines: Sequence[bytes]) -> bytes:
    return b"".join(line + b"\n" for line in lines)
