"""What people read at the terminal cannot steer it."""

import pytest

from codingagents.launcher.terminal import printable, say


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain täxt €", "plain täxt €"),
        ("a\nb\r\x1b[2J\x07", r"a\nb\r\x1b[2J\x07"),
        ("\u202eright to left", r"\u202eright to left"),
        ("\x9b\udcff", r"\x9b\udcff"),
    ],
)
def test_control_characters_are_written_out(text: str, shown: str) -> None:
    """One line stays one line."""
    assert printable(text) == shown


def test_a_pipe_gets_plain_text(capsys: pytest.CaptureFixture[str]) -> None:
    """No colour where nobody sees it; nothing on standard output."""
    say("hello\x1b[m")
    assert capsys.readouterr() == ("", "coding-agents: hello\\x1b[m\n")
