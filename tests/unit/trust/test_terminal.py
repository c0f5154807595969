from __future__ import annotations

from typing import Any

import pytest

from codingagents.trust import events
from codingagents.trust.encoding import Record
from codingagents.trust.events import AnyEvent
from codingagents.trust.terminal import MAX_WIDTH, printable, render
from codingagents.trust.vocabulary import SessionId


def record(event: AnyEvent) -> Record:
    return Record(session=SessionId("s"), seq=7, prev="0" * 64, time="2026-11-24T04:11:00.123456Z", event=event)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain é \U0001f600", "plain é \U0001f600"),
        ("\x1b[2J\x07", "\\x1b[2J\\x07"),
        ("a\nb\tc\r", "a\\nb\\tc\\r"),
        ("\x9b31m", "\\x9b31m"),
        ("\u202eabc\u2066", "\\u202eabc\\u2066"),
        ("\u2028", "\\u2028"),
        ("\udcff", "\\udcff"),
        ("\U000e0041", "\\U000e0041"),
    ],
)
def test_nothing_that_steers_a_terminal_is_left(text: str, shown: str) -> None:
    assert printable(text) == shown


EXEC: dict[str, Any] = {
    "role": "agent",
    "process_pid": 12,
    "thread_id": 12,
    "interpreters": [],
    "executable_file": "",
    "executable_sha256": "",
    "digest": "later",
    "process_parent_pid": 1,
    "user_id": 5001,
    "executable_path": "/bin/sh",
    "resolved_path": "/usr/bin/dash",
    "working_directory": "/",
    "command_args": ["sh", "-c", "echo \x1b[2J"],
    "args_total_bytes": 0,
    "args_sha256": "",
    "args_truncated": True,
    "rule": "deny /bin/*",
    "reason": "a rule forbids it",
    "firmness": "advisory",
    "verified": "none",
}


@pytest.mark.parametrize(
    ("event", "tells"),
    [
        (
            events.SessionStarted(
                agent="claude",
                engine="local",
                servers=["a", "b"],
                config_sha256="",
                exec_mode="observe",
                uids={},
                accounts="there",
                supervisor_version="1",
            ),
            "claude on local, a, b, exec observe",
        ),
        (
            events.LayerReport(
                role="agent",
                layers=[
                    events.Layer(
                        layer="landlock",
                        wanted="prefer",
                        state="enforced",
                        mechanism="",
                        probe="",
                        observed_by="observed",
                    )
                ],
            ),
            "agent: landlock enforced",
        ),
        (events.AgentStarted(process_pid=4, user_id=5, command=["a b", "c"]), "pid 4 uid 5: 'a b' c"),
        (events.SessionEnded(exit_code=3, reason="agent exited"), "exit 3: agent exited"),
        (events.HelperStarting(server="a", user_id=5, attempt=2), "a uid 5, attempt 2"),
        (
            events.HelperReady(server="a", user_id=5, process_pid=4, listen="127.0.0.1:80", open_fds=[]),
            "a pid 4 uid 5 on 127.0.0.1:80",
        ),
        (
            events.HelperStopped(
                server="a", user_id=5, process_pid=4, exit_code=137, reason="killed", restart_in_ms=100
            ),
            "a pid 4 exit 137, back in 100 ms: killed",
        ),
        (
            events.HelperStopped(server="a", user_id=5, process_pid=4, exit_code=0, reason="ended", restart_in_ms=None),
            "a pid 4 exit 0, not restarted: ended",
        ),
        (events.HelperFailed(server="a", reason="budget"), "a: budget"),
        (events.HelperRefused(server="a", reason="bearer", peer_user_id=7), "a refused uid 7: bearer"),
        (events.HelperRefused(server="a", reason="uid", peer_user_id=None), "a refused unknown caller: uid"),
        (
            events.HelperRequest(
                server="a",
                http_request_method="POST",
                http_response_status_code=504,
                error_type="timeout",
                request_bytes=1,
                response_bytes=2,
                duration_ms=3,
            ),
            "a POST 504 timeout, 1 B up, 2 B down, 3 ms",
        ),
        (
            events.PinMismatch(server="a", server_address="h:1", expected=["x", "y"], seen=["z"]),
            "a at h:1: expected x, y; seen z",
        ),
        (events.UpstreamFailed(server="a", error_type="dns", detail="no such name"), "a dns: no such name"),
        (events.FactsDropped(server="a", dropped=9), "a: 9 facts over its quota"),
        (
            events.ExecAllowed(**EXEC),
            "agent pid 12 uid 5001 /usr/bin/dash: sh -c 'echo \\x1b[2J' … [deny /bin/*]",
        ),
        (
            events.ExecDigest(
                role="agent", resolved_path="/bin/x", executable_file="", executable_sha256="ab", bytes=1, problem=None
            ),
            "agent /bin/x: ab",
        ),
        (
            events.ExecPolicyLoaded(
                role="agent",
                mode="enforce",
                trees=["/usr"],
                rules=[events.PolicyRule(rule="deny /tmp/**", firmness="firm", why="")],
            ),
            "agent enforce: deny /tmp/** (firm)",
        ),
        (
            events.ExecDenied(**{**EXEC, "resolved_path": "", "args_truncated": False}, errno="EPERM"),
            "EPERM (advisory) agent pid 12 uid 5001 /bin/sh: sh -c 'echo \\x1b[2J' [deny /bin/*] a rule forbids it",
        ),
        (
            events.EventsGap(lost=3, lost_kinds={}, since="then", reason="disk full"),
            "3 events lost since then: disk full",
        ),
        (events.Checkpoint(note="coding-agents/s\n12\nroot\n"), "signed, 12 lines"),
    ],
)
def test_each_kind_of_event_is_one_telling_line(event: AnyEvent, tells: str) -> None:
    line = render(record(event))
    assert line.startswith("04:11:00.123     7 ")
    assert line.endswith(" " + tells)


def test_a_long_event_is_cut() -> None:
    line = render(record(events.HelperFailed(server="a", reason="x" * 1000)))
    assert len(line) == MAX_WIDTH
    assert line.endswith("x…")
