"""Whom a sweep would kill; that it does is for real processes to show (integration)."""

import os

import pytest

from codingagents.supervisor import sweep


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[object, ...]]:
    """Both system calls, noted instead of made: what this would kill is this machine."""
    made: list[tuple[object, ...]] = []
    monkeypatch.setattr(os, "setresuid", lambda *ids: made.append(ids))
    monkeypatch.setattr(os, "kill", lambda *arguments: made.append(("kill", *arguments)))
    return made


def test_each_uid_is_swept_as_itself_with_root_to_come_back_by(calls: list[tuple[object, ...]]) -> None:
    assert sweep.main(["52001", "52002"]) == 0
    assert calls == [
        *((52001, 52001, 0), ("kill", -1, 9), (0, 0, 0)),
        *((52002, 52002, 0), ("kill", -1, 9), (0, 0, 0)),
    ]


@pytest.mark.parametrize("arguments", [[], ["0"], ["-1"], ["999"], ["52001", "0"]])
def test_no_account_of_the_system_is_ever_swept(arguments: list[str], calls: list[tuple[object, ...]]) -> None:
    assert sweep.main(arguments) == 2
    assert calls == []
