"""`make bench`: every comparison in turn; the exit code is that of the worst."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

PARTS = ("helper", "exec", "startup")


def main() -> int:
    """Run each part by its own `main()`, all of them whatever one says."""
    sys.path.insert(0, str(Path(__file__).resolve().parent))  # `python -I` does not look beside the script
    return max([importlib.import_module(name).main() for name in PARTS])


if __name__ == "__main__":
    sys.exit(main())
