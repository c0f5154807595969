"""CORE: proves that an event log is what its writer signed, or names the first line that does not hold.

One pass in constant memory over lines that may come from anyone. What a log cannot show by itself, that lines were
cut off its end while the session still ran, shows against a checkpoint that was kept outside. No I/O, no clock:
`logfile` reads; whether the times are plausible is the reader's judgement.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from codingagents.trust.chain import genesis, line_hash
from codingagents.trust.checkpoint import SignedCheckpoint, open_checkpoint
from codingagents.trust.encoding import Record, decode_line
from codingagents.trust.errors import ChainError, TrustError, WireError
from codingagents.trust.events import Checkpoint, SessionEnded
from codingagents.trust.merkle import MerkleTree
from codingagents.trust.vocabulary import SessionId


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """What a log that holds amounts to."""

    session: SessionId
    events: int  # lines, checkpoints included
    checkpoints: int
    covered: int  # lines that the last checkpoint proves, itself included; the rest is chained but unsigned
    closed: bool  # the last two lines are the session's end and its checkpoint
    last_time: str  # of the last line


def verify_log(
    lines: Iterable[bytes],
    public_key: str,
    *,
    expect_session: SessionId | None = None,
    last_known: str | None = None,
    open_ok: bool = False,
) -> Verified:
    """Return what the log (lines without newlines) amounts to, or raise `ChainError` with the first bad line.

    `public_key` is base64. `last_known` is a checkpoint's note that was kept outside the session: a log that ends
    before it was truncated, one that has another root was rewritten. A log must end with the session's end and a
    checkpoint over it, unless `open_ok` says that the session may still run; even then a checkpoint must cover
    something of it, for anybody can chain lines. Raises `TrustError` where the key or `last_known` itself is unusable.
    """
    known = None if last_known is None else open_checkpoint(last_known, public_key)
    if known is not None and expect_session not in (None, known.session):
        raise TrustError(f"the checkpoint kept outside is of session {known.session}, not {expect_session}")
    walk = _Walk(public_key, known.session if known else expect_session, known)
    rest = iter(lines)
    for line in rest:
        walk.take(line, rest)
    return walk.finish(open_ok=open_ok)


class _Walk:
    """The state between two lines; each check raises `ChainError`."""

    def __init__(self, public_key: str, session: SessionId | None, known: SignedCheckpoint | None) -> None:
        self._public_key = public_key
        self._session = session
        self._known = known
        self._tree = MerkleTree()
        self._prev = ""
        self._last: Record | None = None
        self._checkpoints = 0
        self._covered = 0
        self._closed = False

    def take(self, line: bytes, rest: Iterator[bytes]) -> None:
        """Check the next line; `rest` is read only to tell which of two lines was changed."""
        number = self._tree.size + 1
        try:
            record = decode_line(line)
        except WireError as error:
            raise ChainError(number, str(error)) from None
        if self._session is None:
            self._session = record.session
        if record.session != self._session:
            raise ChainError(number, f"it belongs to session {record.session}, not {self._session}")
        if record.seq != number - 1:
            raise ChainError(number, f"its seq is {record.seq} where {number - 1} follows: lines are missing or moved")
        if record.prev != (self._prev or genesis(self._session)):
            self._refuse_link(number, line, record, rest)
        if isinstance(record.event, Checkpoint):
            self._check_signature(number, record, record.event.note)
        self._closed = isinstance(record.event, Checkpoint) and self._ends_session()
        self._tree.append(line)
        self._prev = line_hash(line)
        self._last = record
        if self._known is not None and self._known.size == number and self._known.root != self._tree.root():
            raise ChainError(number, "lines up to this one differ from those that the checkpoint kept outside covers")

    def finish(self, *, open_ok: bool) -> Verified:
        """Check what the end of the log shows."""
        end = self._tree.size
        if self._known is not None and self._known.size > end:
            raise ChainError(end + 1, f"it is missing: the checkpoint kept outside covers {self._known.size} lines")
        if self._session is None or self._last is None:
            raise ChainError(1, "the log is empty")
        if not self._covered and self._known is None:
            raise ChainError(1, "no checkpoint covers it: nothing of the log is signed")
        if not open_ok:
            if self._covered < end:
                raise ChainError(self._covered + 1, "no checkpoint covers it: it is unsigned, or the log was cut off")
            if not self._closed:
                raise ChainError(end + 1, "it is missing: the log ends before its session does")
        return Verified(
            session=self._session,
            events=end,
            checkpoints=self._checkpoints,
            covered=self._covered,
            closed=self._closed,
            last_time=self._last.time,
        )

    def _ends_session(self) -> bool:
        return self._last is not None and isinstance(self._last.event, SessionEnded)

    def _check_signature(self, number: int, record: Record, note: str) -> None:
        try:
            signed = open_checkpoint(note, self._public_key)
        except TrustError as error:
            raise ChainError(number, str(error)) from None
        # With these, and seq and prev checked above, no byte of a checkpoint's line is free.
        if (signed.session, signed.size, signed.time) != (record.session, number - 1, record.time):
            raise ChainError(number, "its checkpoint was signed for another line")
        if signed.root != self._tree.root():
            raise ChainError(
                number,
                f"its checkpoint was signed over other lines: one of {self._covered + 1} to {number - 1} was rewritten",
            )
        self._checkpoints += 1
        self._covered = number

    def _refuse_link(self, number: int, line: bytes, record: Record, rest: Iterator[bytes]) -> None:
        """`prev` of this line is not the hash of the one before: name the one that was changed."""
        if number > 1 and self._vouched(number, line, record, rest):
            raise ChainError(number - 1, f"it was changed: line {number} holds another hash of it")
        raise ChainError(number, "its prev is not the hash of the line before it" if number > 1 else "wrong genesis")

    def _vouched(self, number: int, line: bytes, record: Record, rest: Iterator[bytes]) -> bool:
        """Whether something else vouches for this line, so that the one before it must be the changed one."""
        if self._covered == number - 1:
            return False  # the line before is a checkpoint, of which no byte is free
        if isinstance(record.event, Checkpoint):
            try:
                return open_checkpoint(record.event.note, self._public_key).root != self._tree.root()
            except TrustError:
                return False
        try:
            return decode_line(next(rest, b"")).prev == line_hash(line)
        except WireError:
            return False
