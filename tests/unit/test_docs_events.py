"""events.md is held to the schema, and its program for verifying by hand is run as it stands there."""

from __future__ import annotations

import datetime
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import documents
from codingagents.trust.chain import Chain
from codingagents.trust.checkpoint import key_line, new_key, public_key, sign_checkpoint
from codingagents.trust.events import (
    TYPE_PREFIX,
    AnyEvent,
    Checkpoint,
    HelperFailed,
    SessionEnded,
    escape_bytes,
    unescape_bytes,
)
from codingagents.trust.schema import event_schema
from codingagents.trust.vocabulary import Secret, SessionId

GUIDE = documents.read("events.md")
SCHEMA = event_schema()
SESSION = SessionId("20261124-0a1b2c3d")
KEY, OTHER_KEY = new_key(bytes(range(32))), new_key(bytes(32))
TYPES = {
    each["properties"]["type"]["const"].removeprefix(TYPE_PREFIX): each["properties"]["data"]["$ref"].rsplit("/", 1)[1]
    for each in SCHEMA["oneOf"]
}
(BY_HAND,) = [block.text for block in documents.blocks(GUIDE) if block.words == ("python",)]


def described(definition: dict[str, Any]) -> str:
    """Return how events.md writes the type of a field."""
    if "anyOf" in definition:
        names = [described(each) for each in definition["anyOf"]]
        return " or ".join(sorted(names, key=lambda name: name == "null"))
    if "$ref" in definition:
        return str(definition["$ref"]).rsplit("/", 1)[1]
    if "enum" in definition:  # words
        return "str"
    kind = definition["type"]
    if kind == "array":
        return described(definition["items"]) + "[]"
    if kind == "object":
        return described(definition["additionalProperties"]) + "{}"
    return {"string": "str", "integer": "int", "boolean": "bool"}.get(kind, str(kind))


@pytest.mark.parametrize("kind", sorted(TYPES))
def test_a_type_is_described_with_exactly_its_fields(kind: str) -> None:
    listed = {documents.code(cells[0])[0]: cells[1] for cells in documents.section(GUIDE, kind).rows}
    if kind == "exec.denied":  # it says that it has those of exec.allowed
        allowed = documents.section(GUIDE, "exec.allowed").rows
        listed |= {documents.code(cells[0])[0]: cells[1] for cells in allowed}
    properties = SCHEMA["$defs"][TYPES[kind]]["properties"]
    assert listed == {name: described(definition) for name, definition in properties.items()}


def test_the_attributes_are_those_of_a_line() -> None:
    rows = documents.section(GUIDE, "The line").rows
    assert [documents.code(cells[0])[0] for cells in rows if documents.code(cells[0])] != []
    assert sorted(name for cells in rows for name in documents.code(cells[0])) == sorted(SCHEMA["properties"])


def test_the_example_of_an_escaped_byte_is_right() -> None:
    assert '`"\\\\xff"`' in GUIDE
    assert json.dumps(escape_bytes(b"\xff")) == '"\\\\xff"'
    assert unescape_bytes(json.loads('"\\\\xff"')) == b"\xff"


def write_log(events: Sequence[AnyEvent], key: Secret = KEY) -> tuple[list[bytes], list[str]]:
    """Return the lines of a log of `events`, a second apart, and the notes of its checkpoints, which `key` signs."""
    chain = Chain(SESSION)
    lines: list[bytes] = []
    notes: list[str] = []
    start = datetime.datetime(2026, 11, 24, 4, 0, tzinfo=datetime.UTC)
    for index, event in enumerate(events):
        moment = start + datetime.timedelta(seconds=index)
        taken = event
        if isinstance(event, Checkpoint):
            notes.append(sign_checkpoint(key, session=SESSION, size=chain.seq, root=chain.root(), moment=moment))
            taken = Checkpoint(note=notes[-1])
        line = chain.prepare(taken, moment)
        chain.commit(line)
        lines.append(line)
    return lines, notes


HERE = Checkpoint(note="")  # replaced by one that is signed
ENDED = SessionEnded(exit_code=0, reason="the agent ended")
MANY = [HelperFailed(server="s", reason=f"é\x1b\\ {number}") for number in range(11)]
WHOLE, KEPT = write_log([*MANY[:5], HERE, *MANY[5:], ENDED, HERE])


def verified(tmp_path: Path, lines: Sequence[bytes], kept: str | None = None) -> bool:
    """Run the program of events.md, with nothing of ours to import, on a log and the session's own key."""
    (tmp_path / "verify.py").write_text(BY_HAND)
    (tmp_path / "log").write_bytes(b"".join(lines))
    (tmp_path / "key").write_text(key_line(SESSION, public_key(KEY)))
    arguments = ["log", "key"]
    if kept is not None:
        (tmp_path / "kept").write_text(kept)
        arguments.append("kept")
    done = subprocess.run(
        [sys.executable, "-I", "-S", "verify.py", *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.returncode == 0 or done.stderr
    return done.returncode == 0


@pytest.mark.parametrize("kept", [None, *KEPT])
def test_by_hand_a_log_that_holds_is_held(tmp_path: Path, kept: str | None) -> None:
    assert verified(tmp_path, WHOLE, kept)


@pytest.mark.parametrize("number", [0, 4, 5, 10, 12, 13])
def test_by_hand_an_edited_line_is_found(tmp_path: Path, number: int) -> None:
    edited = list(WHOLE)
    edited[number] = edited[number].replace(b'"time":"2026', b'"time":"2025')
    assert edited != WHOLE
    assert not verified(tmp_path, edited)


def test_by_hand_a_moved_line_is_found(tmp_path: Path) -> None:
    assert not verified(tmp_path, [WHOLE[1], WHOLE[0], *WHOLE[2:]])


def test_by_hand_a_log_that_was_cut_is_found(tmp_path: Path) -> None:
    assert not verified(tmp_path, WHOLE[:-1])
    assert not verified(tmp_path, WHOLE[:6])
    assert not verified(tmp_path, [])


def test_by_hand_a_log_that_was_cut_to_a_shorter_session_is_found_with_the_kept_checkpoint(tmp_path: Path) -> None:
    shorter, _ = write_log([*MANY[:3], ENDED, HERE])
    assert verified(tmp_path, shorter)  # the control: signed by the very key, only the checkpoint kept outside knows
    assert not verified(tmp_path, shorter, KEPT[-1])


def test_by_hand_a_forgers_log_is_found(tmp_path: Path) -> None:
    forged, _ = write_log([*MANY[:5], HERE, ENDED, HERE], OTHER_KEY)
    assert not verified(tmp_path, forged)
    genuine_note = Checkpoint(note=KEPT[0])
    rechained = Chain(SESSION)
    lines: list[bytes] = []
    events: list[AnyEvent] = [*MANY[1:6], genuine_note, ENDED, genuine_note]
    for event in events:
        lines.append(rechained.prepare(event, datetime.datetime(2026, 11, 24, 4, 0, 5, tzinfo=datetime.UTC)))
        rechained.commit(lines[-1])
    assert not verified(tmp_path, lines)
