"""Whatever room there is when: nothing is torn, nothing is lost without being counted, and the chain verifies."""

import functools
import os
import resource
import tempfile
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from codingagents.supervisor.event_log import EventLog
from codingagents.trust import checkpoint
from codingagents.trust.encoding import decode_line
from codingagents.trust.errors import EventLogError
from codingagents.trust.events import EventsGap, HelperFailed, SessionEnded
from codingagents.trust.verify import verify_log
from codingagents.trust.vocabulary import SessionId

SESSION = SessionId("s-1")
KEY = checkpoint.new_key(b"\1" * 32)
MOMENT = datetime(2026, 11, 24, tzinfo=UTC)

# What happens next: an append of so many bytes, a checkpoint, or that the file may grow by only so much from here.
steps = st.lists(
    st.tuples(st.just("append"), st.integers(0, 400))
    | st.tuples(st.just("checkpoint"), st.just(0))
    | st.tuples(st.just("room"), st.integers(0, 2000)),
    max_size=25,
)


@settings(max_examples=60)
@given(steps)
def test_every_event_is_in_the_log_or_counted_as_lost(script: list[tuple[str, int]]) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    recorded: list[str] = []
    lost = 0
    notes: list[str] = []
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "events.jsonl")
        log = EventLog(
            os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND),
            SESSION,
            functools.partial(checkpoint.sign_checkpoint, KEY, session=SESSION),
            on_checkpoint=notes.append,
            now=lambda: MOMENT,
        )
        try:
            for number, (what, size) in enumerate(script):
                if what == "room":
                    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + size, hard))
                elif what == "checkpoint":
                    log.checkpoint()
                else:
                    reason = f"{number} {'x' * size}"
                    try:
                        log.append(HelperFailed(server="s", reason=reason))
                    except EventLogError:
                        lost += 1
                    else:
                        recorded.append(reason)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        log.close(SessionEnded(exit_code=0, reason="done"))
        lines = path.read_bytes().splitlines()
    verified = verify_log(lines, checkpoint.public_key(KEY), last_known=notes[-1])
    assert verified.closed
    events = [decode_line(line).event for line in lines]
    assert [event.reason for event in events if isinstance(event, HelperFailed)] == recorded
    gaps = [event for event in events if isinstance(event, EventsGap)]
    assert sum(gap.lost for gap in gaps) == lost
    counted: Counter[str] = sum((Counter(gap.lost_kinds) for gap in gaps), Counter())
    assert counted == +Counter({"helper.failed": lost})
