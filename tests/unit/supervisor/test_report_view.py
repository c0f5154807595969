"""The layer report for programs, for pipes and for terminals."""

import json

import pytest

from codingagents.supervisor.report_view import as_text, roles_as_json, roles_as_text
from codingagents.trust.events import Layer
from codingagents.trust.vocabulary import Role

HOLDS = Layer(
    layer="uid_drop",
    wanted="prefer",
    state="enforced",
    mechanism="setresuid(2)",
    probe="setresuid(0, 0, 0): EPERM",
    observed_by="observed",
    detail={"a": "b"},
)
LACKS = Layer(
    layer="exec_trap",
    wanted="require",
    state="unavailable",
    mechanism="seccomp",
    probe="seccomp(NEW_LISTENER): EBUSY",
    observed_by="observed",
    why="another [bold]listener[/bold] is there",
    consequence="execs are not seen",
    remedy="--security-opt seccomp=PROFILE",
)


def test_json_holds_every_field_under_a_schema_name() -> None:
    report = json.loads(roles_as_json({Role.AGENT: [HOLDS, LACKS], Role.TASK: [LACKS]}))
    assert list(report) == ["schema", "layers", "roles"]
    assert report["schema"] == "coding-agents/layers/v1"
    assert [layer["layer"] for layer in report["layers"]] == ["uid_drop", "exec_trap"]
    for layer, row in zip(report["layers"], [HOLDS, LACKS], strict=True):
        assert layer == {field: getattr(row, field) for field in Layer.__struct_fields__}


def test_json_and_text_have_each_role() -> None:
    reports = {Role.AGENT: [HOLDS], Role.TASK: [LACKS]}
    report = json.loads(roles_as_json(reports))
    assert report["layers"] == report["roles"]["agent"]
    assert [(role, rows[0]["layer"]) for role, rows in report["roles"].items()] == [
        ("agent", "uid_drop"),
        ("task", "exec_trap"),
    ]
    told = roles_as_text(reports, terminal=False)
    assert told.index("As the agent:\nuid_drop") < told.index("As the task:\nexec_trap")
    assert roles_as_text({Role.AGENT: [HOLDS]}, terminal=False) == as_text([HOLDS], terminal=False)


def test_a_pipe_gets_plain_lines_with_reason_and_remedy() -> None:
    assert as_text([HOLDS, LACKS], terminal=False) == (
        "uid_drop        enforced     setresuid(0, 0, 0): EPERM\n"
        "exec_trap       unavailable  seccomp(NEW_LISTENER): EBUSY\n"
        "                why: another [bold]listener[/bold] is there\n"
        "                so: execs are not seen\n"
        "                remedy: --security-opt seccomp=PROFILE\n"
    )


def test_a_terminal_gets_colours_and_the_same_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """What looks like markup in a value is text."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    shown = as_text([HOLDS, LACKS], terminal=True)
    assert "\x1b[32menforced" in shown
    assert "\x1b[31munavailable" in shown
    assert LACKS.why in shown
    assert LACKS.remedy in shown
