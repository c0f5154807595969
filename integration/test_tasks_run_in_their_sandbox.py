"""What a task is started as, how it ends, and what is told of it; with namespaces and without."""

from __future__ import annotations

import json
import os
import signal
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import task_rig as rig
from codingagents.rewrite.specs import ExecRule, RoleLimits
from codingagents.supervisor.task_spec import TaskExit, TaskFailed, TaskMade, TaskOver, TaskRuns
from codingagents.trust.events import ExecAllowed, ExecDenied
from task_rig import Exited, Request, Tasks

pytestmark = rig.needs_root
GROUP = 58042  # of a workspace
PYTHON = "/usr/bin/python3"


@pytest.fixture(scope="module", params=rig.MODES.values(), ids=list(rig.MODES))
def tasks(request: pytest.FixtureRequest) -> Iterator[Tasks]:
    with rig.start(Request(groups=[GROUP], limits=RoleLimits(processes=500)), request.param) as made:
        yield made


def test_a_command_runs_as_itself_with_what_it_was_given(tasks: Tasks) -> None:
    script = """
        import json, os, sys
        umask = os.umask(0)
        print(json.dumps({
            "ids": [*os.getresuid(), *os.getresgid(), *os.getgroups()], "umask": umask,
            "argv": sys.argv[1:], "cwd": os.getcwd(), "environment": dict(os.environ),
            "descriptors": sorted(map(int, os.listdir("/proc/self/fd"))),
            "leads": os.getpid() == os.getsid(0) == os.getpgid(0),
        }))
    """
    argv: list[str | bytes] = [PYTHON, "-I", "-c", textwrap.dedent(script), "one", "two words", b"\xff\n\\"]
    task = tasks.run(argv, environment={"A": "1", "B": ""}, working_directory="/usr/lib")
    assert task.wait() == Exited(0)
    said = json.loads(task.output())
    assert said == {
        "ids": [*[rig.UID] * 6, GROUP],
        "argv": ["one", "two words", "\udcff\n\\"],
        "cwd": "/usr/lib",
        "environment": {"A": "1", "B": "", "LC_CTYPE": "C.UTF-8"},  # Python's own, in the C locale
        "umask": 0o002,
        "descriptors": [0, 1, 2, 3],  # 3: what lists them
        "leads": True,
    }


