"""CORE: what each client is asked to do so that its answers can be compared: alone, and in a session of ours.

Each answer must be the same in every run, whoever the command runs as: nothing prints a UID, a number of a process or a
time, and what has to be waited for is waited for by the commands themselves. Values only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from clients.installed import CLIENTS

Call = Mapping[str, Any]
_BUILD = "set -e; mkdir out; cp source out/copy; chmod +x out/copy; echo made >made"
_REBUILD = "set -e; cat source made; echo task >>source; rm -r out; mkdir out; echo new >out/new; ls out; cat source"
_BIG = "x" * 38_000  # as big as the one argument that Codex makes of a snapshot and a command
_DIES = "exec python3 -Ic 'import os; os.kill(os.getpid(), {})'"  # Copilot itself refuses `kill $$`
_NOBODY_LEFT = "while pgrep -x tail >/dev/null; do sleep 0.1; done; echo gone"
_FOR_EVER = "tail -f /dev/null"
_LATE = "until [ -e go ]; do sleep 0.1; done; echo late >ended"
_NOW = "touch go; until [ -s ended ]; do sleep 0.1; done; cat ended"


def everyday(shell: Callable[..., dict[str, Any]]) -> list[Call]:
    """Return what is the same for all: output, exit codes, signals, nothing to read, a big argument."""
    return [
        shell("echo out; exit 3"),
        shell("echo err >&2; false"),
        shell(_DIES.format(15)),
        shell(_DIES.format(9)),
        shell("cat; echo end"),
        shell(f"cksum <<'E'\n{_BIG}\nE"),
        shell("no-such-command 2>/dev/null"),
        shell("[ -w . ] && echo writable"),
    ]


def claude(where: str) -> Sequence[Call]:
    """The directory carries over where it lies in the workspace; a command over its time goes on in the background."""
    shell = CLIENTS["claude"].shell
    return [
        *everyday(shell),
        shell("export X=1; f() { :; }; mkdir sub; cd sub"),
        shell("pwd; echo X=$X; type f 2>/dev/null; cd / && pwd"),
        shell("pwd; echo $CLAUDECODE $CLAUDE_CODE_ENTRYPOINT"),
        shell(_LATE, run_in_background=True),
        shell(_NOW),
        shell(f"echo started; {_FOR_EVER}", timeout=2000),
        {"name": "TaskStop", "arguments": {"task_id": "{id}"}, "found": {"id": r"background \(ID: (\w+)\)"}},
        shell(_NOBODY_LEFT),
        {"name": "Write", "arguments": {"file_path": f"{where}/written", "content": "by the client\n"}},
        shell("cat written; echo more >>written; cat written"),
    ]


def claude_in_the_foreground(where: str) -> Sequence[Call]:
    """What `CLAUDE_CODE_DISABLE_BACKGROUND_TASKS` asks for: a command over its time is killed."""
    shell = CLIENTS["claude"].shell
    return [shell(f"echo started; {_FOR_EVER}", timeout=2000), shell(_NOBODY_LEFT)]


def codex(where: str) -> Sequence[Call]:
    """Nothing carries over; a command may have a terminal, and one that goes on is written to and read from."""
    shell = CLIENTS["codex"].shell
    running = {"session_id": r"session ID (\d+)"}
    return [
        *everyday(shell),
        shell("mkdir sub; cd sub; pwd"),
        shell("pwd"),
        shell("pwd", workdir=f"{where}/sub"),
        shell("shopt -q login_shell || echo none", login=False),
        shell("[ -t 0 ] && [ -t 1 ] && [ -t 2 ] && tty | tr -d 0-9; stty size; echo $TERM; echo $CODEX_CI", tty=True),
        shell("trap 'echo int; exit 5' INT; echo ready; while :; do sleep 0.1; done", tty=True, yield_time_ms=2500),
        {"name": "write_stdin", "arguments": {"session_id": "{session_id}", "chars": "\x03"}, "found": running},
        shell("read -r line; echo got $line", tty=True, yield_time_ms=250),
        {"name": "write_stdin", "arguments": {"session_id": "{session_id}", "chars": "hello\r"}, "found": running},
        shell(f"{_LATE}; cat ended", yield_time_ms=250),
        shell(_NOW),
        {"name": "write_stdin", "arguments": {"session_id": "{session_id}"}, "found": running},
        shell(_FOR_EVER, yield_time_ms=250),  # killed when Codex ends
    ]


def codex_in_code_mode(where: str) -> Sequence[Call]:
    """What the models of its catalogue are given instead: a tool that takes a program."""
    return [
        {"name": "exec", "input": f"text((await tools.exec_command({arguments})).{wanted})"}
        for arguments, wanted in (
            ("{cmd: 'echo out; exit 3'}", "output"),
            ("{cmd: 'exit 3'}", "exit_code"),
            ("{cmd: 'stty size', tty: true}", "output"),
        )
    ]


def copilot(where: str) -> Sequence[Call]:
    """Nothing carries over; commands go on in the background, and are stopped."""
    shell = CLIENTS["copilot"].shell
    return [
        *everyday(shell),
        shell("mkdir sub; cd sub; pwd"),
        shell("pwd; echo $COPILOT_CLI"),
        shell(f"{_LATE}; cat ended", mode="async", shellId="late"),
        shell(_NOW),
        {"name": "read_bash", "arguments": {"shellId": "late", "delay": 1}},
        shell(f"echo started; {_FOR_EVER}", mode="async", shellId="endless"),
        {"name": "stop_bash", "arguments": {"shellId": "endless"}},
        shell(_NOBODY_LEFT),
        {"name": "create", "arguments": {"path": f"{where}/written", "file_text": "by the client\n"}},
        shell("cat written; echo more >>written; cat written"),
    ]


def copilot_detached(where: str) -> Sequence[Call]:
    """A command that outlives its call, watched over by a shell of the client's own."""
    shell = CLIENTS["copilot"].shell
    return [shell(_LATE, mode="async", detach=True, shellId="far"), shell(_NOW)]


