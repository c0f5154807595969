"""The real clients, at pinned versions: how each is started and asked, in a container or anywhere.

    claude = CLIENTS["claude"]
    claude.command("run-1")             # its program below HOME, and its arguments
    claude.environment("run-1")         # what makes the fake model its vendor, with credentials to look for
    claude.shell("id -u")               # a call of its own shell tool, as `model.py` takes it

The programs are npm's, locked with their hashes in `npm/`, kept in /var/cache/coding-agents and mounted at HOME: they
are other people's, and none lies in this repository. Starts nothing itself; `client_rig` does.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from conformance.parts import node, npm_packages

HOME = "/opt/clients/node_modules"  # where `programs()` is mounted
NODE = "/opt/node"  # where `runtime()` is mounted: its `bin` has what npm's start scripts are run by
TRUST = "/opt/trust/root.pem"  # Copilot wants authorities, be it for nothing
MODEL_PORT = 18090
# A credential of each kind that a person has in the client's environment, for `demo/hunt.py` to look for.
CREDENTIAL_PREFIX, CREDENTIAL_LENGTH = "canary-", 39
CREDENTIALS = {
    name: f"{CREDENTIAL_PREFIX}{hashlib.sha256(name.encode()).hexdigest()[:32]}"
    for name in (
        *("ANTHROPIC_API_KEY", "OPENAI_API_KEY", "CODEX_API_KEY", "GH_TOKEN", "COPILOT_PROVIDER_API_KEY", "MY_TOKEN"),
    )
}
_NPM = Path(__file__).parent / "npm"


def programs() -> Path:
    """Return the directory to mount at HOME; installs the clients first where they are not there yet."""
    return npm_packages(_NPM, "400 MB, 960 MB unpacked") / "node_modules"


def runtime() -> Path:
    """Return the directory to mount at NODE."""
    return node().parents[1]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """One client: its program and switches, its shell tool, and what of its answers differs from run to run."""

    name: str
    program: str
    arguments: tuple[str, ...]  # `{url}` is the model's, for this run
    prompt: tuple[str, ...]  # after all other arguments
    alone: tuple[str, ...] = ()  # arguments that it needs where no session has told it the same
    credentials: tuple[str, ...]  # names in CREDENTIALS that it is given
    variables: Mapping[str, str]  # `{url}` as well
    shell_tool: str
    shell_argument: str
    shell_defaults: Mapping[str, Any]
    varying: tuple[str, ...]  # patterns of what is another text in each run

    @property
    def path(self) -> str:
        return f"{HOME}/{self.program}"

    def command(self, run: str, *more: str) -> list[str]:
        arguments = (argument.replace("{url}", _url(run)) for argument in self.arguments)
        return [self.path, *arguments, *more, *self.prompt]

    @property
    def by_its_script(self) -> Client:
        """The same client as npm has it started: by a link to a script, which `node` must be found for."""
        return dataclasses.replace(
            self,
            program=f".bin/{self.name}",
            variables={**self.variables, "PATH": f"{NODE}/bin:/usr/local/bin:/usr/bin:/bin"},
        )

    def environment(self, run: str) -> dict[str, str]:
        return {
            **{name: CREDENTIALS[name] for name in self.credentials},
            **{name: value.replace("{url}", _url(run)) for name, value in self.variables.items()},
        }

    def shell(self, command: str, **options: Any) -> dict[str, Any]:
        """Return a call of the shell tool; `options` are the tool's own."""
        arguments = {self.shell_argument: command, **self.shell_defaults, **options}
        return {"name": self.shell_tool, "arguments": arguments}

    def plain(self, result: str) -> str:
        """Return a tool's answer without what varies."""
        for pattern in self.varying:
            result = re.sub(pattern, "", result)
        return result.strip()


def _url(run: str) -> str:
    return f"http://127.0.0.1:{MODEL_PORT}/{run}"


_CLAUDE = Client(
    name="claude",
    program="@anthropic-ai/claude-code-linux-x64/claude",
    arguments=("--permission-mode", "bypassPermissions", "--model", "claude-sonnet-4-5"),
    prompt=("-p", "go"),
    credentials=("ANTHROPIC_API_KEY", "MY_TOKEN"),
    variables={"ANTHROPIC_BASE_URL": "{url}", "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1"},
    shell_tool="Bash",
    shell_argument="command",
    shell_defaults={"description": "a test"},
    # What it adds for the model, and the names of its own files.
    varying=(r"(?s)\s*<system-reminder>.*?</system-reminder>", r"/\S+/claude-\d+/\S+\.output", r"\bb[0-9a-z]{8}\b"),
)
_CODEX = Client(
    name="codex",
    program="@openai/codex-linux-x64/vendor/x86_64-unknown-linux-musl/bin/codex",
    arguments=(
        *("exec", "--skip-git-repo-check", "-c", 'model="fake"', "-c", 'model_provider="fake"'),
        *("-c", 'model_providers.fake={name="fake", base_url="{url}/v1", wire_api="responses"}'),
        *("-c", 'approval_policy="never"'),
    ),
    prompt=("go",),
    alone=("-c", 'sandbox_mode="danger-full-access"'),
    credentials=("OPENAI_API_KEY", "CODEX_API_KEY", "MY_TOKEN"),
    variables={},
    shell_tool="exec_command",
    shell_argument="cmd",
    shell_defaults={},
    varying=(r"Chunk ID: \w+", r"Wall time:? [\d.]+ seconds", r"Original token count: \d+", r"session ID \d+"),
)
_COPILOT = Client(
    name="copilot",
    program="@github/copilot-linux-x64/copilot",
    arguments=("--allow-all", "--no-color"),
    prompt=("-p", "go"),
    credentials=("GH_TOKEN", "COPILOT_PROVIDER_API_KEY", "MY_TOKEN"),
    variables={
        "COPILOT_OFFLINE": "true",
        "COPILOT_PROVIDER_BASE_URL": "{url}/v1",
        "COPILOT_MODEL": "fake",
        "COPILOT_AUTO_UPDATE": "false",
        "SSL_CERT_FILE": TRUST,
    },
    shell_tool="bash",
    shell_argument="command",
    shell_defaults={"description": "a test"},
    varying=(),
)
CLIENTS: Mapping[str, Client] = {client.name: client for client in (_CLAUDE, _CODEX, _COPILOT)}
