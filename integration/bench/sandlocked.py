"""ENTRY: PyPI's sandlock around a program; runs in the environment of `requirements/bench.txt`, without the project.

    sandlocked.py default|policy_fn run PROGRAM [ARGUMENT…]   the program, with the caller's 0, 1 and 2
    sandlocked.py default|policy_fn time                      for each line N: N times /bin/true, a list of nanoseconds

`default` decides in sandlock's own Rust. With `policy_fn` every exec is decided by a Python function: the same three
rules that our trap has in `exec.py`, by argv, since sandlock shows no path.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from sandlock import Sandbox  # type: ignore[import-not-found, unused-ignore]  # not in the project's own environment

_READABLE = ["/usr", "/bin", "/sbin", "/lib", "/lib64", "/opt", "/etc", "/proc", "/dev"]


def _decide(event: Any, _context: Any) -> bool:
    """Return whether to deny; by rules of which none matches."""
    argv = event.argv
    if argv is None:
        return False
    program: str = argv[0]
    return program.startswith(("/run/agent-secrets/", "/run/agent-data/")) or list(argv[:2]) == ["gdb", "-p"]


def _sandbox(kind: str) -> Any:
    more = {"policy_fn": _decide} if kind == "policy_fn" else {}
    return Sandbox(fs_readable=_READABLE, fs_writable=["/dev/null"], **more)


def main(kind: str, verb: str, *command: str) -> int:
    """See the module."""
    if verb == "run":
        code: int = _sandbox(kind).run_interactive(list(command))
        return code
    for line in sys.stdin:
        took = []
        for _ in range(int(line)):
            begun = time.perf_counter_ns()
            done = _sandbox(kind).run(["/bin/true"])
            took.append(time.perf_counter_ns() - begun)
            assert done.success, done
        print(json.dumps(took), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
