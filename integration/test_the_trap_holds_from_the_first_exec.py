"""The role's own program is its first exec: decided, recorded and, where it does not run, said with a shell's code."""

from __future__ import annotations

import os
import signal
import time

import pytest

from codingagents.trust.events import ExecAllowed, ExecDenied
from trap_harness import (
    UID,
    Request,
    copy_program,
    deny,
    every_reader,
    needs_root,
    python,
    run,
    shared_directory,
    start,
)

pytestmark = needs_root


@every_reader
def test_the_program_itself_is_recorded_as_any_other(sys_ptrace: bool) -> None:
    outcome = run(Request(argv=["/bin/sh", "-c", "exit 3"], sys_ptrace=sys_ptrace))
    assert outcome.code == 3
    assert outcome.reply.failed is None
    self_test, program = [event for event in outcome.events if isinstance(event, ExecDenied | ExecAllowed)]
    assert isinstance(self_test, ExecDenied)
    assert (self_test.rule, self_test.executable_path) == ("self-test", "/bin/true")
    assert isinstance(program, ExecAllowed)
    assert (program.executable_path, program.resolved_path) == ("/bin/sh", os.path.realpath("/bin/sh"))
    assert (program.command_args, program.user_id) == (["/bin/sh", "-c", "exit 3"], UID)
    outcome.verify()


def test_a_program_that_calls_itself_like_the_self_test_is_an_ordinary_one() -> None:
    """The self-test's name holds for the self-test alone, or a role could exec unseen under it."""
    script = """
        say(outcome(lambda: os.execve("/usr/bin/true", ["coding-agents-self-test-0123456789abcdef"], {})))
    """
    outcome = run(Request(argv=python(script)))
    assert outcome.said == [0]
    assert outcome.allowed[-1].command_args == ["coding-agents-self-test-0123456789abcdef"]


@every_reader
@pytest.mark.parametrize(
    ("argv", "code", "answer"),
    [
        (["/usr/bin/false"], 126, "EPERM"),
        (["/none"], 127, "ENOENT"),
        (["none-of-that-name"], 127, "ENOENT"),
        (["/etc/passwd/x"], 127, "ENOTDIR"),
        (["/etc/passwd"], 126, "EACCES"),
    ],
)
def test_a_program_that_does_not_run_is_said(argv: list[str], code: int, answer: str, sys_ptrace: bool) -> None:
    outcome = run(Request(argv=argv, rules=[deny("/usr/bin/false")], sys_ptrace=sys_ptrace))
    assert outcome.code == code
    assert outcome.reply.failed is not None
    assert (outcome.reply.failed.code, outcome.reply.failed.errno) == (code, answer)
    assert outcome.reply.failed.step == f"running {argv[0]}"


def test_a_program_outside_the_trees_is_said_to_be_forbidden() -> None:
    with shared_directory() as files:
        outcome = run(Request(argv=[copy_program("/usr/bin/false", files / "program")]))
    assert outcome.code == 126
    assert outcome.reply.failed is not None
    assert outcome.reply.failed.errno == "EACCES"


def test_a_working_directory_that_cannot_be_entered_is_said() -> None:
    with shared_directory() as files:
        files.chmod(0o700)
        outcome = run(Request(argv=["/usr/bin/true"], working_directory=str(files)))
    assert outcome.code == 125
    assert outcome.reply.failed is not None
    assert outcome.reply.failed.step == f"entering {files}"
    assert outcome.reply.failed.errno == "EACCES"


def test_the_role_gets_nothing_that_it_was_not_given() -> None:
    """Identity, groups, environment, signals, umask and descriptors, as seen by the program itself."""
    script = """
        import signal
        status = dict(line.split(":\\t", 1) for line in open("/proc/self/status").read().splitlines())
        say({
            "uids": os.getresuid(), "gids": os.getresgid(), "groups": os.getgroups(),
            "capabilities": [status[f"Cap{name}"] for name in ("Inh", "Prm", "Eff", "Bnd", "Amb")],
            "no_new_privs": status["NoNewPrivs"], "blocked": status["SigBlk"],
            "environment": dict(os.environ), "umask": os.umask(0), "directory": os.getcwd(),
            "descriptors": sorted(int(name) for name in os.listdir("/proc/self/fd"))[:-1],
        })
        say([status["SigIgn"], os.getsid(0) == os.getpid()])
    """
    outcome = run(
        Request(argv=python(script), environment={"A": "b"}, groups=[UID + 1], working_directory="/usr", umask=0o027)
    )
    seen, (_, own_session) = outcome.said
    # Python itself adds its locale to the environment.
    assert {name: value for name, value in seen.pop("environment").items() if name != "LC_CTYPE"} == {"A": "b"}
    assert seen == {
        "uids": [UID] * 3,
        "gids": [UID] * 3,
        "groups": [UID + 1],
        "capabilities": ["0" * 16] * 5,
        "no_new_privs": "1",
        "blocked": "0" * 16,
        "umask": 0o027,
        "directory": "/usr",
        "descriptors": [0, 1, 2],
    }
    assert own_session


@every_reader
def test_the_tree_cannot_exec_once_its_supervisor_is_gone(sys_ptrace: bool) -> None:
    """The listener closes with the supervisor: ENOSYS for whoever is left, until the kernel takes it along too."""
    script = """
        import signal
        read_end, write_end = os.pipe()
        if os.fork() == 0:
            os.setsid()  # not killed with its parent
            os.close(write_end)
            os.read(read_end, 1)  # returns when the parent is dead
            time.sleep(0.2)
            with open(sys.argv[1], "w") as file:
                file.write(str(outcome(lambda: os.execve("/usr/bin/true", ["x"], {}))))
            os._exit(0)
        os.close(read_end)
        say("up")
        time.sleep(60)
    """
    with shared_directory() as files:
        files.chmod(0o777)
        answer = files / "answer"
        with start(Request(argv=python(script, str(answer)), sys_ptrace=sys_ptrace)) as running:
            assert running.hear() == '"up"'
            running.process.send_signal(signal.SIGKILL)
            deadline = time.monotonic() + 10
            while not (answer.exists() and answer.read_text()):
                assert time.monotonic() < deadline
                time.sleep(0.02)
        assert answer.read_text() == "ENOSYS"