def claude_builds(where: str) -> Sequence[Call]:
    """The client's edits and a task's builds, on each other's files."""
    shell = CLIENTS["claude"].shell
    return [
        {"name": "Write", "arguments": {"file_path": f"{where}/source", "content": "client\n"}},
        shell(_BUILD),
        {"name": "Read", "arguments": {"file_path": f"{where}/made"}},
        {
            "name": "Edit",
            "arguments": {"file_path": f"{where}/made", "old_string": "made", "new_string": "edited"},
        },
        {"name": "Write", "arguments": {"file_path": f"{where}/out/of-the-client", "content": "client\n"}},
        shell(_REBUILD),
    ]


def codex_builds(where: str) -> Sequence[Call]:
    """The same; Codex applies patches in its own process."""
    added = "*** Begin Patch\\n*** Add File: {}\\n+client\\n*** End Patch"
    changed = "*** Begin Patch\\n*** Update File: made\\n@@\\n-made\\n+edited\\n*** End Patch"
    apply = "text(JSON.stringify(await tools.apply_patch('{}')))"
    run = "text((await tools.exec_command({{cmd: '{}'}})).output)"
    programs = (
        *(apply.format(added.format("source")), run.format(_BUILD)),
        *(apply.format(changed), apply.format(added.format("out/of-the-client")), run.format(_REBUILD)),
    )
    return [{"name": "exec", "input": program} for program in programs]


def copilot_builds(where: str) -> Sequence[Call]:
    """The same."""
    shell = CLIENTS["copilot"].shell
    return [
        {"name": "create", "arguments": {"path": f"{where}/source", "file_text": "client\n"}},
        shell(_BUILD),
        {"name": "edit", "arguments": {"path": f"{where}/made", "old_str": "made", "new_str": "edited"}},
        {"name": "create", "arguments": {"path": f"{where}/out/of-the-client", "file_text": "client\n"}},
        shell(_REBUILD),
    ]
