"""A client's config lies where the agent can read it and add its own files, but never replace ours.

Each attack is made by a process with the agent's UID. The control makes the same attacks on a root-owned file in a
directory that the agent owns, where they work: that is what the sticky directory is for.
"""

from __future__ import annotations

import os
import pathlib
import subprocess
import tempfile
from collections.abc import Iterator

import pytest

from codingagents.rewrite.clients import claude
from codingagents.rewrite.clients.base import Endpoint
from codingagents.rewrite.files import install_client_files
from codingagents.trust.errors import ConfigError
from codingagents.trust.vocabulary import Secret

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to act as another UID")

AGENT = 311_000
PYTHON = "/usr/bin/python3"
OURS = claude.render([Endpoint(name="github", url="http://127.0.0.1:4001/mcp", bearer=Secret("local"))])

# Name -> what the agent runs, with `path` the config file and `directory` the one it lies in.
ATTACKS = {
    "write": "open(path, 'w').write('evil')",
    "append": "open(path, 'a').write('evil')",
    "truncate": "os.truncate(path, 0)",
    "chmod": "os.chmod(path, 0o666)",
    "unlink and create": "os.unlink(path); open(path, 'w').write('evil')",
    "rename another over it": "open(path + '.x', 'w').write('evil'); os.rename(path + '.x', path)",
    "rename it away": "os.rename(path, path + '.old'); open(path, 'w').write('evil')",
    "link in its place": "os.symlink('/etc/hostname', path + '.l'); os.rename(path + '.l', path)",
    "swap the directory": "os.rename(directory, directory + '.old'); os.mkdir(directory); open(path, 'w')",
    "exchange by renameat2": (
        "import ctypes; open(path + '.y', 'w').write('evil'); libc = ctypes.CDLL(None, use_errno=True); "
        "r = libc.renameat2(-100, (path + '.y').encode(), -100, path.encode(), 2); "
        "r and sys.exit(os.strerror(ctypes.get_errno()))"
    ),
}
WORK_IN_THE_CONTROL = {
    "unlink and create",
    "rename another over it",
    "rename it away",
    "link in its place",
    "exchange by renameat2",
}


@pytest.fixture
def place() -> Iterator[pathlib.Path]:
    """A root-owned directory that every UID can reach."""
    with tempfile.TemporaryDirectory(prefix="clients-") as made:
        os.chmod(made, 0o755)
        yield pathlib.Path(made)


def as_agent(code: str, path: pathlib.Path) -> subprocess.CompletedProcess[str]:
    program = f"import os, sys\npath, directory = sys.argv[1:]\n{code}"
    return subprocess.run(
        [PYTHON, "-I", "-c", program, str(path), str(path.parent)],
        user=AGENT,
        group=AGENT,
        extra_groups=[],
        capture_output=True,
        text=True,
        check=False,
        timeout=20,
    )


def installed(place: pathlib.Path) -> pathlib.Path:
    (written,) = install_client_files(str(place / "clients"), OURS, AGENT)
    return pathlib.Path(written)


def test_the_agent_reads_its_config_and_keeps_files_beside_it(place: pathlib.Path) -> None:
    path = installed(place)
    done = as_agent("print(open(path).read()); open(directory + '/state', 'w').write('x')", path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.encode().strip() == OURS[0].content.strip()
    assert (path.parent / "state").stat().st_uid == AGENT


@pytest.mark.parametrize("attack", ATTACKS)
def test_no_attack_changes_the_config(place: pathlib.Path, attack: str) -> None:
    path = installed(place)
    before = path.stat()
    done = as_agent(ATTACKS[attack], path)
    assert done.returncode != 0
    assert "Permission denied" in done.stderr or "Operation not permitted" in done.stderr
    after = path.lstat()
    assert (after.st_ino, after.st_uid, after.st_mode) == (before.st_ino, 0, before.st_mode)
    assert path.read_bytes() == OURS[0].content


@pytest.mark.parametrize("attack", ATTACKS)
def test_the_same_attacks_work_where_the_agent_owns_the_directory(place: pathlib.Path, attack: str) -> None:
    """The control: root's 0640 file in the agent's directory is replaced by every attack on the directory entry."""
    path = place / "home" / "mcp.json"
    path.parent.mkdir()
    path.write_bytes(OURS[0].content)
    os.chown(path, 0, AGENT)
    path.chmod(0o640)
    os.chown(path.parent, AGENT, AGENT)
    done = as_agent(ATTACKS[attack], path)
    replaced = path.is_symlink() or path.read_bytes() != OURS[0].content
    assert replaced == (attack in WORK_IN_THE_CONTROL), done.stderr


@pytest.mark.parametrize(
    "plant", ["os.symlink('/etc/passwd', path)", "open(path, 'w').write('mine')", "os.mkdir(path)"]
)
def test_what_the_agent_planted_is_refused_and_not_followed(place: pathlib.Path, plant: str) -> None:
    path = installed(place)
    path.unlink()
    done = as_agent(plant, path)
    assert done.returncode == 0, done.stderr
    passwd = pathlib.Path("/etc/passwd").read_bytes()
    with pytest.raises(ConfigError, match="is a link or belongs to somebody else; remove it"):
        install_client_files(str(place / "clients"), OURS, AGENT)
    assert path.lstat().st_uid == AGENT
    assert pathlib.Path("/etc/passwd").read_bytes() == passwd


def test_a_directory_of_the_agents_own_is_refused(place: pathlib.Path) -> None:
    (place / "clients").mkdir()
    (place / "clients" / "claude").mkdir()
    os.chown(place / "clients" / "claude", AGENT, AGENT)
    with pytest.raises(ConfigError, match="clients/claude belongs to somebody else; remove it"):
        install_client_files(str(place / "clients"), OURS, AGENT)


def test_another_uid_cannot_read_the_config(place: pathlib.Path) -> None:
    path = installed(place)
    done = subprocess.run(
        [PYTHON, "-I", "-c", "import sys; open(sys.argv[1])", str(path)],
        user=AGENT + 1,
        group=AGENT + 1,
        extra_groups=[],
        capture_output=True,
        text=True,
        check=False,
        timeout=20,
    )
    assert "Permission denied" in done.stderr
