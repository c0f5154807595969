"""`make bench`: every comparison in turn; the exit code is that of the worst."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
PARTS = ("helper", "exec", "startup")


def main() -> int:
    """Run the parts that exist, each by its own `main()`."""
    worst = 0
    for name in PARTS:
        path = HERE / f"{name}.py"
        if not path.exists():
            continue
        spec = importlib.util.spec_from_file_location(f"bench_{name}", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        worst = max(worst, module.main())
    return worst


if __name__ == "__main__":
    sys.exit(main())
