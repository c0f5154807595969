"""AppArmor's own parser takes the profiles as they are printed. Whether they hold needs a kernel with that LSM."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from codingagents.supervisor import apparmor_profile


def parse(text: str, *options: str) -> subprocess.CompletedProcess[str]:
    parser = shutil.which("apparmor_parser", path="/usr/sbin:/sbin:/usr/bin")
    assert parser, "apparmor_parser is missing: run integration/setup.sh test"
    argv = [parser, "--skip-kernel-load", "--skip-cache", "--skip-read-cache", *options]
    return subprocess.run(argv, input=text, capture_output=True, text=True, check=False, timeout=60)


def printed(role: str) -> str:
    argv = [sys.executable, "-I", "-m", "codingagents.supervisor", "doctor", "--apparmor", role]
    return subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60).stdout


@pytest.mark.parametrize("role", apparmor_profile.ROLES)
def test_a_printed_profile_parses_and_has_its_name(role: str) -> None:
    assert parse(printed(role)).returncode == 0
    assert parse(printed(role), "--names").stdout.split() == [f"coding-agents-{role}"]


@pytest.mark.parametrize(
    ("whole", "broken"),
    [
        ("/** rwlkmix,", "/** rwlkmiz,"),
        ("deny mount,", "deny mount"),
        ("deny umount", "deny unmont"),
        ("abi <", "abi <x"),
    ],
)
def test_a_broken_profile_is_refused(whole: str, broken: str) -> None:
    """The control: the parser does look at each line."""
    text = printed("task")
    assert whole in text
    refused = parse(text.replace(whole, broken))
    assert refused.returncode != 0
    assert "error" in refused.stderr.lower()


def test_the_parser_resolves_what_is_allowed_and_what_is_not(tmp_path: Path) -> None:
    """An exec rule that conflicts with another is found, so the rules are worked out, and not only read."""
    text = printed("task").replace("  / rw,\n", "  / rw,\n  /** px,\n")
    assert parse(text).returncode != 0
