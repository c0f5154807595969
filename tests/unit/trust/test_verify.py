from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta

import pytest

from codingagents.trust.chain import Chain, line_hash
from codingagents.trust.checkpoint import new_key, public_key, sign_checkpoint
from codingagents.trust.encoding import decode_line, encode_event
from codingagents.trust.errors import ChainError, TrustError
from codingagents.trust.events import AnyEvent, Checkpoint, HelperFailed, SessionEnded
from codingagents.trust.verify import Verified, verify_log
from codingagents.trust.vocabulary import Secret, SessionId

SESSION = SessionId("s-1")
KEY = new_key(bytes(range(32)))
PUBLIC = public_key(KEY)
START = datetime(2026, 11, 24, tzinfo=UTC)
ENDED = SessionEnded(exit_code=0, reason="done")
SIGN = None  # in a script: a checkpoint here


def failed(reason: str) -> AnyEvent:
    return HelperFailed(server="a", reason=reason)


def write_log(script: Sequence[AnyEvent | None], *, session: SessionId = SESSION, key: Secret = KEY) -> list[bytes]:
    """The lines that a supervisor would write, one second apart."""
    chain, lines = Chain(session), list[bytes]()
    for second, event in enumerate(script):
        moment = START + timedelta(seconds=second)
        note = sign_checkpoint(key, session=session, size=chain.seq, root=chain.root(), moment=moment)
        line = chain.prepare(Checkpoint(note=note) if event is SIGN else event, moment)
        chain.commit(line)
        lines.append(line[:-1])
    return lines


SCRIPT = [failed("0"), failed("1"), SIGN, failed("3"), failed("4"), ENDED, SIGN]
LOG = write_log(SCRIPT)


def note_of(line: bytes) -> str:
    event = decode_line(line).event
    assert isinstance(event, Checkpoint)
    return event.note


def rechain(lines: Sequence[bytes], changed: dict[int, AnyEvent]) -> list[bytes]:
    """What a forger without the key can do: change events (by index) and write the chain anew, notes as they were."""
    chain, forged = Chain(SESSION), list[bytes]()
    for index, line in enumerate(lines):
        record = decode_line(line)
        new = chain.prepare(changed.get(index, record.event), datetime.fromisoformat(record.time))
        chain.commit(new)
        forged.append(new[:-1])
    return forged


def refused_line(lines: Sequence[bytes], says: str = "line", **options: object) -> int:
    with pytest.raises(ChainError, match=says) as refused:
        verify_log(lines, PUBLIC, **options)  # type: ignore[arg-type]  # options of a table
    return refused.value.line


def test_a_whole_log_holds() -> None:
    assert verify_log(LOG, PUBLIC, expect_session=SESSION, last_known=note_of(LOG[-1])) == Verified(
        session=SESSION,
        events=7,
        checkpoints=2,
        covered=7,
        closed=True,
        last_time="2026-11-24T00:00:06.000000Z",
    )


def test_a_forger_who_writes_the_chain_anew_is_found_at_the_next_checkpoint() -> None:
    for changed, line in ((0, 3), (1, 3), (3, 7), (5, 7)):
        event: AnyEvent = SessionEnded(exit_code=1, reason="forged") if changed == 5 else failed("forged")
        assert refused_line(rechain(LOG, {changed: event}), "signed over other lines") == line


def test_a_forger_who_signs_with_a_key_of_their_own_is_found() -> None:
    assert refused_line(write_log(SCRIPT, key=new_key(b"\1" * 32)), "another key") == 3


def test_a_forger_who_leaves_the_checkpoints_out_is_found() -> None:
    forged = write_log([failed("0"), failed("forged"), ENDED])
    assert refused_line(forged, "no checkpoint covers") == 1


def test_a_checkpoint_of_an_earlier_moment_of_the_same_log_is_found() -> None:
    replayed = rechain(LOG, {6: Checkpoint(note=note_of(LOG[2]))})
    assert refused_line(replayed, "another line") == 7


def test_the_time_of_a_checkpoints_line_is_signed_too() -> None:
    record = decode_line(LOG[-1])
    line = encode_event(
        record.event, session=SESSION, seq=record.seq, prev=record.prev, time="2026-11-24T00:00:07.000000Z"
    )
    assert refused_line([*LOG[:-1], line[:-1]], "another line") == 7


@pytest.mark.parametrize("keep", range(7))
def test_a_log_that_was_cut_off_is_refused(keep: int) -> None:
    line = refused_line(LOG[:keep])
    assert line == {0: 1, 1: 1, 2: 1, 3: 4, 4: 4, 5: 4, 6: 4}[keep]


@pytest.mark.parametrize(("keep", "covered"), [(3, 3), (4, 3), (6, 3), (7, 7)])
def test_an_open_log_may_end_anywhere_and_says_how_much_is_signed(keep: int, covered: int) -> None:
    verified = verify_log(LOG[:keep], PUBLIC, open_ok=True)
    assert (verified.events, verified.covered, verified.closed) == (keep, covered, keep == 7)


