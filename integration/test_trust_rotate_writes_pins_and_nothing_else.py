"""`coding-agents trust rotate`, as a real process against real TLS servers: what the file says before and after."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import tomllib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import pki
from codingagents.rewrite.parse import parse_config
from full_disk import fill, small_disk
from trust_rig import COMMAND, NAME, Desk, Server, pin_rows

ROOT, OTHER = pki.make_root(), pki.make_root("Other Root")
FIRST, SECOND = ROOT.issue_ca("First"), ROOT.issue_ca("Second")
FIRST_CHAIN, SECOND_CHAIN = (FIRST.issue((NAME,)), FIRST), (SECOND.issue((NAME,)), SECOND)
ELSEWHERE = OTHER.issue_ca("Elsewhere")
OTHER_CHAIN = (ELSEWHERE.issue((NAME,)), ELSEWHERE)
CREDENTIAL = 'bearer_token_env_var = "TOKEN"\n'
PINS = pin_rows((FIRST, "intermediate", False), (ROOT, "any", True))
AFTER = "\n# about the session\n[session]   # odd   spacing\nagent = 'codex'\n"


def sha256(issued: pki.Issued) -> str:
    return hashlib.sha256(issued.der).hexdigest()


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


@pytest.fixture
def server(desk: Desk) -> Iterator[Server]:
    with Server(FIRST_CHAIN, desk.home) as server:
        yield server


def pins(desk: Desk, name: str = "x") -> list[dict[str, Any]]:
    """Return the pins in the file, which must load."""
    text = desk.config.read_text()
    parse_config(text, "config.toml")
    found: list[dict[str, Any]] = tomllib.loads(text)["mcp_servers"][name]["tls"]["pins"]["pin"]
    return found


def keys(desk: Desk) -> list[tuple[str, bool]]:
    return [(pin["spki"], pin.get("backup", False)) for pin in pins(desk)]


def test_the_first_pins_make_a_credential_load(desk: Desk, server: Server) -> None:
    """The error at load names the command; after it the file loads, is the same elsewhere, and the check holds."""
    before = desk.write("# mine\n", desk.entry("x", server, ca=desk.trusting(ROOT), more=CREDENTIAL), AFTER)
    desk.config.chmod(0o640)
    os.chown(desk.config, 0, 1234)
    checked = subprocess.run(
        [*COMMAND[:-1], "config", "check", str(desk.config)], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 2
    assert "coding-agents trust rotate x --config" in checked.stderr
    done = desk.run("rotate", "x", "--yes")
    assert done.returncode == 0, done
    assert "the backup is the root above: it holds while issuers below it change" in done.stderr
    after = desk.config.read_text()
    start = after.index("\n[mcp_servers.x.tls.pins]")
    assert after[:start] + after[after.index("\n]\n", start) + 3 :] == before
    assert keys(desk) == [(FIRST.pin, False), (ROOT.pin, True)]
    found = desk.config.stat()
    assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (0o640, 0, 1234)
    assert desk.check("x")[0] == 0
    assert server.received_nothing()


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        ([], 2, "give --yes"),
        (["--dry-run"], 0, "nothing was written"),
        (["--yes", "--expires", "2099-01-01"], 2, "at most 400 days ahead"),
        (["--yes", "--expires", "2020-01-01"], 2, "a day to come"),
        (["--yes", "--expires", "tomorrow"], 2, "must be a date"),
        (["--yes", "--backup", "sha1/x"], 2, "--backup: pin 'sha1/x' must be"),
        (["--yes", "--fingerprint", "00" * 32], 1, "and not the one given"),
        (["--yes", "--fingerprint", "00"], 2, "must be the SHA-256"),
    ],
)
def test_without_a_word_nothing_is_written(
    desk: Desk, server: Server, arguments: list[str], code: int, sentence: str
) -> None:
    """No terminal, a dry run, a mistake: the change is shown at most."""
    before = desk.write(desk.entry("x", server, ca=desk.trusting(ROOT)))
    done = desk.run("rotate", "x", *arguments)
    assert (done.returncode, sentence in done.stderr) == (code, True), done
    assert ("+[mcp_servers.x.tls.pins]" in done.stdout) == (code != 2 or not arguments)
    assert desk.config.read_text() == before


def test_a_new_issuer_takes_the_place_of_the_old_one_which_stays_once_more(desk: Desk, server: Server) -> None:
    """Through two renewals: in use, backup, gone; the root above is the backup that carries the server over."""
    desk.write(desk.entry("x", server, ca=desk.trusting(ROOT), pins=PINS), AFTER)
    server.show(SECOND_CHAIN)
    assert desk.check("x")[0] == 1  # only the backup is left
    assert desk.run("rotate", "x", "--yes").returncode == 0
    assert keys(desk) == [(SECOND.pin, False), (FIRST.pin, True), (ROOT.pin, True)]
    assert "in use until" in pins(desk)[1]["note"]
    assert desk.check("x")[0] == 0
    assert desk.run("rotate", "x", "--yes", "--expires", "2027-06-01").returncode == 0
    assert keys(desk) == [(SECOND.pin, False), (ROOT.pin, True)]
    assert "expires = 2027-06-01" in desk.config.read_text()
    assert "those already" in desk.run("rotate", "x", "--expires", "2027-06-01").stderr


def test_a_stranger_is_not_taken_for_the_server_by_one_key(desk: Desk, server: Server) -> None:
    """A server that another trusted authority vouches for: not by --yes, not by --from-unpinned alone."""
    before = desk.write(desk.entry("x", server, ca=desk.trusting(ROOT, OTHER), pins=PINS))
    server.show(OTHER_CHAIN)
    fingerprint = sha256(ELSEWHERE)
    for arguments, code, sentence in (
        (["--yes"], 1, "may be somebody else"),
        (["--yes", "--fingerprint", fingerprint], 1, "may be somebody else"),
        (["--yes", "--from-unpinned"], 2, "give --fingerprint"),
        (["--from-unpinned", "--fingerprint", sha256(OTHER)], 1, "and not the one given"),
    ):
        done = desk.run("rotate", "x", *arguments)
        assert (done.returncode, sentence in done.stderr) == (code, True), done
        assert desk.config.read_text() == before
    assert server.received_nothing()
    done = desk.run("rotate", "x", "--from-unpinned", "--fingerprint", fingerprint.upper())  # the control
    assert done.returncode == 0, done
    assert keys(desk) == [(ELSEWHERE.pin, False), (FIRST.pin, True), (ROOT.pin, True)]


def test_who_is_not_verified_is_never_pinned(desk: Desk, server: Server) -> None:
    """Neither by --from-unpinned nor with the right fingerprint; with its authority in the store it is."""
    before = desk.write(desk.entry("x", server, ca=desk.trusting(ROOT)))
    server.show(OTHER_CHAIN)
    arguments = ("rotate", "x", "--yes", "--from-unpinned", "--fingerprint", sha256(ELSEWHERE))
    done = desk.run(*arguments)
    assert (done.returncode, "is not trusted" in done.stderr) == (1, True), done
    assert desk.config.read_text() == before
    desk.trusting(OTHER)
    assert desk.run(*arguments).returncode == 0


def test_pins_that_no_anchor_fits_can_be_rotated_away(desk: Desk, server: Server) -> None:
    """All of them at the root, and of another root: no session starts with them."""
    wrong = pin_rows((OTHER, "root", False), (ELSEWHERE, "root", True))
    desk.write(desk.entry("x", server, ca=desk.trusting(ROOT), pins=wrong))
    done = desk.run("rotate", "x", "--from-unpinned", "--fingerprint", sha256(FIRST))
    assert done.returncode == 0, done
    assert keys(desk)[0] == (FIRST.pin, False)


def test_a_server_of_one_key_needs_a_backup_from_somewhere(desk: Desk) -> None:
    """Its certificate and its root have the same one: what to do is said, and --backup does it."""
    alone = pki.make_root()
    own = alone.issue((NAME,), key=alone.key)
    with Server((own,), desk.home) as server:
        desk.write(desk.entry("x", server, ca=desk.trusting(alone)))
        done = desk.run("rotate", "x", "--yes")
        assert (done.returncode, "give it with --backup" in done.stderr) == (1, True), done
        done = desk.run("rotate", "x", "--yes", "--backup", OTHER.pin)
        assert done.returncode == 0, done
        assert keys(desk) == [(alone.pin, False), (OTHER.pin, True)]


def test_somebody_at_a_terminal_is_asked(desk: Desk, server: Server) -> None:
    """A yes for the server that is known or new; digits of the fingerprint for one that carries none of its pins."""
    before = desk.write(desk.entry("x", server, ca=desk.trusting(ROOT, OTHER)))
    assert desk.on_a_terminal("no", "rotate", "x")[0] == 1
    assert desk.config.read_text() == before
    code, shown = desk.on_a_terminal("yes", "rotate", "x")
    assert (code, "compare the hashes by another way" in shown) == (0, True)
    server.show(OTHER_CHAIN)
    before = desk.config.read_text()
    arguments = ("rotate", "x", "--from-unpinned")
    for typed in ("yes", "", sha256(OTHER_CHAIN[0])[:16], sha256(ELSEWHERE)[:15]):
        assert desk.on_a_terminal(typed, *arguments)[0] == 1
        assert desk.config.read_text() == before
    assert desk.on_a_terminal(sha256(ELSEWHERE)[:16], *arguments)[0] == 0
    assert keys(desk)[0] == (ELSEWHERE.pin, False)


def test_several_at_once_lose_nothing_of_each_other(desk: Desk, server: Server) -> None:
    """Eight servers of one file, rotated at the same time."""
    names = [f"s{number}" for number in range(8)]
    ca = desk.trusting(ROOT)
    desk.write(*(desk.entry(name, server, ca=ca, more=CREDENTIAL) for name in names))
    with ThreadPoolExecutor(len(names)) as pool:
        done = list(pool.map(lambda name: desk.run("rotate", name, "--yes"), names))
    assert [each.returncode for each in done] == [0] * len(names), done
    for name in names:
        assert [pin["spki"] for pin in pins(desk, name)] == [FIRST.pin, ROOT.pin]
    assert sorted(each.name for each in desk.home.iterdir() if each.name.startswith(".")) == []


@pytest.mark.skipif(os.getuid() != 0, reason="mounts a small disk: needs root")
def test_a_full_disk_leaves_the_file_as_it_was(desk: Desk, server: Server) -> None:
    """And there is no half of a new one beside it; with room it goes."""
    before = desk.write(desk.entry("x", server, ca=desk.trusting(ROOT)))
    with small_disk() as disk:
        desk.config = disk / "config.toml"
        desk.config.write_text(before)
        ballast = fill(disk)
        done = desk.run("rotate", "x", "--yes")
        assert (done.returncode, "it is as it was" in done.stderr) == (1, True), done
        assert desk.config.read_text() == before
        assert sorted(disk.iterdir()) == [ballast, desk.config]
        ballast.unlink()
        assert desk.run("rotate", "x", "--yes").returncode == 0
        assert keys(desk)[0] == (FIRST.pin, False)