def test_it_starts_without_privileges_and_with_the_kernels_signals(tasks: Tasks) -> None:
    task = tasks.run(["/bin/grep", "-E", "^(Cap|NoNew|Seccomp:|SigIgn|SigBlk)", "/proc/self/status"])
    assert task.wait() == Exited(0)
    fields = dict(line.split(":\t") for line in task.output().decode().splitlines())
    fields["SigIgn"] = f"{int(fields['SigIgn'], 16) & ~(3 << 31):016x}"  # 32 and 33 are the C library's own
    nothing = dict.fromkeys(("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "SigIgn", "SigBlk"), "0" * 16)
    assert fields == nothing | {"NoNewPrivs": "1", "Seccomp": "2"}


@pytest.mark.parametrize(
    ("script", "how"),
    [
        ("exit 0", Exited(0)),
        ("exit 77", Exited(77)),
        ("exit 255", Exited(255)),
        ("kill -TERM $$", Exited(signal=signal.SIGTERM)),
        ("kill -KILL $$", Exited(signal=signal.SIGKILL)),
        ("ulimit -c 0; kill -SEGV $$", Exited(signal=signal.SIGSEGV)),
    ],
)
def test_it_ends_as_it_ended(tasks: Tasks, script: str, how: Exited) -> None:
    task = tasks.sh(script)
    assert task.wait() == how
    assert [type(report) for report in task.until_eof()] == [TaskMade, TaskRuns, TaskExit, TaskOver]


def test_descriptors_are_passed_on_as_they_are(tasks: Tasks, tmp_path: Path) -> None:
    """The very files: an offset that the task moves has moved for us, too, and bytes are not touched."""
    source = tmp_path / "source"
    source.write_bytes(bytes(range(256)) * 4096)
    with source.open("rb") as file, (tmp_path / "errors").open("wb") as errors:
        reading, writing = os.pipe()
        task = tasks.make(
            rig.spec(["/bin/dd", "bs=65536", "count=3"]), [file.fileno(), writing, errors.fileno()], reading
        )
        os.close(writing)
        assert task.output() == source.read_bytes()[: 3 * 65536]
        assert task.wait() == Exited(0)
        assert os.lseek(file.fileno(), 0, os.SEEK_CUR) == 3 * 65536
    assert b"3+0 records in" in (tmp_path / "errors").read_bytes()


def test_nobody_but_the_task_holds_its_pipes(tasks: Tasks) -> None:
    """EOF on its output is the end of the last who could write; its keeper is not one of them."""
    task = tasks.sh("exec >/dev/null 2>&1; read line; exit 5", stdin=(pipe := os.pipe())[0])
    os.close(pipe[0])
    assert task.output() == b""
    os.write(pipe[1], b"go\n")
    assert task.wait() == Exited(5)
    with pytest.raises(BrokenPipeError):
        os.write(pipe[1], b"more\n")
    os.close(pipe[1])


@pytest.mark.parametrize(
    ("argv", "options", "failed"),
    [
        (["/none"], {}, TaskFailed(step="running /none", errno="ENOENT", code=127)),
        (["none"], {}, TaskFailed(step="running none", errno="ENOENT", code=127)),
        (["/etc/passwd"], {}, TaskFailed(step="running /etc/passwd", errno="EACCES", code=126)),
        (["/usr"], {}, TaskFailed(step="running /usr", errno="EACCES", code=126)),
        (
            ["/bin/true"],
            {"working_directory": "/none"},
            TaskFailed(step="entering /none", errno="ENOENT", code=125),
        ),
        (
            ["/bin/true"],
            {"working_directory": "/root"},
            TaskFailed(step="entering /root", errno="EACCES", code=125),
        ),
        (["/bin/true", "x" * (1 << 18)], {}, TaskFailed(step="running /bin/true", errno="E2BIG", code=126)),
    ],
)
def test_what_cannot_be_run_is_said(tasks: Tasks, argv: list[str], options: dict[str, Any], failed: TaskFailed) -> None:
    task = tasks.run(argv, **options)
    assert task.until_eof() == [TaskMade(), failed]
    assert task.output() == b""


def test_a_program_without_a_slash_is_looked_up_in_its_own_path(tasks: Tasks) -> None:
    task = tasks.run(["env"], environment={"PATH": "/none:/usr/bin"})
    assert (task.wait(), task.output()) == (Exited(0), b"PATH=/none:/usr/bin\n")


def test_signals_reach_all_of_its_group_and_nobody_else(tasks: Tasks) -> None:
    other = tasks.run(["/bin/sleep", "1000"]).runs()
    script = """
        import os, signal
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
        parent = os.fork()
        os.write(1, b"up\\n")
        signal.sigwait([signal.SIGUSR1])
        os.write(1, b"got it\\n")
        os._exit(os.waitstatus_to_exitcode(os.wait()[1]) + 8 if parent else 1)
    """
    task = tasks.run([PYTHON, "-I", "-c", textwrap.dedent(script)])
    assert [task.line(), task.line()] == ["up\n", "up\n"]
    task.runs().signal(signal.SIGUSR1)
    assert task.wait() == Exited(9)
    assert task.output() == b"got it\n" * 2
    other.signal(signal.SIGTERM)
    assert other.wait() == Exited(signal=signal.SIGTERM)


def test_what_is_left_in_the_background_lives_on_and_its_end_is_told(tasks: Tasks) -> None:
    task = tasks.sh("sleep 1000 & setsid sleep 1000 & echo $!; exit 4")
    assert task.wait() == Exited(4)
    assert task.hear(TaskExit).left == 2
    number = task.line().strip()
    # By another task, as a person or a model would.
    assert tasks.sh(f"kill {number} && pkill -u {rig.UID} -x sleep").wait() == Exited(0)
    task.over()


@pytest.mark.parametrize("how", ["kill", "EOF"])
def test_a_kill_ends_the_whole_tree(tasks: Tasks, how: str) -> None:
    task = tasks.sh(
        "trap '' TERM INT HUP; setsid sleep 1000 & (setsid sh -c 'sleep 1000 & sleep 1000' &) ; echo up; wait"
    )
    assert task.runs().line() == "up\n"
    pid = task.pid
    if how == "kill":
        task.kill()
        assert task.wait() == Exited(signal=signal.SIGKILL)
        task.over()
    else:
        task.channel.shutdown(1)
        task.over()
    assert task.output() == b"", "the last of the tree is gone"
    assert not Path(f"/proc/{pid}").exists()


def test_each_has_the_limits_that_it_was_given(tasks: Tasks) -> None:
    task = tasks.run(
        ["/bin/bash", "-c", "ulimit -n; ulimit -c; ulimit -u"], limits=RoleLimits(processes=300, open_files=77)
    )
    assert task.wait() == Exited(0)
    assert task.output().split() == [b"77", b"0", b"300"]


def test_a_hundred_run_at_once_and_each_ends_as_itself(tasks: Tasks) -> None:
    gate = os.pipe()
    running = [tasks.sh(f"read x; exit {number}", stdin=gate[0]) for number in range(100)]
    for task in running:
        task.runs()
    os.close(gate[0])
    os.close(gate[1])
    assert [task.wait() for task in running] == [Exited(number) for number in range(100)]
    for task in running:
        task.over()


def test_execs_of_tasks_are_decided_and_recorded_by_one_trap() -> None:
    rules = [ExecRule(action="deny", path="/usr/bin/id"), ExecRule(action="allow", path="/usr/**")]
    with rig.start(Request(rules=rules, enforce=True)) as tasks:
        assert tasks.run(["/bin/true", "one"]).wait() == Exited(0)
        failed = tasks.run(["/usr/bin/id"]).failed()
        assert failed == TaskFailed(step="running /usr/bin/id", errno="EPERM", code=126)
        assert tasks.sh("/usr/bin/id").wait() == Exited(126)
        events = tasks.events()
        allowed = [event for event in events if isinstance(event, ExecAllowed)]
        denied = [event for event in events if isinstance(event, ExecDenied) and event.rule != "self-test"]
        assert ["/usr/bin/true", "one"] in [[event.resolved_path, *event.command_args[1:]] for event in allowed]
        assert {event.role for event in events if isinstance(event, (ExecAllowed, ExecDenied))} == {"task"}
        assert [event.executable_path for event in denied] == ["/usr/bin/id"] * 2
        assert {event.user_id for event in denied} == {rig.UID}


@rig.every_mode
def test_at_the_end_every_task_is_killed_and_the_task_parent_ends(prefix: tuple[str, ...]) -> None:
    with rig.start(prefix=prefix) as tasks:
        task = tasks.sh("trap '' TERM; setsid sleep 1000 & echo up; wait").runs()
        assert task.line() == "up\n"
        task.channel.close()
        ended = tasks.end()
        assert ended.how == "exited with 0"
        assert ended.trap_ended
        assert ended.troubles == []
        assert task.output() == b""


@rig.every_mode
def test_a_supervisor_that_is_killed_leaves_no_task(prefix: tuple[str, ...]) -> None:
    with rig.start(prefix=prefix) as tasks:
        task = tasks.sh("setsid sh -c 'echo up; kill -STOP $$' & kill -STOP $$").runs()  # nothing that execs later
        assert task.line() == "up\n"
        os.kill(tasks.process.pid, signal.SIGKILL)
        task.channel.close()
        tasks.channel.close()
        assert task.output() == b""
