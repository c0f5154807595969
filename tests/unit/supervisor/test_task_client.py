"""The task shell as a process, at a runner that stands in: what is passed on exactly, and what it says where it cannot.

With a whole session: integration/test_task_shells_run_commands_as_tasks.py.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from codingagents.supervisor.task_wire import Request
from task_stand_in import Said, install, standing_in

ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}
PATIENCE = 30
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


@pytest.fixture
def bash(tmp_path: Path) -> Iterator[str]:
    """The task shell with a runner that runs what it is asked for."""
    with standing_in(tmp_path):
        yield install(tmp_path, os.getuid())


def call(*argv: str | bytes, environment: dict[str, str] = ENVIRONMENT) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(argv, env=environment, capture_output=True, timeout=PATIENCE, check=False)


def test_a_command_runs_with_the_arguments_of_the_shell(bash: str) -> None:
    done = call(bash, "-c", 'echo "$0" "$@"', "name", "a b", "")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"name a b \n", b"")


def test_arguments_pass_byte_for_byte_whatever_the_locale(bash: str) -> None:
    odd = bytes(range(1, 256)) + b"\x8e\xa2\xff"
    for locale in ("C", "C.UTF-8"):
        done = call(bash, "-c", b'printf %s "$1"', b"x", odd, environment={**ENVIRONMENT, "LC_ALL": locale})
        assert done.stdout == odd


def test_an_argument_of_100_kilobytes_passes(bash: str) -> None:
    done = call(bash, "-c", ": " + "x" * 100_000 + "; echo end")
    assert (done.returncode, done.stdout) == (0, b"end\n")


def test_the_environment_is_the_callers_and_python_adds_nothing(bash: str) -> None:
    plain = {"PATH": "/usr/bin:/bin", "A": "1=2\n3"}  # no locale: Python would set LC_CTYPE
    ours, real = (call(shell, "-c", "env -0 | sort -z", environment=plain).stdout for shell in (bash, "/bin/bash"))
    assert ours == real


@pytest.mark.parametrize("code", [0, 1, 2, 77, 126, 127, 128, 255])
def test_the_exit_code_is_the_commands(bash: str, code: int) -> None:
    assert call(bash, "-c", f"exit {code}").returncode == code


@pytest.mark.parametrize("number", [*SIGNALS, signal.SIGKILL, signal.SIGSEGV, signal.SIGPIPE, signal.SIGALRM, 40])
def test_death_by_a_signal_is_death_by_that_signal(bash: str, number: int) -> None:
    dash = bash.removesuffix("bash") + "dash"  # bash itself ignores SIGQUIT
    assert call(dash, "-c", f"kill -{number} $$").returncode == -number


def test_nothing_is_dumped_for_a_command_that_was(bash: str, tmp_path: Path) -> None:
    with subprocess.Popen([bash, "-c", "kill -SEGV $$"], cwd=tmp_path, env=ENVIRONMENT) as shell:
        _, status = os.waitpid(shell.pid, 0)
        shell.returncode = -(status & 0x7F)
    assert (os.WTERMSIG(status), os.WCOREDUMP(status)) == (signal.SIGSEGV, False)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_passed_on_and_its_trap_decides(bash: str, number: int) -> None:
    script = f"trap 'echo caught; exit 9' {number}; echo ready; read"
    with subprocess.Popen([bash, "-c", script], env=ENVIRONMENT, stdin=-1, stdout=-1) as shell:
        assert shell.stdout
        assert shell.stdout.readline() == b"ready\n"
        shell.send_signal(number)
        assert shell.stdout.read() == b"caught\n"
        assert shell.wait(PATIENCE) == 9


def test_a_signal_that_the_caller_ignored_is_not_passed_on(bash: str) -> None:
    script = f"trap '' HUP; exec {bash} -c 'trap \"echo caught\" HUP; echo ready; read; echo end'"
    with subprocess.Popen(["/bin/sh", "-c", script], env=ENVIRONMENT, stdin=-1, stdout=-1) as shell:
        assert shell.stdin
        assert shell.stdout
        assert shell.stdout.readline() == b"ready\n"
        shell.send_signal(signal.SIGHUP)
        shell.stdin.write(b"\n")
        shell.stdin.close()
        assert shell.stdout.read() == b"end\n"


def test_a_stopped_client_stops_its_command_and_both_go_on(bash: str) -> None:
    script = "echo $$; while read line; do echo $line; done"
    with subprocess.Popen([bash, "-c", script], env=ENVIRONMENT, stdin=-1, stdout=-1, process_group=0) as shell:
        assert shell.stdin
        assert shell.stdout
        task = int(shell.stdout.readline())
        shell.send_signal(signal.SIGTSTP)
        assert os.WIFSTOPPED(os.waitpid(shell.pid, os.WUNTRACED)[1])
        while b"\nState:\tT" not in Path(f"/proc/{task}/status").read_bytes():
            os.sched_yield()
        shell.stdin.write(b"said while it stood\n")
        shell.stdin.close()
        shell.send_signal(signal.SIGCONT)
        assert shell.stdout.read() == b"said while it stood\n"
        assert shell.wait(PATIENCE) == 0


def test_the_descriptors_are_the_callers_own_files(bash: str, tmp_path: Path) -> None:
    for name in ("in", "out", "err"):
        (tmp_path / name).write_bytes(b"first line\nsecond line\n")
    with (
        (tmp_path / "in").open("rb") as read,
        (tmp_path / "out").open("ab") as out,
        (tmp_path / "err").open("wb") as err,
    ):
        os.lseek(read.fileno(), 11, os.SEEK_SET)
        script = "stat -Lc %i /proc/$$/fd/0 /proc/$$/fd/1 >&2; cat; ls /proc/self/fd >&2"
        subprocess.run([bash, "-c", script], env=ENVIRONMENT, stdin=read, stdout=out, stderr=err, check=True)
    assert (tmp_path / "out").read_bytes() == b"first line\nsecond line\nsecond line\n"
    inodes, listed = (tmp_path / "err").read_text().split()[:2], (tmp_path / "err").read_text().split()[2:]
    assert inodes == [str((tmp_path / name).stat().st_ino) for name in ("in", "out")]
    assert listed == ["0", "1", "2", "3"]  # 3 is how ls looks


def test_a_closed_descriptor_leads_nowhere_and_to_nothing_of_ours(bash: str) -> None:
    script = f"exec {bash} -c 'readlink /proc/self/fd/0 /proc/self/fd/2; cat' <&- 2>&-"
    assert call("/bin/sh", "-c", script).stdout == b"/dev/null\n/dev/null\n"


def test_without_a_runner_nothing_runs(tmp_path: Path) -> None:
    bash = install(tmp_path, os.getuid())
    done = call(bash, "-c", f"touch {tmp_path}/ran")
    assert done.returncode == 125
    assert done.stderr == (
        f"coding-agents: no session takes tasks at {tmp_path}/runner.sock: No such file or directory\n".encode()
    )
    assert not (tmp_path / "ran").exists()


def test_who_is_not_the_agent_gets_the_real_shell(tmp_path: Path) -> None:
    bash = install(tmp_path, os.getuid() + 1)
    done = call(bash, "-c", 'echo "$0" $BASH; trap; grep SigIgn /proc/$$/status')
    assert (done.returncode, done.stderr) == (0, b"")
    real = call("/usr/bin/bash", "-c", 'echo "$0" $BASH; trap; grep SigIgn /proc/$$/status')
    assert done.stdout == real.stdout


def test_a_shell_that_lies_over_the_real_one_does_not_call_itself_for_ever(tmp_path: Path) -> None:
    bash = Path(install(tmp_path, os.getuid() + 1))
    bash.write_text(bash.read_text().replace("'/usr/bin/bash'", repr(str(bash))))
    done = call(str(bash))
    assert done.returncode == 126
    assert b"mounted over" in done.stderr


def answering(*lines: bytes) -> Said:
    def say(connection: socket.socket, request: Request, descriptors: list[int]) -> None:
        for line in lines:
            connection.sendall(line)

    return say


@pytest.mark.parametrize(
    ("said", "code", "why"),
    [
        ((b"failed 127 there is no such program\n",), 127, "there is no such program"),
        ((b"failed 126 it is no prog", b"ram\n"), 126, "it is no program"),
        ((b"started 7\n",), 125, "the session ended before the command did"),
        ((), 125, "the session ended before the command did"),
        ((b"terminal\nstarted 7\nkilled 9\n",), -9, ""),
    ],
)
def test_what_the_runner_says_is_how_it_ends(tmp_path: Path, said: tuple[bytes, ...], code: int, why: str) -> None:
    with standing_in(tmp_path, answering(*said)):
        done = call(install(tmp_path, os.getuid()), "-c", "true")
    assert done.returncode == code
    assert done.stderr.decode() == (f"coding-agents: {why}\n" if why else "")
