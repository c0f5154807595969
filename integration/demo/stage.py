"""What surrounds the demo's session: directories, a certificate authority, two servers and a config.toml.

SHELL. `set_up` is a context manager: when it closes, the servers have ended and every file is gone. The launcher gets
a home of its own below, so that nobody's real configuration is read or written.

`SABOTAGES` exist for the demo's own test: each breaks one thing, so that a claim that cannot fail is found out.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import secrets
import shutil
import string
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pki import Issued, make_root

HOST = "mcp.demo.test"
URL = f"https://{HOST}/mcp"
DENIED = "/usr/bin/nsenter"
PREFIX = "mcpdemo_"
TOKEN_LENGTH = 48
SABOTAGES = {
    "leak": "hand the token to the agent in its environment",
    "pins": "pin the impostor's authority for the impostor",
    "uid-gate": "have helpers ask for the bearer only",
    "bearer-gate": "have helpers ask for the UID only",
    "deny": "leave out the exec rule",
    "landlock": "switch Landlock off",
    "runner": "have the agent ask the system's shell instead of the task shell",
    "task-environment": "let the agent's key into the environment of tasks",
}
_AGENTS_PROGRAMS = ("agent.py", "asker.py", "hunt.py", "outsider.py", "plant.py", "probes.py", "trespass.py")
_STOP_SECONDS = 5


class DemoError(Exception):
    """The demo cannot show what it is to show; one sentence says why."""


@dataclass
class Server:
    """A running MCP server, outside the session."""

    process: subprocess.Popen[str]
    port: int
    record: Path

    def recorded(self) -> dict[str, int]:
        """Return how many connections and handshakes it saw, and how many application bytes."""
        totals = {"accepted": 0, "handshake": 0, "bytes": 0}
        for line in self.record.read_text().splitlines():
            entry: dict[str, Any] = json.loads(line)
            totals[entry["event"]] += entry.get("count", 1)
        return totals


@dataclass(frozen=True)
class Stage:
    """What is there when the session starts."""

    top: Path  # root's, and everybody may enter: `kit` and `workspace` are for the agent, the rest is not
    token: str = field(repr=False)
    since: float  # seconds since 1970; the token is younger
    server: Server
    impostor: Server
    sabotage: frozenset[str]

    @property
    def kit(self) -> Path:
        """The agent's programs and the public certificates."""
        return self.top / "kit"

    @property
    def workspace(self) -> Path:
        """Where the agent works."""
        return self.top / "workspace"

    @property
    def private(self) -> Path:
        """Root's alone: the servers' keys and records, what was captured."""
        return self.top / "private"

    @property
    def home(self) -> Path:
        """The launcher's home."""
        return self.private / "home"

    @property
    def config(self) -> Path:
        """The session's config.toml."""
        return self.private / "config.toml"

    @property
    def authorities(self) -> Path:
        """Both roots, as the config's `ca_file` and as anybody's trust store."""
        return self.kit / "authorities.pem"


@contextlib.contextmanager
def set_up(cache: Path, python: Path, sabotage: frozenset[str]) -> Iterator[Stage]:
    """Make everything below a new directory in `cache`; `python` is the interpreter that has the `mcp` SDK."""
    with contextlib.ExitStack() as stack:
        top = Path(tempfile.mkdtemp(prefix="demo-run-", dir=cache))
        stack.callback(shutil.rmtree, top, ignore_errors=True)
        top.chmod(0o755)
        for name, mode in (("kit", 0o755), ("workspace", 0o1777), ("private", 0o700)):
            (top / name).mkdir()
            (top / name).chmod(mode)
        (top / "private" / "home").mkdir()
        since = time.time() - 1
        token = PREFIX + "".join(secrets.choice(string.ascii_letters) for _ in range(TOKEN_LENGTH - len(PREFIX)))
        true_root, other_root = make_root("Demo Root"), make_root("Some Other Root That Is Trusted Too")
        true_issuer, other_issuer = true_root.issue_ca("Demo Issuer"), other_root.issue_ca("Impostor Issuer")
        spare = make_root("Demo Spare")  # never used: the backup pin that a config must have
        server = _start(stack, python, top / "private" / "server", issuer=true_issuer, token=token)
        other_token = secrets.token_urlsafe(32)
        impostor = _start(stack, python, top / "private" / "impostor", issuer=other_issuer, token=other_token)
        stage = Stage(top=top, token=token, since=since, server=server, impostor=impostor, sabotage=sabotage)
        for name in _AGENTS_PROGRAMS:
            shutil.copyfile(Path(__file__).with_name(name), stage.kit / name)
        stage.authorities.write_text(true_root.pem + other_root.pem)
        for path in stage.kit.iterdir():
            path.chmod(0o644)
        stage.config.write_text(_config(stage, true_issuer.pin, other_issuer.pin, spare.pin))
        yield stage


