"""What people read at the terminal cannot steer it."""

import pytest

from codingagents.launcher.terminal import say


def test_a_pipe_gets_plain_text(capsys: pytest.CaptureFixture[str]) -> None:
    """No colour where nobody sees it; nothing on standard output."""
    say("hello\x1b[m")
    assert capsys.readouterr() == ("", "coding-agents: hello\\x1b[m\n")
