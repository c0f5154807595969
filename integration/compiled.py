"""Compiles the C programs of the attack tests: what needs its races tight, or calls that no interpreter makes."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest


def compile_program(source: str, target: Path) -> str:
    """Compile `integration/SOURCE` to `target`, executable for everyone; return its path."""
    if shutil.which("gcc") is None:
        pytest.fail("the attack tests compile a program: run 'integration/setup.sh test' (Debian: gcc, libc6-dev)")
    target.parent.mkdir(parents=True, exist_ok=True)
    text = Path(__file__).with_name(source)
    subprocess.run(["gcc", "-O2", "-Wall", "-Werror", "-pthread", "-o", target, text], check=True)
    target.chmod(0o755)
    return str(target)
