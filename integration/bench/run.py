"""`make bench`: every comparison in turn; the exit code is that of the worst."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

PARTS = ("helper", "exec", "startup")


def parts() -> Iterator[Callable[[], int]]:
    """Yield the `main()` of each part."""
    sys.path.insert(0, str(Path(__file__).resolve().parent))  # `python -I` does not look beside the script
    for name in PARTS:
        yield importlib.import_module(name).main


def main() -> int:
    """Run each part, all of them whatever one says."""
    return max([part() for part in parts()])


if __name__ == "__main__":
    sys.exit(main())
