"""What people read at the terminal cannot steer it, and nobody who stopped reading keeps a session's end waiting."""

import contextlib
import os
import subprocess
import sys

import pytest

from codingagents.launcher.terminal import say, say_briefly


def test_a_pipe_gets_plain_text(capsys: pytest.CaptureFixture[str]) -> None:
    """No colour where nobody sees it; nothing on standard output."""
    say("hello\x1b[m")
    say_briefly("bye\x1b[m")
    assert capsys.readouterr() == ("", "coding-agents: hello\\x1b[m\ncoding-agents: bye\\x1b[m\n")


@pytest.mark.parametrize("function", ["say_briefly", "say"])
def test_a_reader_who_stopped_keeps_nobody(function: str) -> None:
    """The process ends by itself; as a control, without the bound it does not."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, b"x" * 4096)
    os.set_blocking(writer, True)
    code = f"from codingagents.launcher.terminal import {function} as say; say('one'); say('two'); print('end')"
    process = subprocess.Popen([sys.executable, "-I", "-c", code], stderr=writer, stdout=subprocess.PIPE)
    os.close(writer)
    assert process.stdout is not None
    with process.stdout:
        try:
            # The control has twice the patience that the bounded one needs, on a machine that is busy as well.
            process.wait(20 if function == "say_briefly" else 3)
            assert (function, process.returncode, process.stdout.read()) == ("say_briefly", 0, b"end\n")
        except subprocess.TimeoutExpired:
            assert function == "say"
            process.kill()
            process.wait()
        finally:
            os.close(reader)
