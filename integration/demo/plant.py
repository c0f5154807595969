"""Plants a canary in each kind of place that `hunt.py` searches, then runs the hunt with them among its targets.

Run as the same UID, standard library only, with the arguments of `hunt.py`: its report is passed on as it is. Each
canary is made here, at random, with the shape of what is hunted, and is put into one place only: where `canary-in-KIND`
is not found in KIND, a hunt that found nothing else there proves nothing. It leaves nothing behind: what it started and
wrote ends with it.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import secrets
import string
import subprocess
import sys
import tempfile
from pathlib import Path

PYTHON = ["/usr/bin/python3", "-I", "-S"]
IDLE = "import sys; print('ready', flush=True); sys.stdin.read()"
# Yama's default lets a process be read only by its ancestors, unless it says otherwise (PR_SET_PTRACER, any).
IN_MEMORY = """
import ctypes, hashlib, secrets, string, sys
prefix, length = sys.argv[1], int(sys.argv[2])
canary = prefix + "".join(secrets.choice(string.ascii_letters) for _ in range(length - len(prefix)))
ctypes.CDLL(None).prctl(0x59616D61, ctypes.c_ulong(-1), 0, 0, 0)
print(hashlib.sha256(canary.encode()).hexdigest(), flush=True)
sys.stdin.read()
"""


def start(stack: contextlib.ExitStack, code: str, *arguments: str, environ: dict[str, str] | None = None) -> str:
    """Run `code` until `stack` closes and return the first line it printed: then it is what it is meant to be."""
    command = [*PYTHON, "-c", code, *arguments]
    child = stack.enter_context(
        subprocess.Popen(command, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    )
    assert child.stdin is not None
    assert child.stdout is not None
    stack.callback(child.stdin.close)  # it ends when its stdin does; closing waits for it
    line = child.stdout.readline().strip()
    if not line:
        raise SystemExit("plant: a process that was to hold a canary did not start")
    return line


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--prefix", required=True)
    parser.add_argument("--length", required=True, type=int)
    shape, _ = parser.parse_known_args()
    targets: list[str] = []

    def digest_of(kind: str, digest: str) -> None:
        targets.extend(["--target", f"canary-in-{kind}={digest}"])

    def canary(kind: str) -> str:
        rest = "".join(secrets.choice(string.ascii_letters) for _ in range(shape.length - len(shape.prefix)))
        digest_of(kind, hashlib.sha256((shape.prefix + rest).encode()).hexdigest())
        return str(shape.prefix + rest)

    with contextlib.ExitStack() as stack:
        # In the working directory: that is where an agent would leave such a thing, and it is surely writable.
        with tempfile.NamedTemporaryFile(dir=".", prefix="canary-", delete=False) as kept:
            stack.callback(Path(kept.name).unlink, missing_ok=True)
            kept.write(b"# notes\ntoken = " + canary("file").encode() + b"\n")
        deleted = stack.enter_context(tempfile.TemporaryFile(dir=".", buffering=0))
        deleted.write(canary("fd").encode())
        start(stack, IDLE, canary("cmdline"))
        start(stack, IDLE, environ={"CANARY": canary("environ")})
        digest_of("mem", start(stack, IN_MEMORY, shape.prefix, str(shape.length)))
        environ = os.environ | {"CANARY": canary("own-environ")}
        hunt = [*PYTHON, str(Path(__file__).with_name("hunt.py")), *sys.argv[1:], canary("own-argv"), *targets]
        return subprocess.run(hunt, env=environ, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
