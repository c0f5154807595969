"""Whole sessions whose agent asks for tasks: codes, arguments, descriptors, environment, many at once, who may ask."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import runner_rig
import session_rig as rig
from codingagents.rewrite import places
from codingagents.trust.events import ExecAllowed, LayerReport, TaskEnded, TaskGone, TaskRefused, TaskStarted
from runner_rig import encode, request, run
from session_rig import Place, Session, every_mode
from session_upstream import TOKEN, Upstream

pytest_plugins = ("session_fixtures",)  # where, upstream

# Says how many arguments it has, and the hash of all.
ARGUMENTS = """
import hashlib, os, sys
joined = b"\\0".join(map(os.fsencode, sys.argv[1:]))
print(len(sys.argv), hashlib.sha256(joined).hexdigest())
"""


def listed(session: Session, *words: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-I", "-m", "codingagents.supervisor", "exec", "list", "--session", str(session.directory)]
    return subprocess.run([*argv, *words], check=False, capture_output=True, text=True, timeout=30)


def rows(session: Session) -> list[dict[str, Any]]:
    done = listed(session, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    found: list[dict[str, Any]] = json.loads(done.stdout)["tasks"]
    return found


@every_mode
def test_every_exit_code_and_every_signal_comes_back_exactly(mode: str, where: Place) -> None:
    with runner_rig.start(mode, where) as session:
        codes = [request("/bin/sh", "-c", f"exit {code}") for code in range(256)]
        for start in range(0, 256, 64):
            ends = [lines[-1] for lines in session.ask("answer_many", codes[start : start + 64])]
            assert ends == [f"exited {code}" for code in range(start, start + 64)]
        ending = [
            number
            for number in signal.valid_signals()
            if number not in {signal.SIGCHLD, signal.SIGCONT, signal.SIGURG, signal.SIGWINCH}
            and number not in {signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU, 32, 33}
        ]
        # Not by a shell, which may treat some for itself.
        kill = "import os, sys; os.kill(os.getpid(), int(sys.argv[1]))"
        asked = [request("/usr/bin/python3", "-ISc", kill, str(int(number))) for number in ending]
        # Python ignores SIGPIPE and SIGXFSZ, and makes an exception of SIGINT.
        kept = {signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT}
        ends = [lines[-1] for lines in session.ask("answer_many", asked)]
        for number, end in zip(ending, ends, strict=True):
            assert number in kept or end == f"killed {int(number)}"
        for number in (signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
            session.ask("ask", "sleeper", request("/bin/sleep", "60"))
            assert session.ask("line", "sleeper").startswith("started ")
            session.ask("say", "sleeper", encode(b"signal %d\n" % number))
            assert session.ask("line", "sleeper") == f"killed {int(number)}"
            session.ask("close", "sleeper")
        ended = session.events(TaskEnded)
        assert {event.exit_code for event in ended} >= set(range(256))
        assert {event.reason for event in ended} == {"ended"}
        assert ended[-1].signal == signal.SIGUSR1


@every_mode
def test_arguments_arrive_byte_by_byte(mode: str, where: Place) -> None:
    """38 kB in one, as a client's snapshot wrapper has it, 2 MB in all, and bytes that are no text."""
    import hashlib  # noqa: PLC0415 -- for this test alone

    with runner_rig.start(mode, where) as session:
        for arguments in (
            [b"x" * 38_000],
            [b"%d" % number + b"\xff\n" * 30_000 for number in range(30)],  # 1.8 MB
            [b"", b" ", b"\xc3\xa9", b"\\x00", b"'\"$(id)"],
        ):
            told = run(session, "/usr/bin/python3", "-ISc", ARGUMENTS, *arguments)
            digest = hashlib.sha256(b"\0".join(arguments)).hexdigest()
            assert told.output.decode().split() == [str(len(arguments) + 1), digest]
        refused = run(session, "/bin/true", *[b"y" * 100_000] * 39)  # more than execve(2) takes
        assert refused.lines == ["failed 126 running /bin/true failed with E2BIG"]


@every_mode
def test_descriptors_are_the_very_files(mode: str, where: Place) -> None:
    with runner_rig.start(mode, where) as session:
        file, other = where.open / "out", where.open / "err"
        for each in (file, other):
            each.write_text("before\n")
            each.chmod(0o666)
        for number in range(2):
            files = ["/dev/null", str(file), str(other)]
            script = "stat -L -c %i /proc/self/fd/1; echo error >&2; cat"
            session.ask("ask", "files", request("/bin/sh", "-c", script), files)
            assert session.ask("line", "files").startswith("started ")
            assert session.ask("line", "files") == "exited 0"
            session.ask("close", "files")
            inode = str(file.stat().st_ino)
            assert file.read_text().split() == ["before", *[inode] * (number + 1)]
        assert other.read_text() == "before\nerror\nerror\n"


