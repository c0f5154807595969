from __future__ import annotations

import hashlib
from datetime import UTC, datetime

import pytest

from codingagents.trust.chain import Chain, genesis
from codingagents.trust.encoding import decode_line
from codingagents.trust.errors import ConfigError, EventLogError
from codingagents.trust.events import AnyEvent, HelperFailed, SessionEnded
from codingagents.trust.merkle import MerkleTree
from codingagents.trust.vocabulary import SessionId

NOW = datetime(2026, 11, 24, tzinfo=UTC)
SESSION = SessionId("s-1")
FIRST = HelperFailed(server="a", reason="first")
ENDED = SessionEnded(exit_code=0, reason="done")


def test_the_genesis_binds_the_session() -> None:
    assert genesis(SESSION) == hashlib.sha256(b"codingagents.dev/event-chain/v1\ns-1").hexdigest()
    assert genesis(SESSION) != genesis(SessionId("s-2"))


def test_each_line_holds_the_hash_of_the_line_before_it() -> None:
    chain, tree = Chain(SESSION), MerkleTree()
    previous = genesis(SESSION)
    entries: list[AnyEvent] = [FIRST, ENDED]
    for seq, event in enumerate(entries):
        line = chain.prepare(event, NOW)
        record = decode_line(line[:-1])
        assert (record.seq, record.prev, record.event) == (seq, previous, event)
        chain.commit(line)
        tree.append(line[:-1])
        previous = hashlib.sha256(line[:-1]).hexdigest()
        assert (chain.seq, chain.prev, chain.root()) == (seq + 1, previous, tree.root())


def test_a_line_that_was_not_written_changes_nothing() -> None:
    chain = Chain(SESSION)
    before = (chain.seq, chain.prev, chain.root())
    lost = chain.prepare(FIRST, NOW)
    assert (chain.seq, chain.prev, chain.root()) == before
    line = chain.prepare(ENDED, NOW)
    with pytest.raises(RuntimeError, match="prepared last"):
        chain.commit(lost)
    chain.commit(line)
    with pytest.raises(RuntimeError, match="prepared last"):
        chain.commit(line)
    assert chain.seq == 1


def test_an_event_that_cannot_be_recorded_changes_nothing() -> None:
    chain = Chain(SESSION)
    with pytest.raises(EventLogError):
        chain.prepare(HelperFailed(server="a", reason="\udc80"), NOW)
    assert (chain.seq, chain.prev) == (0, genesis(SESSION))


def test_a_malformed_session_id_is_refused() -> None:
    with pytest.raises(ConfigError, match="session id"):
        Chain(SessionId("../x"))
