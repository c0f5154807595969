"""Whatever is done to the lines of a log is found, at the line where it was done."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codingagents.trust.chain import Chain
from codingagents.trust.checkpoint import new_key, public_key, sign_checkpoint
from codingagents.trust.errors import ChainError
from codingagents.trust.events import AnyEvent, Checkpoint, HelperFailed, SessionEnded
from codingagents.trust.verify import verify_log
from codingagents.trust.vocabulary import SessionId
from strategies import log_events

SESSION = SessionId("s")
KEY = new_key(b"\7" * 32)
PUBLIC = public_key(KEY)
START = datetime(2026, 11, 24, tzinfo=UTC)
ENDED = SessionEnded(exit_code=0, reason="")


def write_log(events: list[AnyEvent], every: int) -> list[bytes]:
    """A closed log of `events` with a checkpoint after each `every` of them."""
    chain, lines = Chain(SESSION), list[bytes]()

    def append(event: AnyEvent) -> None:
        line = chain.prepare(event, START + timedelta(seconds=chain.seq))
        chain.commit(line)
        lines.append(line[:-1])

    def sign() -> None:
        moment = START + timedelta(seconds=chain.seq)
        note = sign_checkpoint(KEY, session=SESSION, size=chain.seq, root=chain.root(), moment=moment)
        append(Checkpoint(note=note))

    for index, event in enumerate(events, start=1):
        append(event)
        if index % every == 0:
            sign()
    append(ENDED)
    sign()
    return lines


LOG = write_log([HelperFailed(server="s", reason=str(index)) for index in range(8)], 3)
indices = st.integers(0, len(LOG) - 1)


def refused(lines: list[bytes]) -> int:
    with pytest.raises(ChainError) as error:
        verify_log(lines, PUBLIC, expect_session=SESSION)
    return error.value.line


@given(st.lists(log_events, max_size=6), st.integers(1, 4))
def test_every_log_that_is_written_verifies(events: list[AnyEvent], every: int) -> None:
    log = write_log(events, every)
    verified = verify_log(log, PUBLIC, expect_session=SESSION)
    assert (verified.events, verified.covered, verified.closed) == (len(log), len(log), True)


@given(indices, st.data())
def test_a_changed_byte_is_found_at_its_line(index: int, data: st.DataObject) -> None:
    line = LOG[index]
    at = data.draw(st.integers(0, len(line) - 1))
    byte = data.draw(st.integers(0, 255).filter(lambda value: value != line[at]))
    changed = line[:at] + bytes([byte]) + line[at + 1 :]
    assert refused([*LOG[:index], changed, *LOG[index + 1 :]]) == index + 1


@given(indices)
def test_a_dropped_line_is_found_where_it_was(index: int) -> None:
    line = refused([*LOG[:index], *LOG[index + 1 :]])
    if index == len(LOG) - 1:  # nothing follows: what shows is that the lines since the last checkpoint are unsigned
        assert line <= len(LOG)
    else:
        assert line == index + 1


@given(indices, indices)
def test_swapped_lines_are_found_at_the_first_of_them(first: int, second: int) -> None:
    if first != second:
        lines = LOG.copy()
        lines[first], lines[second] = lines[second], lines[first]
        assert refused(lines) == min(first, second) + 1


@given(indices, st.integers(0, len(LOG)))
def test_an_inserted_or_repeated_line_is_found(index: int, at: int) -> None:
    found = refused([*LOG[:at], LOG[index], *LOG[at:]])
    # Beside itself a copy is found as the second of the two.
    assert found == (at + 2 if index == at else at + 1)


@given(indices)
def test_a_log_cut_anywhere_is_refused(keep: int) -> None:
    assert refused(LOG[:keep]) <= keep + 1
