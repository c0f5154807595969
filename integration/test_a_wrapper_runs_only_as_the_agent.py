"""A wrapped client runs as the agent of a session, behind its layers, as without a wrapper; and else not at all."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from codingagents.rewrite import places
from codingagents.supervisor import wrap_rules
from codingagents.supervisor.wrapping import Wrapping

AGENT, OTHER = 58061, 58062
LAYERS = {"uid": AGENT, "no_new_privs": True, "seccomp": True}
# Before a command line: it runs as the agent, with one Linux capability.
WITH_CAPABILITY = (
    *("setpriv", f"--reuid={AGENT}", f"--regid={AGENT}", "--clear-groups"),
    *("--inh-caps=+chown", "--ambient-caps=+chown"),
)
# Becomes the role as far as LAYERS says, and then the command.
BECOME = """
import json, os, signal, sys
from codingagents.supervisor import seccomp
from codingagents.supervisor.role_filter import role_program
from codingagents.trust import linux
layers, argv = json.loads(sys.argv[1]), sys.argv[2:]
if layers["no_new_privs"]:
    linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)
if layers["seccomp"]:
    program = role_program(linux.machine(), exec_trap=False, memfd_rule=True, seccomp_static=True, userns=True)
    seccomp.install(program, listener=False)
if os.getuid() == 0:
    os.setgroups([])
    os.setresgid(layers["uid"], layers["uid"], layers["uid"])
    os.setresuid(layers["uid"], layers["uid"], layers["uid"])
for number in (signal.SIGPIPE, signal.SIGXFSZ):
    signal.signal(number, signal.SIG_DFL)
