"""Claude Code, Codex and Copilot CLI as npm installs them: wrapped, each is as it is by itself."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import wrapper_rig
from clients import installed
from codingagents.supervisor import wrap_rules
from wrapper_rig import LAYERS, Place, become, run


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with wrapper_rig.folder() as made:
        yield made


# What PATH leads to.
PROGRAMS = {
    "claude": installed.CLIENTS["claude"].program,  # npm's link to it is made by its installation script
    "codex": ".bin/codex",
    "copilot": ".bin/copilot",
}


def environment(place: Place) -> dict[str, str]:
    return {"PATH": f"{installed.runtime()}/bin:/usr/bin:/bin", "HOME": str(place.home)}


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_real_client_says_its_version_through_its_wrapper(name: str, place: Place) -> None:
    """A native program, and links to scripts of Node.js that import and run what lies beside them."""
    program = place.bin / name
    program.symlink_to(installed.programs() / PROGRAMS[name])
    argv = become(LAYERS, str(program), "--version")
    alone = run(argv, env=environment(place), cwd=str(place.home))
    assert alone[0] == 0
    assert any(character.isdigit() for character in alone[1].decode())
    vendor = Path(place.wrap(program))
    assert vendor.is_symlink()
    assert run(argv, env=environment(place), cwd=str(place.home)) == alone
    code, out, _ = run([str(program), "--version"], env=environment(place))
    assert (code, out) == (126, b"")


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_table_knows_which_subcommands_are_a_clients_own(name: str, place: Place) -> None:
    """By what its help lists: a word too many would be taken from it, one too few from the task runner."""
    argv = become(LAYERS, str(installed.programs() / PROGRAMS[name]), "--help")
    code, out, _ = run(argv, env=environment(place), cwd=str(place.home))
    assert code == 0
    commands = out.partition(b"\nCommands:\n")[2].partition(b"\n\n")[0]
    listed = {match.decode() for match in re.findall(rb"(?m)^ {2}([a-z][a-z|-]+)", commands)}
    assert "mcp" in listed  # its subcommands were read
    assert listed & set(wrap_rules.ROUTED) == wrap_rules.VENDOR_COMMANDS.get(name, frozenset())
