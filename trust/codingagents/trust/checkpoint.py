"""CORE: signed checkpoints of an event log, and the keys that make and check them.

A checkpoint is a C2SP tlog-checkpoint in a C2SP signed note: the origin "coding-agents/<session>", the number of lines
before it, their RFC 6962 root (each line without its newline), and one extension line, "time …", so that the log's
last line has no byte that nothing signs. One Ed25519 signature, whose key name is the origin. Witness cosignatures
are not read. No I/O, no clock; randomness is passed in. `cryptography` is imported at first use: whoever only chains
need not load it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from datetime import datetime
from typing import TYPE_CHECKING

from codingagents.trust.encoding import utc_text
from codingagents.trust.errors import ConfigError, TrustError
from codingagents.trust.vocabulary import Secret, SessionId
from codingagents.trust.wire import Message

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

_ORIGIN_PREFIX = "coding-agents/"
_ED25519 = b"\x01"  # C2SP signed-note signature type
_NOTE = re.compile(
    r"coding-agents/(?P<session>[a-z0-9-]{1,64})\n"
    r"(?P<size>[0-9]{1,16})\n"
    r"(?P<root>[A-Za-z0-9+/]{43}=)\n"
    r"time (?P<time>[0-9TZ:.-]{27})\n"
    r"\n"
    r"\u2014 coding-agents/(?P<signer>[a-z0-9-]{1,64}) (?P<signature>[A-Za-z0-9+/]{91}=)\n",
    re.ASCII,
)
_KEY_LINE = re.compile(
    r"coding-agents/(?P<session>[a-z0-9-]{1,64})\+(?P<id>[0-9a-f]{8})\+(?P<key>[A-Za-z0-9+/]{44})\n?", re.ASCII
)


class SignedCheckpoint(Message, frozen=True, kw_only=True):
    """What a note whose signature was checked says."""

    session: SessionId
    size: int  # lines that it covers
    root: bytes  # 32 bytes
    time: str  # as `encoding.utc_text`; the time of the log line that carries the note


class VerifyingKey(Message, frozen=True, kw_only=True):
    """A session's public key, as its file holds it."""

    session: SessionId
    public_key: str  # base64 of 32 bytes


def new_key(random: bytes) -> Secret:
    """Return a signing key (base64 of the seed) made of 32 random bytes."""
    if len(random) != 32:
        raise ValueError("an Ed25519 key is made of 32 random bytes")
    return Secret(_base64(random))


def public_key(key: Secret) -> str:
    """Return the public half of a signing key as base64 of its 32 bytes."""
    return _base64(_private(key).public_key().public_bytes_raw())


def sign_checkpoint(key: Secret, *, session: SessionId, size: int, root: bytes, moment: datetime) -> str:
    """Return the signed note over the first `size` lines of a session's log.

    `moment` must be the one that the line which carries the note is stamped with.
    """
    signing = _private(key)
    text = _text(session, size, root, utc_text(moment))
    signature = _key_id(session, signing.public_key().public_bytes_raw()) + signing.sign(text.encode())
    return _note(text, session, signature)


def open_checkpoint(note: str, public_key: str) -> SignedCheckpoint:
    """Return what `note` says if `public_key` (base64) signed it, or raise `TrustError`."""
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415 -- 36 ms that most importers never need
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415 -- likewise

    raw_key = _raw_key(public_key)
    found = _NOTE.fullmatch(note)
    if found is None:
        raise TrustError("the checkpoint is not a signed note of an event log")
    session, size, root = SessionId(found["session"]), int(found["size"]), base64.b64decode(found["root"])
    text = _text(session, size, root, found["time"])
    signature = base64.b64decode(found["signature"])
    # Written again, so that no second spelling of the same note (base64's spare bits, leading zeros) is accepted.
    if note != _note(text, session, signature):
        raise TrustError("the checkpoint is not in canonical form")
    if signature[:4] != _key_id(session, raw_key):
        raise TrustError("the checkpoint is signed by another key")
    try:
        Ed25519PublicKey.from_public_bytes(raw_key).verify(signature[4:], text.encode())
    except InvalidSignature:
        raise TrustError("the checkpoint's signature is wrong") from None
    return SignedCheckpoint(session=session, size=size, root=root, time=found["time"])


def key_line(session: SessionId, public_key: str) -> str:
    """Return a public key's file: one C2SP verifier key line, "coding-agents/<session>+<key id>+<base64>"."""
    raw_key = _raw_key(public_key)
    return f"{_ORIGIN_PREFIX}{session}+{_key_id(session, raw_key).hex()}+{_base64(_ED25519 + raw_key)}\n"


def parse_key_line(text: str) -> VerifyingKey:
    """Return the key that `key_line` wrote, or raise `ConfigError`."""
    found = _KEY_LINE.fullmatch(text)
    if found is not None:
        session, typed_key = SessionId(found["session"]), base64.b64decode(found["key"])
        if typed_key[:1] == _ED25519 and _key_id(session, typed_key[1:]).hex() == found["id"]:
            return VerifyingKey(session=session, public_key=_base64(typed_key[1:]))
    raise ConfigError(
        'a public key file holds one line "coding-agents/SESSION+ID+KEY", as the session printed it; this one does not'
    )


def _text(session: SessionId, size: int, root: bytes, time: str) -> str:
    return f"{_ORIGIN_PREFIX}{session}\n{size}\n{_base64(root)}\ntime {time}\n"


def _note(text: str, session: SessionId, signature: bytes) -> str:
    return f"{text}\n\u2014 {_ORIGIN_PREFIX}{session} {_base64(signature)}\n"


def _key_id(session: SessionId, raw_key: bytes) -> bytes:
    name = (_ORIGIN_PREFIX + session).encode()
    return hashlib.sha256(name + b"\n" + _ED25519 + raw_key).digest()[:4]


def _private(key: Secret) -> Ed25519PrivateKey:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415 -- see above

    return Ed25519PrivateKey.from_private_bytes(base64.b64decode(key.reveal(), validate=True))


def _raw_key(public_key: str) -> bytes:
    try:
        raw = base64.b64decode(public_key, validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    if len(raw) != 32:
        raise TrustError("the public key is not base64 of 32 bytes")
    return raw


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()
