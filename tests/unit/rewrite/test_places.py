"""The places are those that the documentation names: operators' scripts and images use them."""

import documents
from codingagents.rewrite import places


def test_a_sessions_files_lie_where_the_event_reference_says() -> None:
    assert f"`~/{places.HOST_CONFIG}/sessions/ID/{places.EVENT_LOG}`" in documents.read("events.md")


def test_a_sessions_directories_lie_where_the_runbook_says() -> None:
    directories = (
        *(places.RUN_ROOT, places.RUN_SECRETS, places.RUN_RUNNER),
        *(places.RUN_TASKS, places.RUN_DATA, places.RUN_EXPORT),
    )
    *others, last = (f"`{directory}`" for directory in directories)
    assert f"{', '.join(others)} or {last}" in documents.read("runbook.md")


def test_what_the_agent_finds_lies_where_the_configuration_reference_says() -> None:
    text = documents.read("configuration.md")
    assert f"below `{places.CLIENTS}`" in text
    assert f"| `PATH` | `{places.AGENT_PATH}` |" in text
    assert f"| `HOME` | `{places.AGENT_HOME}`, " in text
