"""Claude Code, Codex and Copilot CLI as npm installs them: wrapped, each is as it is by itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import wrapper_rig
from clients import installed
from wrapper_rig import LAYERS, Place, become, run


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with wrapper_rig.folder() as made:
        yield made


@pytest.mark.parametrize(
    ("name", "leads_to"),
    [
        ("claude", installed.CLIENTS["claude"].program),  # npm's link to it is made by its installation script
        ("codex", ".bin/codex"),
        ("copilot", ".bin/copilot"),
    ],
)
def test_a_real_client_says_its_version_through_its_wrapper(name: str, leads_to: str, place: Place) -> None:
    """A native program, and links to scripts of Node.js that import and run what lies beside them."""
    program = place.bin / name
    program.symlink_to(installed.programs() / leads_to)
    environment = {"PATH": f"{installed.runtime()}/bin:/usr/bin:/bin", "HOME": str(place.home)}
    alone = run(become(LAYERS, str(program), "--version"), env=environment, cwd=str(place.home))
    assert alone[0] == 0
    assert any(character.isdigit() for character in alone[1].decode())
    vendor = Path(place.wrap(program))
    assert vendor.is_symlink()
    assert run(become(LAYERS, str(program), "--version"), env=environment, cwd=str(place.home)) == alone
    code, out, _ = run([str(program), "--version"], env=environment)
    assert (code, out) == (126, b"")