def _start(stack: contextlib.ExitStack, python: Path, place: Path, *, issuer: Issued, token: str) -> Server:
    """Start a server whose files are `place` with their suffixes."""
    leaf = issuer.issue([HOST])
    certificate, key, record = (place.with_suffix(kind) for kind in (".pem", ".key", ".record"))
    certificate.write_text(leaf.chain_pem)
    key.write_text(leaf.key_pem)  # in a directory that only root can enter
    script = Path(__file__).with_name("mcp_server.py")
    command = [str(python), "-I", str(script), "--cert", str(certificate), "--key", str(key), "--record", str(record)]
    process = subprocess.Popen(
        [*command, "--server-name", HOST],
        env={},
        cwd="/",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    stack.callback(_stop, process)
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(token + "\n")
    process.stdin.flush()
    line = process.stdout.readline()
    if not line:
        raise DemoError(f"the {place.name} ended with {process.wait()} before it listened")
    return Server(process, json.loads(line)["port"], record)


def _stop(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    with contextlib.suppress(OSError):
        process.stdin.close()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    assert process.stdout is not None
    process.stdout.close()


def _config(stage: Stage, pin: str, impostors_pin: str, backup: str) -> str:
    expires = datetime.datetime.now(datetime.UTC).date() + datetime.timedelta(days=180)
    auth = [way for way in ("uid", "bearer") if f"{way}-gate" not in stage.sabotage]
    client_auth = "" if len(auth) == 2 else f"client_auth = {json.dumps(auth)}\n"

    def entry(name: str, server: Server, own_pin: str) -> str:
        return f"""\
[mcp_servers.{name}]
url = "{URL}"
bearer_token_env_var = "DEMO_TOKEN"
connect_to = "127.0.0.1:{server.port}"
allow_private = true
{client_auth}
[mcp_servers.{name}.tls]
ca = "custom"
ca_file = "{stage.authorities}"

[mcp_servers.{name}.tls.pins]
expires = {expires}
pin = [{{ spki = "{own_pin}", at = "intermediate" }}, {{ spki = "{backup}", backup = true }}]

"""

    layers = 'layers = { landlock_exec = "off" }\n' if "landlock" in stage.sabotage else ""
    rules = "" if "deny" in stage.sabotage else f'{{ deny = "{DENIED}" }}'
    environment = 'task_environment = ["DEMO_*"]\n' if "task-environment" in stage.sabotage else ""
    return (
        entry("demo", stage.server, pin)
        + entry("impostor", stage.impostor, impostors_pin if "pins" in stage.sabotage else pin)
        + f'[session]\nagent = "claude"\n{layers}\n[exec]\n{environment}rules = [{rules}]\n'
    )


def leftovers(uids: frozenset[int], top: Path) -> list[str]:
    """Return what is still there of a session with `uids` and of its stage: processes, mounts, files."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                status = Path(f"/proc/{name}/status").read_text(errors="replace")
                if int(status.partition("\nUid:\t")[2].split()[0]) in uids:
                    found.append(f"process {name}")
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as mounts:
        found += [f"mount {line.split()[4]}" for line in mounts if " - tmpfs coding-agents " in line]
    return found + ([str(top)] if top.exists() else [])
