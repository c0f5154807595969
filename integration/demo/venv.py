"""The interpreters of real parts: virtual environments of locked PyPI packages, made once and kept.

Each is root's, readable and executable by every UID, because the agent's program runs under one, and is keyed by what
it was made from, so that a changed lock file makes a new one. It does not install Debian packages (`setup.sh` does)
and does not hold the project's own packages: the demo's agent and server share no code with what they test.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

REQUIREMENTS = Path(__file__).resolve().parents[2] / "requirements"
CACHE = Path("/var/cache/coding-agents")
SYSTEM_PYTHON = Path("/usr/bin/python3")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def demo_python(say: Callable[[str], None] = _say) -> Path:
    """Return the interpreter that has the PyPI `mcp` SDK; see `locked_python`."""
    return locked_python("demo", say)


def locked_python(name: str, say: Callable[[str], None] = _say) -> Path:
    """Return the interpreter that has what `requirements/NAME.txt` locks.

    Makes its environment first where it is not there yet (root, network, a minute). `say` gets one progress line for
    each step that takes long. Raises `SystemExit` with one sentence on failure.
    """
    requirements = REQUIREMENTS / f"{name}.txt"
    key = hashlib.sha256(requirements.read_bytes() + os.fsencode(SYSTEM_PYTHON.resolve())).hexdigest()[:12]
    home = CACHE / f"{name}-{key}"
    python = home / "bin" / "python"
    if python.exists():
        return python
    if os.geteuid() != 0:
        raise SystemExit(f"the Python environment '{name}' is not made yet and {CACHE} is root's: run it once as root")
    say(f"making the Python environment '{name}' in {home} (once)")
    old_umask = os.umask(0o022)
    try:
        CACHE.mkdir(parents=True, exist_ok=True)
        # A name of its own until it is whole, so that an interrupted build is never mistaken for the real thing.
        building = Path(tempfile.mkdtemp(prefix=".building-", dir=CACHE))
        try:
            _build(building, requirements, say)
            building.chmod(0o755)
            # Somebody else finished first where this fails: theirs has the same key, so it is the same.
            with contextlib.suppress(OSError):
                building.rename(home)
        finally:
            shutil.rmtree(building, ignore_errors=True)
    finally:
        os.umask(old_umask)
    if not python.exists():
        raise SystemExit(f"the Python environment could not be put in place at {home}: look for a full disk")
    return python


def _build(home: Path, requirements: Path, say: Callable[[str], None]) -> None:
    """Fill `home`; only `bin/python` will work after the move, never the console scripts (they name this path)."""
    steps = {
        "creating the environment": [str(SYSTEM_PYTHON), "-I", "-m", "venv", str(home)],
        "installing the locked packages, hashes checked": [
            *(str(home / "bin" / "python"), "-I", "-m", "pip", "install", "-qq", "--disable-pip-version-check"),
            *("--no-input", "--require-hashes", "-r", str(requirements)),
        ],
    }
    for title, command in steps.items():
        say(f"  {title}")
        done = subprocess.run(command, check=False, stdin=subprocess.DEVNULL, stdout=sys.stderr)
        if done.returncode != 0:
            raise SystemExit(f"{title} failed with exit code {done.returncode}; the lines above say why")


if __name__ == "__main__":
    print(demo_python())