@every_mode
def test_a_task_has_nothing_else_open(mode: str, where: Place) -> None:
    with runner_rig.start(mode, where) as session:
        told = run(session, "/bin/ls", "-l", "/proc/self/fd")
        numbers = [line.split(" -> ")[0].split()[-1] for line in told.output.decode().splitlines()[1:]]
        assert numbers == ["0", "1", "2", "3"]  # the last is ls's own


@every_mode
def test_what_the_agent_knows_does_not_arrive_and_what_holds_a_secret_is_told(
    mode: str, where: Place, upstream: Upstream
) -> None:
    environment = {
        "TERM": "dumb",
        "API_KEY": "some key",
        "PAGER": f"less {TOKEN}",
        "HOME": "/root",
        "LD_PRELOAD": "/tmp/x",
        "CLAUDECODE": "1",
    }
    with runner_rig.start(mode, where, upstream.server("one")) as session:
        told = run(session, "/usr/bin/env", environment=environment)
        found = dict(line.split("=", 1) for line in told.output.decode().splitlines())
        assert TOKEN not in told.output.decode()
        assert not {"API_KEY", "PAGER", "LD_PRELOAD", "AGENT_TASK_RUNNER_SOCKET"} & set(found)
        assert (found["TERM"], found["CLAUDECODE"], found["HOME"]) == ("dumb", "1", places.TASK_HOME)
        started = session.event(TaskStarted)
        assert started.withheld == ["PAGER"]
        assert sorted(found) == started.environment
        assert TOKEN.encode() not in session.log.read_bytes()


@every_mode
def test_a_hundred_at_once_each_get_their_own_answer(mode: str, where: Place) -> None:
    with runner_rig.start(mode, where) as session:
        asked = [request("/bin/sh", "-c", f"sleep 0.2; exit {number}") for number in range(100)]
        answers = session.ask("answer_many", asked)
        assert [lines[-1] for lines in answers] == [f"exited {number}" for number in range(100)]
        assert all(len(lines) == 2 for lines in answers)
        started = session.events(TaskStarted)
        assert sorted(event.task for event in started) == list(range(1, 101))
        assert len({event.process_pid for event in started}) == 100
        executed = {event.process_pid for event in session.events(ExecAllowed) if event.role == "task"}
        assert {event.process_pid for event in started} <= executed


@every_mode
def test_tasks_are_listed_while_they_live(mode: str, where: Place, upstream: Upstream) -> None:
    with runner_rig.start(mode, where, upstream.server("one")) as session:
        assert "has no tasks" in listed(session).stdout
        session.ask("ask", "one", request("/bin/sh", "-c", "sleep 60", TOKEN))
        assert session.ask("line", "one").startswith("started ")
        assert run(session, "/bin/sh", "-c", "sleep 61 >/dev/null 2>&1 & exit 0").end == "exited 0"
        one, two = rows(session)
        assert (one["task"], one["state"], one["command"]) == (
            1,
            "running",
            ["/bin/sh", "-c", "sleep 60", "[secret TOKEN]"],
        )
        assert (one["user_id"], one["requester_user_id"]) == (session.uid_base + 1, session.uid_base)
        assert (two["task"], two["state"], two["left"]) == (2, "left", 1)
        plain = listed(session).stdout.splitlines()
        assert [line.split()[:2] for line in plain] == [["1", "running"], ["2", "left(1)"]]
        session.ask("close", "one")
        rig.wait_until(lambda: [row["task"] for row in rows(session)] == [2], "the end of the first")
        assert session.event(TaskEnded, task=1).reason == "requester gone"


@every_mode
def test_what_a_command_leaves_runs_on_and_is_within_reach_of_the_next(mode: str, where: Place) -> None:
    with runner_rig.start(mode, where) as session:
        left = run(session, "/bin/sh", "-c", "sleep 600 >/dev/null 2>&1 & echo $!")
        assert left.end == "exited 0"
        assert session.event(TaskEnded, task=1).left == 1
        pid = left.output.decode().strip()
        assert run(session, "/bin/kill", "-0", pid).end == "exited 0"
        assert run(session, "/bin/kill", pid).end == "exited 0"
        assert session.event(TaskGone).task == 1
        assert run(session, "/bin/kill", "-0", pid).end == "exited 1"


