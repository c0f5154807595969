"""Demands that unit and property tests run the cores' lines and branches; `make unit` ends with it.

The cores are those of the import contract in pyproject.toml. Shells are not judged here: `integration/` runs them, in
processes of their own, which the figures of `make unit` do not see.
"""

import subprocess
import sys
import tomllib
from pathlib import Path

FAIL_UNDER = 99  # percent; property tests reach a few branches by chance


def main() -> int:
    """Print what is missing; coverage's own exit code, 2 for too little."""
    root = Path(__file__).resolve().parent.parent
    contracts = tomllib.loads((root / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (cores,) = (each["source_modules"] for each in contracts if each["name"] == "cores do no I/O and know no clock")
    places = [f"*/{core.replace('.', '/')}{suffix}" for core in cores for suffix in (".py", "/*.py")]
    report = ["report", f"--include={','.join(places)}", f"--fail-under={FAIL_UNDER}", "--precision=2"]
    return subprocess.run([sys.executable, "-m", "coverage", *report], check=False, cwd=root).returncode


if __name__ == "__main__":
    sys.exit(main())
