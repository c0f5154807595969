"""CORE: one event, one line: CloudEvents 1.0 JSON in RFC 8785 bytes, and back.

The attributes are `specversion`, `id` ("<session>-<seq>"), `source`, `type` ("dev.codingagents." + the event's tag),
`time`, `datacontenttype`, the extensions `seq` (int) and `prev` (64 hex digits), and `data`, the event's fields.
RFC 8785 holds because keys are ASCII, values are str, int, bool, None, lists and objects, and msgspec writes strings
as ECMAScript does; a test compares with an independent encoder. Nothing here does I/O, reads a clock or knows what a
right `prev` is: see `chain` and `verify`.
"""

from __future__ import annotations

import datetime
import re
from typing import Any, Literal, get_args

import msgspec

from codingagents.trust.errors import EventLogError, WireError
from codingagents.trust.events import TYPE_PREFIX, AnyEvent, Event
from codingagents.trust.vocabulary import SessionId
from codingagents.trust.wire import Message

MAX_EVENT_LINE = 1024 * 1024  # bytes of one line, newline excluded; writers cap their fields far below

_SOURCE_PREFIX = "/coding-agents/sessions/"
_SOURCE = re.compile(re.escape(_SOURCE_PREFIX) + "([a-z0-9-]{1,64})", re.ASCII)
_PREV = re.compile("[0-9a-f]{64}", re.ASCII)
_MAX_SAFE_INTEGER = 2**53 - 1  # RFC 8785 numbers are IEEE 754 doubles


class Record(Message, frozen=True, kw_only=True):
    """One decoded line: the event and where it claims to stand."""

    session: SessionId
    seq: int  # 0 for the first line
    prev: str  # SHA-256 of the previous line's bytes without its newline, in hex; of the genesis for the first
    time: str  # RFC 3339, UTC, microseconds
    event: AnyEvent


class _Envelope(Message, frozen=True, kw_only=True):
    data: Any  # the event's fields: a dict to encode, undecoded bytes to decode
    datacontenttype: Literal["application/json"] = "application/json"
    id: str
    prev: str
    seq: int
    source: str
    specversion: Literal["1.0"] = "1.0"
    time: str
    type: str


class _RawEnvelope(_Envelope, frozen=True, kw_only=True):
    data: msgspec.Raw


_ENCODER = msgspec.json.Encoder(order="sorted")
_ENVELOPE_DECODER = msgspec.json.Decoder(_RawEnvelope)
_EVENT_DECODERS: dict[str, msgspec.json.Decoder[AnyEvent]] = {
    f"{TYPE_PREFIX}{kind.__struct_config__.tag}": msgspec.json.Decoder(kind) for kind in get_args(AnyEvent)
}


def utc_text(moment: datetime.datetime) -> str:
    """Return an aware `moment` as RFC 3339 in UTC with microseconds, `2026-11-24T04:11:00.123456Z`."""
    if moment.tzinfo is None:
        raise ValueError("a moment without a time zone is not a time")
    return moment.astimezone(datetime.UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def event_kind(event: Event) -> str:
    """Return the event's tag, as `exec.denied`."""
    return str(type(event).__struct_config__.tag)


def encode_event(event: AnyEvent, *, session: SessionId, seq: int, prev: str, time: str) -> bytes:
    """Return the line for `event`, newline included; `time` is `utc_text`.

    Raises `EventLogError` for an event that no reader would accept: over `MAX_EVENT_LINE`, or holding text that
    is not UTF-8 (bytes from outside go through `events.escape_bytes` first).
    """
    envelope = _Envelope(
        data=msgspec.structs.asdict(event),
        id=f"{session}-{seq}",
        prev=prev,
        seq=seq,
        source=_SOURCE_PREFIX + session,
        time=time,
        type=TYPE_PREFIX + event_kind(event),
    )
    try:
        line = _ENCODER.encode(envelope)
    except UnicodeEncodeError:
        raise EventLogError(f"an event {event_kind(event)} holds text that is not UTF-8") from None
    if len(line) > MAX_EVENT_LINE:
        raise EventLogError(
            f"an event {event_kind(event)} of {len(line)} bytes is over the limit of {MAX_EVENT_LINE}; cap its fields"
        )
    return line + b"\n"


def decode_line(line: bytes) -> Record:
    """Return what `line` (without its newline) holds, or raise `WireError`.

    Strict: a known type, exactly its fields, and the bytes that `encode_event` would have written for them.
    """
    if len(line) > MAX_EVENT_LINE:
        raise WireError(f"an event of {len(line)} bytes is over the limit of {MAX_EVENT_LINE}")
    try:
        envelope = _ENVELOPE_DECODER.decode(line)
        decoder = _EVENT_DECODERS.get(envelope.type)
        if decoder is None:
            raise WireError("the event's type is not one that this version knows")
        event = decoder.decode(envelope.data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise WireError(f"not an event: {error}") from None
    source = _SOURCE.fullmatch(envelope.source)
    if source is None:
        raise WireError("the event's source is not a session")
    if not 0 <= envelope.seq <= _MAX_SAFE_INTEGER or not _PREV.fullmatch(envelope.prev):
        raise WireError("the event's seq or prev is malformed")
    if not _is_utc_text(envelope.time):
        raise WireError("the event's time is not RFC 3339 in UTC with microseconds")
    session = SessionId(source.group(1))
    again = encode_event(event, session=session, seq=envelope.seq, prev=envelope.prev, time=envelope.time)
    if again[:-1] != line:
        raise WireError("the event is not in canonical form")
    return Record(session=session, seq=envelope.seq, prev=envelope.prev, time=envelope.time, event=event)


def _is_utc_text(text: str) -> bool:
    try:
        return utc_text(datetime.datetime.fromisoformat(text)) == text
    except (ValueError, OverflowError):  # not a time at all, without a zone, or outside the calendar in UTC
        return False
