"""What the agent has the task runner do: one JSON line for each errand, with what came back.

Run inside the session, as the agent, standard library only: `asker.py --shell SHELL --mcp-config FILE --server NAME …`,
where SHELL stands for a shell of the system and has the runner run what it is told. What it prints of its errands is
seen from the agent's side: what the tasks themselves print passes through. It judges nothing.

The agent's environment gets a secret first, as a client has one for its model: a canary in the shape of what is hunted.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import secrets
import select
import shlex
import signal
import string
import subprocess
import sys
from pathlib import Path
from typing import Any

PYTHON = ["/usr/bin/python3", "-I", "-S"]
SECONDS = 30  # for one errand, but for the hunt
EVERY_BYTE = bytes(range(256)) * 256
# A task that lives until it is killed, with a process of its own in the background that holds the same pipe.
ENDLESS = "sleep 1000 & echo ready; sleep 1000"


def say(errand: str, **facts: Any) -> None:
    print(json.dumps({"step": "errand", "errand": errand, **facts}), flush=True)


def exact(shell: str) -> None:
    """Have tasks end with an exit code, by a signal, and pass bytes through that are no text."""
    code = "cat; id -u >&2; exit 7"
    done = subprocess.run([shell, "-c", code], input=EVERY_BYTE, capture_output=True, check=False, timeout=SECONDS)
    same = done.stdout == EVERY_BYTE
    say("exact", code=done.returncode, bytes=len(done.stdout), same=same, uid=int(done.stderr or b"-1"))
    done = subprocess.run([shell, "-c", "kill -TERM $$"], capture_output=True, check=False, timeout=SECONDS)
    say("signal", code=done.returncode)


def left_alone(shell: str) -> None:
    """Kill who asked for a task, so that it cannot even say so, and see whether the task's pipe is let go."""
    with subprocess.Popen([shell, "-c", ENDLESS], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as asking:
        assert asking.stdout is not None
        ready = asking.stdout.readline().strip() == b"ready"
        held = not select.select([asking.stdout], [], [], 0)[0]
        asking.send_signal(signal.SIGKILL)
        over = bool(select.select([asking.stdout], [], [], SECONDS / 3)[0]) and not asking.stdout.read(1)
    say("left alone", ready=ready, held=held, over=over)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--shell", required=True, help="the task shell")
    parser.add_argument("--mcp-config", required=True, type=Path)
    parser.add_argument("--server", required=True, help="the entry of the config that tasks are given, bearer and all")
    parser.add_argument("--prefix", required=True, help="as hunt.py has it, which gets all that is not known here")
    parser.add_argument("--length", required=True, type=int)
    arguments, others = parser.parse_known_args()
    shell, length, kit = arguments.shell, arguments.length, Path(__file__).parent
    rest = "".join(secrets.choice(string.ascii_letters) for _ in range(length - len(arguments.prefix)))
    os.environ["DEMO_MODEL_KEY"] = arguments.prefix + rest
    canary = hashlib.sha256((arguments.prefix + rest).encode()).hexdigest()
    entry = json.loads(arguments.mcp_config.read_text())["mcpServers"][arguments.server]

    exact(shell)
    trespass = [*PYTHON, str(kit / "trespass.py"), "--agent", str(os.getuid()), "--canary", canary]
    trespass += ["--mcp-config", str(arguments.mcp_config), "--by"]
    for command in ([*trespass, "agent"], [shell, "-c", shlex.join([*trespass, "task"])]):
        subprocess.run(command, input=json.dumps(entry).encode(), check=False, timeout=SECONDS)
    left_alone(shell)
    hunt = [*PYTHON, str(kit / "plant.py"), "--prefix", arguments.prefix, "--length", str(length), *others]
    hunt += ["--target", f"key-of-the-agent={canary}"]
    return subprocess.run([shell, "-c", shlex.join(hunt)], stdin=subprocess.DEVNULL, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