os.environ.pop("LC_CTYPE", None)  # this interpreter's own (PEP 538)
os.execv(argv[0], argv)
"""
SCRIPT = """\
#!/usr/bin/env node
import { greeting } from "./greeting.mjs";
console.log(greeting, process.argv.slice(2).join(" "));
process.exit(3);
"""


@dataclass(frozen=True)
class Clients:
    """Two wrapped clients: `codex`, a native program (it is a copy of dash), and `claude`, a script behind links."""

    folder: Path
    codex: str
    claude: str

    def vendor(self, path: str) -> str:
        return wrap_rules.vendor_beside(path)


@pytest.fixture(scope="module")
def clients() -> Iterator[Clients]:
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="wrapped-") as name:  # where the agent can go
        folder = Path(name)
        folder.chmod(0o755)
        session, shells, package = folder / "session", folder / "shells", folder / "lib" / "claude"
        for directory in (folder / "bin", folder / "lib", package, session, session / "home", shells):
            directory.mkdir()
        os.chown(session / "home", AGENT, AGENT)
        shutil.copy("/usr/bin/dash", folder / "bin" / "codex")
        (package / "cli.js").write_text(SCRIPT)
        (package / "cli.js").chmod(0o755)
        (package / "greeting.mjs").write_text('export const greeting = "hello";\n')
        (package / "package.json").write_text('{"type": "module"}')
        (folder / "bin" / "claude").symlink_to("chain")
        (folder / "bin" / "chain").symlink_to("../lib/claude/cli.js")
        for shell in ("sh", "bash"):
            (shells / shell).write_text(f'#!/bin/sh\nprintf "{shell} as a task: "\nexec /bin/{shell} "$@"\n')
            (shells / shell).chmod(0o755)
        runner = folder / "runner"
        runner.write_text('#!/bin/sh\nprintf "%s " "$@"\n')
        runner.chmod(0o755)
        wrapping = Wrapping(folder / "wrappers.json")
        paths = [str(folder / "bin" / name) for name in ("codex", "claude")]
        for path in paths:
            wrapping.install(path)
            # What a session makes below /run lies in our own folder here.
            text = Path(path).read_text()
            for there, here in (
                (places.AGENT_HOME, session / "home"),
                (places.SHELLS, shells),
                (sys.executable, runner),
            ):
                text = text.replace(f"{there!r}", f"{str(here)!r}")
            Path(path).write_text(text)
        yield Clients(folder, *paths)


def become(layers: Mapping[str, int], *argv: str | bytes) -> list[str | bytes]:
    return [sys.executable, "-c", BECOME, json.dumps(layers), *argv]


def run(argv: Sequence[str | bytes], **more: object) -> tuple[int, bytes, bytes]:
    done = subprocess.run(argv, capture_output=True, check=False, timeout=60, **more)  # type: ignore[call-overload]  # what more is, the tests say
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ("exit 77", 77),
        ("kill -TERM $$", -15),
        ("kill -PIPE $$", -13),
        ("kill -KILL $$", -9),
        ("cat; cat >&2 <&7", 0),
        ("ls -l /proc/$$/fd | wc -l", 0),
        ("grep Sig /proc/$$/status", 0),
        ("tr '\\0' '\\n' </proc/$$/environ", 0),
        ("pwd; umask; ulimit -a", 0),
    ],
)
@pytest.mark.parametrize("closed", ["", "<&-", "<&- >&-"])
def test_a_native_program_is_as_without_its_wrapper(script: str, code: int, closed: str, clients: Clients) -> None:
    """Exit code, signals, descriptors, environment, limits; in the C locale, which Python changes for itself."""
    outcomes = []
    for program in (clients.codex, clients.vendor(clients.codex)):
        start = f'exec 7</etc/hostname; trap "" USR1; exec "$0" "$@" {closed}'
        # The layers go on last, so that what puts them on is not what is seen.
        argv = ["/bin/sh", "-c", start, *become(LAYERS, program, "-c", script, "zero")]
        outcomes.append(run(argv, input=b"input", cwd="/usr", env={"PATH": "/usr/bin", "A": "b"}))
    assert outcomes[0] == outcomes[1]
    assert outcomes[0][0] == code or closed


def test_arguments_arrive_byte_by_byte_and_the_name_is_the_path_it_was_called_by(clients: Clients) -> None:
    strange = b"\xff\xfe \n\t'\"$x\xc3\xa9"
    code, out, err = run(
        become(LAYERS, clients.codex, "-c", 'printf "%s|%s|" "$0" "$#"; printf "%s|" "$@"', "zero", strange, "")
    )
    assert (code, err) == (0, b"")
    assert out == b"zero|2|" + strange + b"||"
    code, out, err = run(become(LAYERS, clients.codex, "-c", 'printf "%s" "$0"'))
    assert out == clients.codex.encode()


def test_a_script_behind_links_finds_what_it_imports(clients: Clients) -> None:
    assert run(become(LAYERS, clients.claude, "a", "b")) == (3, b"hello a b\n", b"")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"uid": OTHER}, f"this is UID {OTHER}, and the session's agent is UID {AGENT}"),
        ({"no_new_privs": False}, "without no_new_privs"),
        ({"seccomp": False}, "a seccomp filter"),
        ({"seccomp": False, "no_new_privs": False}, "without no_new_privs"),
    ],
)
def test_whoever_is_not_the_agent_behind_its_layers_is_refused(
    change: Mapping[str, int], why: str, clients: Clients
) -> None:
    for program in (clients.codex, clients.claude):
        code, out, err = run(become({**LAYERS, **change}, program, "-c", "echo ran"))
        assert (code, out) == (126, b"")
        assert err.decode().startswith(f"coding-agents: {program} runs only as the agent of a session: ")
        assert why in err.decode()
        assert err.count(b"\n") == 1


def test_an_agent_with_a_linux_capability_is_refused(clients: Clients) -> None:
    code, out, err = run([*WITH_CAPABILITY, *become(LAYERS, clients.codex, "-c", "echo ran")])
    assert (code, out) == (126, b"")
    assert b"has Linux capabilities" in err


def test_root_is_refused_too_and_the_vendors_program_itself_is_not_closed_to_it(clients: Clients) -> None:
    """The wrapper guards against mistakes, and root can do as it likes."""
    code, out, err = run([clients.codex, "-c", "echo ran"])
    assert (code, out) == (126, b"")
    assert b"this is UID 0" in err
    assert run([clients.vendor(clients.codex), "-c", "echo ran"]) == (0, b"ran\n", b"")


def test_without_a_session_it_is_refused(clients: Clients) -> None:
    home = clients.folder / "session" / "home"
    home.rename(clients.folder / "away")
    try:
        code, out, err = run(become(LAYERS, clients.codex, "-c", "echo ran"))
    finally:
        (clients.folder / "away").rename(home)
    assert (code, out) == (126, b"")
    assert b"no session runs here" in err
    assert b"coding-agents run" in err


def test_a_home_that_the_agent_made_itself_proves_nothing(clients: Clients) -> None:
    session = clients.folder / "session"
    os.chown(session, OTHER, OTHER)
    try:
        code, out, err = run(become(LAYERS, clients.codex, "-c", "echo ran"))
    finally:
        os.chown(session, 0, 0)
    assert (code, out) == (126, b"")
    assert b"is not root's" in err


@pytest.mark.parametrize(
    ("arguments", "code", "out"),
    [
        (["exec", "printf", "%s|", "a b", "-c"], 0, "sh as a task: a b|-c|"),
        (["run", "--", "/bin/sh", "-c", "exit 9"], 9, "sh as a task: "),
        (["exec", "/nonexistent"], 127, "sh as a task: "),
        (["shell", "-c", "echo $0"], 0, "bash as a task: /bin/bash\n"),
    ],
)
def test_what_is_meant_for_the_task_runner_goes_there(
    arguments: list[str], code: int, out: str, clients: Clients
) -> None:
    done = run(become(LAYERS, clients.claude, *arguments))
    assert done[:2] == (code, out.encode())


def test_a_shell_is_sh_where_there_is_no_bash(clients: Clients) -> None:
    bash = clients.folder / "shells" / "bash"
    bash.chmod(0)
    try:
        assert run(become(LAYERS, clients.claude, "shell", "-c", "echo $0"))[1] == b"sh as a task: /bin/sh\n"
    finally:
        bash.chmod(0o755)


def test_a_clients_own_subcommand_stays_its_own(clients: Clients) -> None:
    """The copy of dash takes it for a script's name, and says so; `run` is nobody's."""
    code, _, err = run(become(LAYERS, clients.codex, "exec"), cwd="/")
    assert code == 127 if b"not found" in err else 2
    assert b"exec" in err
    assert not err.startswith(b"coding-agents:")
    assert run(become(LAYERS, clients.codex, "run", "echo", "x"))[1] == b"sh as a task: x\n"


def test_root_reaches_the_runner_and_others_do_not(clients: Clients) -> None:
    """A task shell gives whoever is not the agent the real shell, which here would be root's."""
    code, out, _ = run([clients.claude, "exec", "--", "id", "-u"])
    assert (code, out) == (0, b"-I -m codingagents.supervisor exec run -- id -u ")
    code, out, err = run(become({**LAYERS, "uid": OTHER}, clients.claude, "exec", "id", "-u"))
    assert (code, out) == (126, b"")
    assert b"runs only as the agent" in err


def test_a_command_that_is_missing_is_one_sentence_and_125(clients: Clients) -> None:
    for arguments in (["exec"], ["run", "--"]):
        code, out, err = run(become(LAYERS, clients.claude, *arguments))
        assert (code, out) == (125, b"")
        assert b"needs a command" in err


def test_a_vendors_program_that_is_gone_is_one_sentence_and_127(clients: Clients) -> None:
    vendor = Path(clients.vendor(clients.codex))
    away = vendor.with_name("away")
    vendor.rename(away)
    try:
        code, out, err = run(become(LAYERS, clients.codex))
    finally:
        away.rename(vendor)
    assert (code, out) == (127, b"")
    assert err == f"coding-agents: {vendor} is not there; see: coding-agents wrap list\n".encode()
    away.write_text("no program")
    away.chmod(0o755)
    vendor.rename(vendor.with_name("kept"))
    away.rename(vendor)
    try:
        code, out, err = run(become(LAYERS, clients.codex))
    finally:
        vendor.with_name("kept").rename(vendor)
    assert code == 126
    assert b"cannot be executed: Exec format error" in err
