"""The command runs as if init were not there, and init ends as the command did."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from init_modes import INIT, Mode, every_mode


def show(code: str) -> list[str]:
    return [sys.executable, "-I", "-S", "-c", code]


@every_mode
@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["true"], 0),
        (["sh", "-c", "exit 3"], 3),
        (["sh", "-c", "exit 255"], 255),
        (["sh", "-c", "kill -TERM $$"], 143),
        (["sh", "-c", "kill -KILL $$"], 137),
        (["sh", "-c", "kill -SEGV $$"], 139),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else str(value),
)
def test_the_commands_code_is_inits(mode: Mode, command: list[str], code: int) -> None:
    """Exit codes pass unchanged; death by signal N is 128 + N."""
    with mode.start([*INIT, *command]) as init:
        assert init.wait() == code


@every_mode
def test_a_command_that_cannot_run_is_127_or_126_with_one_sentence(mode: Mode, tmp_path: Path) -> None:
    """No such program is 127; one that is not executable, or no program at all, 126."""
    plain = tmp_path / "plain"
    plain.write_text("exit 0\n")
    empty = tmp_path / "empty"
    empty.write_text("exit 0\n")  # a shell would run it; no shell is asked
    empty.chmod(0o755)
    for program, code, reason in [
        ("no-such-program", 127, "No such file or directory"),
        (f"{plain}/below", 127, "Not a directory"),
        (str(plain), 126, "Permission denied"),
        (str(tmp_path), 126, "Permission denied"),
        (str(empty), 126, "Exec format error"),
    ]:
        with mode.start([*INIT, "--", program], stderr=subprocess.PIPE) as init:
            assert init.wait() == code
            assert init.process.stderr is not None
            assert init.process.stderr.read().decode() == f"coding-agents: cannot run {program!r}: {reason}\n"


@every_mode
def test_the_command_line_never_meets_a_shell(mode: Mode) -> None:
    """What a shell would expand arrives as it was given."""
    words = ["$HOME", "`id`", "*", "a b", "", "--grace", ";exit 9"]
    with mode.start([*INIT, "--", "printf", "%s\\n", *words]) as init:
        assert [init.line() for _ in words] == words
        assert init.wait() == 0


@every_mode
def test_the_environment_is_handed_on_unchanged(mode: Mode) -> None:
    """Python's own start-up adds LC_CTYPE to its environment; the child does not get that."""
    given = {"PATH": "/usr/bin:/bin", "A": "1", "PYTHONPATH": "/nowhere"}
    with mode.start([*INIT, "env"], env=given) as init:
        assert init.process.stdout is not None
        got = dict(line.split("=", 1) for line in init.process.stdout.read().decode().splitlines())
    assert got.pop("INIT_UNDER_TEST")
    assert got == given


@every_mode
def test_bytes_of_the_environment_and_arguments_survive(mode: Mode) -> None:
    """Neither has to be text."""
    word = os.fsdecode(b"\xff\xfe")
    code = "import os, sys; print(os.environb[b'ODD'], os.fsencode(sys.argv[1]))"
    with mode.start([*INIT, *show(code), word], env={**os.environ, "ODD": word}) as init:
        assert init.line() == r"b'\xff\xfe' b'\xff\xfe'"


@every_mode
def test_mask_dispositions_descriptors_and_directory_are_the_inherited_ones(mode: Mode, tmp_path: Path) -> None:
    """All of them were changed in init meanwhile, or could have been."""
    extra = os.open("/dev/full", os.O_RDONLY)
    wrapper = ["env", "--ignore-signal=HUP", "--block-signal=WINCH"]
    with mode.start([*wrapper, *INIT, "cat", "/proc/self/status"], cwd=tmp_path) as init:
        assert init.process.stdout is not None
        status = dict(line.split(":\t", 1) for line in init.process.stdout.read().decode().splitlines())
    assert int(status["SigBlk"], 16) == 1 << signal.SIGWINCH - 1
    # make starts programs by posix_spawn(3), which leaves glibc's own signals 32 and 33 ignored in them.
    of_glibc = 1 << 32 - 1 | 1 << 33 - 1
    assert int(status["SigIgn"], 16) & ~of_glibc == 1 << signal.SIGHUP - 1
    with mode.start([*INIT, "ls", "-l", "/proc/self/fd", "/proc/self/cwd"], cwd=tmp_path, pass_fds=[extra]) as init:
        assert init.process.stdout is not None
        links = dict(re.findall(r" (\S+) -> (.+)", init.process.stdout.read().decode()))
    assert links.pop("/proc/self/cwd") == str(tmp_path)
    assert links.pop(str(extra)) == "/dev/full"
    (listing,) = links.keys() - {"0", "1", "2"}
    assert links[listing].startswith("/proc/")
    os.close(extra)


@every_mode
def test_standard_descriptors_may_be_closed(mode: Mode) -> None:
    """Init neither needs them nor puts anything of its own in their place."""
    script = 'exec "$@" <&- 2>&-'
    listing = show("import os; print([f for f in '0123' if os.path.exists('/proc/self/fd/' + f)])")
    with mode.start(["sh", "-c", script, "sh", *INIT, "sh", "-c", 'exec "$@"', "sh", *listing]) as init:
        assert init.line() == "['1']"
        assert init.wait() == 0


@every_mode
def test_a_parent_that_ignores_sigchld_does_not_cost_the_code(mode: Mode) -> None:
    """With an inherited ignore the kernel would reap the command before its code is seen."""
    with mode.start(["env", "--ignore-signal=CHLD", *INIT, "sh", "-c", "exit 3"]) as init:
        assert init.wait() == 3


def test_a_wrong_command_line_is_125_with_one_sentence() -> None:
    """2 could be the command's own code."""
    done = subprocess.run([*INIT, "--graze", "5", "true"], capture_output=True, text=True, check=False, timeout=10)
    assert (done.returncode, done.stdout) == (125, "")
    assert done.stderr == "coding-agents: init has no option --graze; put -- before a command that starts with a dash\n"
