"""A wrapped client runs as the agent of a session, behind its layers, as without a wrapper; and else not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

import wrapper_rig
from wrapper_rig import AGENT, LAYERS, OTHER, WITH_CAPABILITY, Place, become, run

SCRIPT = """\
#!/usr/bin/env node
import { greeting } from "./greeting.mjs";
console.log(greeting, process.argv.slice(2).join(" "));
process.exit(3);
"""


@dataclass(frozen=True)
class Clients:
    """Two wrapped clients: `codex`, a native program (it is a copy of dash), and `claude`, a script behind links."""

    place: Place
    codex: str
    claude: str
    codex_vendor: str


@pytest.fixture(scope="module")
def clients() -> Iterator[Clients]:
    with wrapper_rig.folder() as place:
        package = place.folder / "lib" / "claude"
        package.mkdir(parents=True)
        (package / "cli.js").write_text(SCRIPT)
        (package / "cli.js").chmod(0o755)
        (package / "greeting.mjs").write_text('export const greeting = "hello";\n')
        (package / "package.json").write_text('{"type": "module"}')
        codex, claude = place.bin / "codex", place.bin / "claude"
        claude.symlink_to("chain")
        (place.bin / "chain").symlink_to("../lib/claude/cli.js")
        shutil.copy("/usr/bin/dash", codex)
        place.wrap(claude)
        yield Clients(place, str(codex), str(claude), codex_vendor=place.wrap(codex))


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ("exit 77", 77),
        ("kill -TERM $$", -15),
        ("kill -PIPE $$", -13),
        ("kill -KILL $$", -9),
        ("cat; cat >&2 <&7", 0),
        ("ls -l /proc/$$/fd | wc -l", 0),
        ("exec grep Sig /proc/self/status", 0),
        ("tr '\\0' '\\n' </proc/$$/environ", 0),
        ("pwd; umask; ulimit -a", 0),
    ],
)
@pytest.mark.parametrize("closed", ["", "<&-", "<&- >&-"])
def test_a_native_program_is_as_without_its_wrapper(script: str, code: int, closed: str, clients: Clients) -> None:
    """Exit code, signals, descriptors, environment, limits; in the C locale, which Python changes for itself."""
    outcomes = []
    for program in (clients.codex, clients.codex_vendor):
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
    assert run([clients.codex_vendor, "-c", "echo ran"]) == (0, b"ran\n", b"")


def test_without_a_session_it_is_refused(clients: Clients) -> None:
    home = clients.place.home
    home.rename(clients.place.folder / "away")
    try:
        code, out, err = run(become(LAYERS, clients.codex, "-c", "echo ran"))
    finally:
        (clients.place.folder / "away").rename(home)
    assert (code, out) == (126, b"")
    assert b"no session runs here" in err
    assert b"coding-agents run" in err


def test_a_home_that_the_agent_made_itself_proves_nothing(clients: Clients) -> None:
    session = clients.place.home.parent
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
    bash = clients.place.shells / "bash"
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
    vendor = Path(clients.codex_vendor)
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
