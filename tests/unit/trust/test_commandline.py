"""Commands whose output goes nowhere: an exit code, at most one sentence, and never a traceback."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import sys
from codingagents.trust.commandline import Parser, complain, printing
from codingagents.trust.errors import AgentError, UsageError
def command():
    sys.stdout.write('said' * {times} + '\\n')
    {then}
try:
    code = printing(command)
except AgentError as error:
    complain(str(error))
    code = error.exit_code
sys.exit(code)
"""
FULL = "coding-agents: standard output cannot be written: No space left on device; make room, or send it elsewhere\n"
WELL = "return 0"
MISTAKEN = "raise UsageError('it is not so')"


def run(redirection: str, then: str, times: int = 1, **options: int) -> tuple[int, str, str]:
    program = PROGRAM.format(times=times, then=then)
    argv = ["sh", "-c", f'exec "$@" {redirection}', "sh", sys.executable, "-I", "-c", program]
    options = {"stdout": subprocess.PIPE} | options
    done = subprocess.run(argv, stderr=subprocess.PIPE, text=True, check=False, timeout=20, **options)  # type: ignore[call-overload]  # the overloads know no mapping
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("redirection", "then", "outcome"),
    [
        ("", WELL, (0, "said\n", "")),
        ("", MISTAKEN, (2, "said\n", "coding-agents: it is not so\n")),
        (">&-", WELL, (0, "", "")),
        (">&-", MISTAKEN, (2, "", "coding-agents: it is not so\n")),
        (">/dev/full", WELL, (1, "", FULL)),
        ("2>&-", MISTAKEN, (2, "said\n", "")),
        ("2>/dev/full", MISTAKEN, (2, "said\n", "")),
        (">/dev/full 2>/dev/full", WELL, (1, "", "")),
        (">&- 2>&- <&-", MISTAKEN, (2, "", "")),
        ("<&-", "return len(sys.stdin.buffer.read())", (0, "said\n", "")),
        (">/dev/full", "Parser(prog='p').parse_args(['--help'])", (1, "", FULL)),
    ],
)
def test_each_stream_that_takes_nothing(redirection: str, then: str, outcome: tuple[int, str, str]) -> None:
    """The first two are the control."""
    assert run(redirection, then) == outcome


@pytest.mark.parametrize("times", [1, 100_000])
def test_a_reader_that_has_gone_is_told_nothing(times: int) -> None:
    """Whether it is noticed while the command prints or after it."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    code, _, errors = run("", WELL, times, stdout=write_end)
    os.close(write_end)
    assert (code, errors) == (1, "")


def test_an_error_that_is_not_of_the_output_stays_what_it_is() -> None:
    """Only what names no file can be the output's: a full disk elsewhere must not be told as it."""
    code, _, errors = run("", "raise OSError(28, 'No space left on device', '/a/file')")
    assert code == 1
    assert "OSError: [Errno 28] No space left on device: '/a/file'" in errors
