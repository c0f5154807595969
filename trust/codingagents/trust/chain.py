"""CORE: the hash chain of one event log: what the next line is, and that it was written.

`prepare` and `commit` are apart so that a line which could not be written changes nothing. No I/O, no clock, no
keys: `checkpoint` signs what `root` returns, `verify` checks a finished log.
"""

from __future__ import annotations

import hashlib
from datetime import datetime

from codingagents.trust.encoding import encode_event, utc_text
from codingagents.trust.events import AnyEvent
from codingagents.trust.merkle import MerkleTree
from codingagents.trust.vocabulary import SessionId, parse_session_id

_GENESIS_PREFIX = "codingagents.dev/event-chain/v1\n"


def genesis(session: SessionId) -> str:
    r"""Return the `prev` of a session's first line: SHA-256, in hex, of "codingagents.dev/event-chain/v1\n" + session.

    It binds the session, so that no line of one session's log can open another's.
    """
    return hashlib.sha256((_GENESIS_PREFIX + session).encode()).hexdigest()


def line_hash(line: bytes) -> str:
    """Return the `prev` that follows `line` (without its newline): its SHA-256 in hex."""
    return hashlib.sha256(line).hexdigest()


class Chain:
    """The writer's end of one log. One line at a time: prepare, write, commit."""

    def __init__(self, session: SessionId) -> None:
        """Start an empty chain; a malformed session id raises `ConfigError`."""
        self.session = parse_session_id(session)
        self.seq = 0  # of the next line; also the number of lines committed
        self._prev = genesis(session)
        self._tree = MerkleTree()
        self._prepared: bytes | None = None
        self._committed: bytes | None = None  # not yet taken up

    @property
    def prev(self) -> str:
        """What the next line says of the line before it."""
        self.settle()
        return self._prev

    def prepare(self, event: AnyEvent, moment: datetime) -> bytes:
        """Return the next line, newline included, stamped with an aware `moment`.

        The chain stands where it stood: preparing again replaces the line. Raises `EventLogError` for an event that
        cannot be recorded.
        """
        line = encode_event(event, session=self.session, seq=self.seq, prev=self.prev, time=utc_text(moment))
        self._prepared = line
        return line

    def commit(self, line: bytes) -> None:
        """Take up `line`, which `prepare` returned last and which is now written."""
        if line != self._prepared:
            raise RuntimeError("only the line that was prepared last can be committed")
        self.settle()
        self._prepared = None
        self._committed = line
        self.seq += 1

    def settle(self) -> None:
        """Hash the line that was committed last, if that is still to do: the next `prepare` would, and waits for it."""
        if self._committed is not None:
            bare, self._committed = self._committed[:-1], None
            self._prev = line_hash(bare)
            self._tree.append(bare)

    def root(self) -> bytes:
        """Return the RFC 6962 root over the committed lines, each without its newline."""
        self.settle()
        return self._tree.root()