@every_mode
def test_foreign_users_cannot_ask(mode: str, where: Place) -> None:
    """Neither the tasks' own user, nor a helper's, nor nobody; root can, who is the control."""
    ask = (
        "import array, base64, socket, sys\n"
        "client = socket.socket(socket.AF_UNIX)\n"
        "try: client.connect(sys.argv[1])\n"
        "except OSError as error: sys.exit(error.strerror)\n"
        "try: socket.send_fds(client, [base64.b64decode(sys.argv[2])], [0, 1, 2])\n"
        "except BrokenPipeError: pass\n"
        "sys.exit(client.makefile().readline().strip())\n"
    )
    wanted = request("/bin/true")
    with runner_rig.start(mode, where) as session:
        inside = ["nsenter", "--target", str(session.supervisor()), "--mount", "--"]
        for uid, expected in (
            (session.uid_base + 1, "Permission denied"),
            (session.uid_base + 3, "Permission denied"),
            (65534, "Permission denied"),
            (0, "started "),
        ):
            become = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--"]
            words = ["/usr/bin/python3", "-ISc", ask, places.RUNNER_SOCKET, wanted]
            done = subprocess.run([*inside, *become, *words], check=False, capture_output=True, text=True, timeout=30)
            assert done.stderr.startswith(expected), (uid, done.stderr)
        # Whoever gets past the mode of the socket is refused by name.
        socket_gid = session.uid_base
        become = ["setpriv", "--reuid=65534", f"--regid={socket_gid}", "--clear-groups", "--"]
        done = subprocess.run([*inside, *become, *words], check=False, capture_output=True, text=True, timeout=30)
        assert done.stderr == "failed 125 only the session's agent and root may have tasks run\n"
        refused = session.event(TaskRefused)
        assert refused.requester_user_id == 65534
        assert session.event(TaskStarted).requester_user_id == 0
        told = run(session, "/usr/bin/python3", "-ISc", ask, places.RUNNER_SOCKET, wanted)
        assert told.end == "exited 1"  # from inside of a task there is no socket


@every_mode
def test_hostile_clients_get_a_reason_and_hold_up_nobody(mode: str, where: Place) -> None:
    whole = base64.b64decode(request("/bin/true"))
    with runner_rig.start(mode, where) as session:
        assert run(session, "/bin/true").end == "exited 0"
        fds = Path(f"/proc/{session.supervisor()}/fd")
        before = len(os.listdir(fds))
        for data, descriptors, why in (
            (b"GET / HTTP/1.1\r\n\r\n", 3, "it does not start as a request"),
            (whole, 0, "it must bring 3 descriptors: standard input, output and error"),
            (whole, 250, "it must bring 3 descriptors: standard input, output and error"),
            (b"T1 999999999\n", 3, "it is over 4194304 bytes"),
            (whole[:6], 3, "the request was not whole within 5 seconds"),
        ):
            session.ask("connect", "bad")
            assert session.ask("say", "bad", encode(data), descriptors) == ""
            assert session.ask("line", "bad") == f"failed 125 {why}"
            session.ask("close", "bad")
            assert session.events(TaskRefused)[-1].reason == why
        for number in range(256):
            session.ask("connect", f"open-{number}")
        session.ask("ask", "late", request("/bin/true"))
        assert session.ask("line", "late") == "failed 125 the runner has 256 connections already"
        for number in range(256):
            session.ask("close", f"open-{number}")
        rig.wait_until(lambda: run(session, "/bin/true").end == "exited 0", "room again")
        rig.wait_until(lambda: len(os.listdir(fds)) <= before, "the descriptors of those that are gone")


@every_mode
def test_a_session_whose_exec_trap_is_required_has_it_for_tasks(mode: str, where: Place) -> None:
    with runner_rig.start(mode, where, '[session]\nlayers = { exec_trap = "require" }\n') as session:
        assert run(session, "/bin/true").end == "exited 0"
        report = session.event(LayerReport, role="task")
        assert {row.layer: row.state for row in report.layers}["exec_trap"] == "enforced"


def test_its_event_log_is_where_root_finds_it(where: Place) -> None:
    with runner_rig.start("subreaper", where) as session:
        link = Path(f"/proc/{session.supervisor()}/root{places.RUNNER_EVENTS}")
        assert os.readlink(link) == str(session.log)
