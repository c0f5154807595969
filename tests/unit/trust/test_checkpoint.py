from __future__ import annotations

import base64
import hashlib
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from codingagents.trust.checkpoint import (
    SignedCheckpoint,
    key_line,
    new_key,
    open_checkpoint,
    parse_key_line,
    public_key,
    sign_checkpoint,
)
from codingagents.trust.errors import ConfigError, TrustError
from codingagents.trust.vocabulary import SessionId

SESSION = SessionId("s-1")
KEY = new_key(bytes(range(32)))
PUBLIC = public_key(KEY)
OTHER_PUBLIC = public_key(new_key(b"\1" * 32))
NOW = datetime(2026, 11, 24, 4, 11, 0, 123456, UTC)
ROOT = bytes(range(32, 64))
NOTE = sign_checkpoint(KEY, session=SESSION, size=12, root=ROOT, moment=NOW)


def go_note_open(note: str, vkey: str) -> str:
    """The algorithm of Go's golang.org/x/mod/sumdb/note, written apart from ours: return the signed text."""
    name, key_id, encoded = vkey.strip().split("+", 2)
    key = base64.b64decode(encoded)
    assert hashlib.sha256(name.encode() + b"\n" + key).hexdigest()[:8] == key_id
    split = note.rindex("\n\n") + 1
    text, signatures = note[:split], note[split + 1 :]
    [line] = signatures.splitlines()
    dash, signer, blob = line.split(" ")
    raw = base64.b64decode(blob)
    assert (dash, signer, raw[:4].hex()) == ("\u2014", name, key_id)
    Ed25519PublicKey.from_public_bytes(key[1:]).verify(raw[4:], text.encode())
    return text


def test_the_second_implementation_opens_the_note_of_the_go_documentation() -> None:
    text = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n"
    signature = "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM="
    note = f"{text}\n\u2014 PeterNeumann {signature}\n"
    assert go_note_open(note, "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW") == text


def test_a_checkpoint_is_a_c2sp_signed_note() -> None:
    text = go_note_open(NOTE, key_line(SESSION, PUBLIC))
    assert text == f"coding-agents/s-1\n12\n{base64.b64encode(ROOT).decode()}\ntime 2026-11-24T04:11:00.123456Z\n"


def test_opening_gives_back_what_was_signed() -> None:
    assert open_checkpoint(NOTE, PUBLIC) == SignedCheckpoint(
        session=SESSION, size=12, root=ROOT, time="2026-11-24T04:11:00.123456Z"
    )


@pytest.mark.parametrize(
    ("note", "says"),
    [
        ("", "not a signed note"),
        (NOTE + "\n", "not a signed note"),
        (NOTE + NOTE.splitlines()[-1] + "\n", "not a signed note"),
        (NOTE.replace("\n12\n", "\n13\n"), "signature is wrong"),
        (NOTE.replace("\n12\n", "\n012\n"), "canonical"),
        (NOTE.replace("time 2026", "time 2027"), "signature is wrong"),
        (NOTE.replace("ICEi", "ICEj"), "signature is wrong"),
        (NOTE.replace("coding-agents/s-1", "coding-agents/s-2"), "another key"),
        (NOTE.replace("coding-agents/s-1\n", "coding-agents/s-2\n", 1), "canonical"),
        (NOTE[:-3] + chr(ord(NOTE[-3]) + 1) + "=\n", "canonical"),
        (NOTE.replace("\u2014", "-"), "not a signed note"),
    ],
)
def test_a_note_that_differs_anywhere_is_refused(note: str, says: str) -> None:
    assert note != NOTE
    with pytest.raises(TrustError, match=says):
        open_checkpoint(note, PUBLIC)


def test_another_key_is_refused() -> None:
    with pytest.raises(TrustError, match="another key"):
        open_checkpoint(NOTE, OTHER_PUBLIC)


@pytest.mark.parametrize("text", ["", "AAAA", "!" * 44, PUBLIC + "AAAA", "é"])
def test_a_malformed_public_key_is_refused(text: str) -> None:
    with pytest.raises(TrustError, match="base64 of 32 bytes"):
        open_checkpoint(NOTE, text)


def test_the_public_key_file_reads_back() -> None:
    found = parse_key_line(key_line(SESSION, PUBLIC))
    assert (found.session, found.public_key) == (SESSION, PUBLIC)
    assert parse_key_line(key_line(SESSION, PUBLIC).strip()) == found


LINE = key_line(SESSION, PUBLIC)


@pytest.mark.parametrize(
    "text",
    [
        "",
        PUBLIC,
        LINE.replace("s-1", "s-2"),
        LINE.replace("s-1", "S_1"),
        LINE + LINE,
        "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
        LINE.replace("+AQ", "+Ag"),
    ],
)
def test_a_malformed_public_key_file_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="public key file"):
        parse_key_line(text)


def test_a_key_needs_32_random_bytes_and_is_never_shown() -> None:
    with pytest.raises(ValueError, match="32"):
        new_key(b"short")
    assert KEY.reveal() not in f"{KEY!r} {KEY}"
