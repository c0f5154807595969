"""What the parser says of a `#!` line is what this kernel runs."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from codingagents.supervisor.interpreters import interpreter_of

SHORT = [b"a", b"ab", b"a\r", b"\xff\xfe", b"-"]
LONG = [b"x" * length for length in range(249, 256)]
NAMES = SHORT + LONG
blanks = st.lists(st.sampled_from([b" ", b"\t", b"\0", b"\n"]), max_size=2).map(b"".join)
ends = st.sampled_from([b"", b"\n", b"\r\n", b"\0\n", b" \t\n", b"\n\0"])


def lines(names: list[bytes], before: st.SearchStrategy[bytes], rests: list[bytes]) -> st.SearchStrategy[bytes]:
    """A `#!` line, as a rule, of one of `names`."""
    mark = st.sampled_from([b"#!", b"#!", b"#!", b"#!", b"# !"])
    rest = st.lists(st.sampled_from(rests) | st.binary(max_size=3), max_size=3).map(b"".join)
    return st.tuples(mark, before, st.sampled_from(names), rest, ends).map(b"".join)


heads = st.one_of(
    lines(SHORT, blanks, [b" ", b"\t", b"b", b"\0", b"\r", b" " * 250, b"y" * 300]),
    lines(SHORT, st.integers(245, 256).map(lambda count: b" " * count), [b" ", b"b"]),
    lines(LONG, blanks, [b" ", b"\t", b"x"]),
)


@pytest.fixture(scope="module")
def interpreters() -> Iterator[Path]:
    """Programs that say nothing of how they were called, and wait, under many names; beside the repository, where
    programs may run."""
    directory = Path(__file__).parent / f".interpreters-{os.getpid()}"
    directory.mkdir()
    try:
        first = shutil.copy("/usr/bin/yes", directory / "program")
        for name in NAMES:
            os.link(first, os.fsencode(directory) + b"/" + name)
        yield directory
    finally:
        shutil.rmtree(directory)


def ran(directory: Path, head: bytes) -> bytes | None:
    """Return the name of the program that the kernel ran for a file that begins with `head`, None for an error."""
    script = directory / "script"
    script.unlink(missing_ok=True)
    script.write_bytes(head)
    script.chmod(0o755)
    try:
        process = subprocess.Popen([str(script)], cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    except OSError:
        return None
    with process:
        found = os.path.basename(os.readlink(b"/proc/%d/exe" % process.pid))
        process.kill()
    return found


@given(head=heads)
@example(head=b"#!a\r\n")
@example(head=b"#!a\0\n")
@example(head=b"#!\0a\n")
@example(head=b"#!" + b"x" * 253 + b"\n")
@example(head=b"#!" + b"x" * 254 + b"\n")
@example(head=b"#!" + b"x" * 253)
@example(head=b"#!" + b" " * 252 + b"a")
@example(head=b"#!" + b" " * 253 + b"a\n")
@settings(max_examples=400, deadline=None)
def test_the_kernel_runs_what_the_first_line_names(interpreters: Path, head: bytes) -> None:
    name = interpreter_of(head)
    assert ran(interpreters, head) == (name if name in NAMES else None)