@pytest.mark.parametrize("keep", [1, 2])
def test_a_log_that_nobody_signed_is_refused_even_where_it_may_be_open(keep: int) -> None:
    """Without the key anybody can make such a one; a checkpoint kept outside is as good as one inside."""
    assert refused_line(LOG[:keep], "nothing of the log is signed", open_ok=True) == 1
    assert verify_log(LOG[:2], PUBLIC, open_ok=True, last_known=note_of(LOG[2])).covered == 0


def test_an_empty_log_is_refused_even_where_it_may_be_open() -> None:
    assert refused_line([], "empty", open_ok=True) == 1


def test_a_session_that_ended_and_went_on_is_not_closed() -> None:
    assert refused_line(write_log([ENDED, SIGN, failed("after"), SIGN]), "before its session does") == 5
    assert refused_line(write_log([failed("0"), SIGN]), "before its session does") == 3


def test_a_checkpoint_kept_outside_shows_truncation() -> None:
    for keep in range(1, 6):
        line = refused_line(LOG[:keep], "covers 6 lines", open_ok=True, last_known=note_of(LOG[-1]))
        assert line == keep + 1
    assert verify_log(LOG[:6], PUBLIC, open_ok=True, last_known=note_of(LOG[-1])).events == 6


def test_a_checkpoint_kept_outside_shows_a_rewrite_even_by_the_owner_of_the_key() -> None:
    rewritten = write_log([failed("other"), *SCRIPT[1:]])
    assert verify_log(rewritten, PUBLIC).closed
    assert refused_line(rewritten, "kept outside", last_known=note_of(LOG[2])) == 2


def test_a_checkpoint_kept_outside_must_be_of_this_key_and_session() -> None:
    foreign = write_log([ENDED, SIGN], key=new_key(b"\1" * 32))[1]
    with pytest.raises(TrustError, match="another key"):
        verify_log(LOG, PUBLIC, last_known=note_of(foreign))
    other = note_of(write_log([ENDED, SIGN], session=SessionId("s-2"))[1])
    assert refused_line(LOG, "session s-1, not s-2", last_known=other) == 1
    with pytest.raises(TrustError, match="of session s-2, not s-1"):
        verify_log(LOG, PUBLIC, expect_session=SESSION, last_known=other)


def test_another_sessions_log_or_line_is_refused() -> None:
    other = write_log(SCRIPT, session=SessionId("s-2"))
    assert refused_line(other, "session s-2, not s-1", expect_session=SESSION) == 1
    assert refused_line([*LOG[:4], other[4], *LOG[5:]], "session s-2") == 5


def test_a_log_that_starts_from_another_genesis_is_refused() -> None:
    record = decode_line(LOG[0])
    line = encode_event(record.event, session=SESSION, seq=0, prev="0" * 64, time=record.time)[:-1]
    assert refused_line([line, *LOG[1:]], "genesis") == 1


def test_a_changed_line_is_named_and_not_the_one_after_it() -> None:
    for index in (0, 1, 3, 4, 5):
        changed = LOG[index].replace(b"T00:00:0", b"T00:00:5")
        assert refused_line([*LOG[:index], changed, *LOG[index + 1 :]], "it was changed") == index + 1


def test_a_changed_prev_is_named_and_not_the_line_before_it() -> None:
    for index in range(1, 7):
        record = decode_line(LOG[index])
        changed = LOG[index].replace(record.prev.encode(), b"0" * 64)
        assert refused_line([*LOG[:index], changed, *LOG[index + 1 :]], "prev is not the hash") == index + 1


def test_a_signed_checkpoint_is_not_blamed_for_a_chain_that_leaves_it() -> None:
    prev, forged = "0" * 64, list[bytes]()
    for line in LOG[3:6]:
        record = decode_line(line)
        forged.append(encode_event(record.event, session=SESSION, seq=record.seq, prev=prev, time=record.time)[:-1])
        prev = line_hash(forged[-1])
    assert refused_line([*LOG[:3], *forged, LOG[6]], "prev is not the hash") == 4


def test_two_lines_that_were_changed_are_still_refused() -> None:
    forged = [line.replace(b"T00:00:0", b"T00:00:5") for line in LOG[:2]] + [b"junk"]
    assert refused_line(forged) == 2
    broken_note = LOG[2].replace(decode_line(LOG[2]).prev.encode(), b"0" * 64).replace(b"coding-agents/s-1", b"x", 1)
    assert refused_line([*LOG[:2], broken_note, *LOG[3:]]) == 3


def test_the_lines_are_read_once_and_one_by_one() -> None:
    read: list[int] = []

    def source() -> Iterator[bytes]:
        for number, line in enumerate(LOG):
            read.append(number)
            yield line if number != 3 else b"{}"

    assert refused_line(source()) == 4  # type: ignore[arg-type]  # a generator on purpose
    assert read == [0, 1, 2, 3]
