"""The list of helpers as a person sees it."""

import msgspec
import pytest

from codingagents.supervisor.helper_listing import HelperList, HelperRow, Memory, Totals, TrustRow
from codingagents.supervisor.helper_view import as_text, duration, size, trust_marks
from codingagents.trust import facts

ROW = HelperRow(
    server="github",
    state="ready",
    uid=50001,
    pid=12,
    listen="http://127.0.0.1:4567",
    uptime_seconds=75.5,
    restarts=1,
    requests=20,
    errors=3,
    refused=2,
    connections=4,
    upstream_connections=5,
    upstream="ok",
    degraded=[],
    memory=Memory(uss_bytes=4_100_000, pss_bytes=5_000_000, rss_bytes=20_000_000, taken_at="now"),
)
HOSTILE = HelperRow(
    server="docs",
    state="degraded",
    uid=50002,
    pid=None,
    listen="unix:/run/coding-agents/mcp/docs.sock",
    uptime_seconds=None,
    restarts=0,
    requests=0,
    errors=0,
    refused=0,
    connections=0,
    upstream_connections=0,
    upstream="failing",
    degraded=["the upstream fails: \x1b[2Jgone"],
)
TRUST = TrustRow(
    pin_mode="enforce",
    pins_expire="2027-04-15",
    pins_days_left=120,
    credential="pinned",
    store="host",
    store_sha256="0" * 64,
    overrides=["corp"],
    overrides_pins=[],
    anchored_by="host",
    leaf_sha256="1" * 64,
    leaf_not_after="2027-03-05T00:00:00Z",
    leaf_days_left=60,
)
LIST = HelperList(session="s-1", taken_at="now", helpers=[ROW, HOSTILE])


def test_a_pipe_gets_a_line_a_helper() -> None:
    first, second = as_text(LIST, terminal=False).splitlines()
    assert first == (
        "github ready http://127.0.0.1:4567 uid 50001 pid 12 up 1m restarts 1 requests 20 errors 3 refused 2"
        " connections 4 upstream 5 ok MB 4.1"
    )
    assert second.startswith("docs degraded unix:/run/coding-agents/mcp/docs.sock uid 50002 pid - up - ")
    assert second.endswith(r" failing MB -: the upstream fails: \x1b[2Jgone")


def test_a_terminal_gets_a_table_that_nothing_can_steer() -> None:
    text = as_text(LIST, terminal=True)
    assert "refused" in text
    assert "4.1" in text
    assert "\x1b[2J" not in text


def test_no_helpers_is_said() -> None:
    empty = HelperList(session="s-1", taken_at="now", helpers=[])
    assert as_text(empty, terminal=False) == as_text(empty, terminal=True) == "session s-1 has no helpers\n"


@pytest.mark.parametrize(
    ("seconds", "expected"), [(None, "-"), (0.4, "0s"), (59.9, "59s"), (60, "1m"), (7199, "1h"), (200_000, "2d")]
)
def test_durations(seconds: float | None, expected: str) -> None:
    assert duration(seconds) == expected


def test_where_only_residence_is_known_it_is_marked_so() -> None:
    memory = Memory(uss_bytes=None, pss_bytes=None, rss_bytes=20_000_000, taken_at="now")
    row = HelperRow(**{name: getattr(ROW, name) for name in ROW.__struct_fields__} | {"memory": memory})
    assert size(row) == "<=20.0"


def test_totals_add_up_what_processes_said() -> None:
    pong = facts.Pong(number=1, connections=9, upstream_connections=9, requests=5, errors=2, refused=1)
    totals = Totals().plus(pong).plus(None).plus(pong)
    assert totals == Totals(requests=10, errors=4, refused=2)


def test_how_a_server_is_trusted_follows_its_counts() -> None:
    listed = HelperList(session="s-1", taken_at="now", helpers=[msgspec.structs.replace(ROW, trust=TRUST)])
    line = as_text(listed, terminal=False).rstrip()
    assert line.endswith(" MB 4.1 pins enforce 120d leaf 60d by host credential pinned")
    assert "github: http://127.0.0.1:4567, pins enforce 120d, leaf 60d, by host," in as_text(listed, terminal=True)
    assert trust_marks(TRUST) == []


@pytest.mark.parametrize(
    ("changed", "mark"),
    [
        ({"credential": "without-pin", "pin_mode": "off"}, "CREDENTIAL WITHOUT PIN"),
        ({"overrides_pins": ["corp", "lab"]}, "PINS OVERRIDDEN by corp lab"),
        ({"pins_days_left": -1}, "PINS EXPIRED"),
        ({"leaf_days_left": -2}, "CERTIFICATE EXPIRED"),
    ],
)
def test_what_nobody_should_overlook_is_marked_in_both_forms(changed: dict[str, object], mark: str) -> None:
    row = msgspec.structs.replace(ROW, trust=msgspec.structs.replace(TRUST, **changed))
    listed = HelperList(session="s-1", taken_at="now", helpers=[row])
    assert f" [{mark}]" in as_text(listed, terminal=False)
    assert f"github: {mark}" in as_text(listed, terminal=True)


def test_what_a_helper_says_of_its_anchor_steers_no_terminal() -> None:
    """And what has not been seen yet is a dash."""
    odd = msgspec.structs.replace(TRUST, anchored_by="\x1b[2J", leaf_days_left=None, pins_days_left=None)
    listed = HelperList(session="s-1", taken_at="now", helpers=[msgspec.structs.replace(ROW, trust=odd)])
    assert "\x1b[2J" not in as_text(listed, terminal=True) + as_text(listed, terminal=False)
    assert " pins enforce - leaf - by " in as_text(listed, terminal=False)
