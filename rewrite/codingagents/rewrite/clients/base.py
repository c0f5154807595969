"""CORE: what every client module offers (`known` lists them). Values only; files are written by `rewrite.files`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

from codingagents.rewrite.specs import RemoteSpec
from codingagents.trust.vocabulary import Secret

Transport = Literal["http", "sse"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One server as a client reaches it: the helper's URL and the local bearer that the helper demands."""

    name: str
    url: str
    bearer: Secret
    transport: Transport = "http"


def loopback_url(remote: RemoteSpec, port: int | str) -> str:
    """Return what clients are told of a helper that listens on `port`: the upstream's path on the helper's origin."""
    return f"{'https' if remote.listen == 'https' else 'http'}://127.0.0.1:{port}{remote.path}"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ClientFile:
    """A file for a client, below its own directory: `path` is `DIRECTORY/NAME`. `content` holds local bearers."""

    path: str
    content: bytes = dataclasses.field(repr=False)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Switches:
    """What makes a client read its rewritten config: arguments before its own, and environment variables."""

    arguments: tuple[str, ...] = ()
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """A program that a client itself must be able to execute, beside the task shell.

    `path` is absolute, or relative to the directory of the client's program, links resolved, with the globs of
    `[exec]` rules; "" is that program itself.
    """

    path: str
    why: str  # one clause, for records
    essential: bool = False  # without it no tool call works; else the client was seen to go on


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Shelling:
    """How a client runs shell commands, and what it takes to have the task runner run them.

    Measured for one version (`measured`): a new one is a change of this table and a recorded run. `{shell}` in a value
    stands for the path of the task shell.
    """

    measured: str  # version that the table was measured with
    environment: Mapping[str, str]  # variables that choose the shell, e.g. {"COPILOT_BASH_PATH": "{shell}"}
    account_shell: bool  # the shell of the agent's account in passwd(5) chooses it
    needs: tuple[Need, ...]
    task_environment: tuple[str, ...]  # variables of its own that its commands want: names, or prefixes ending in `*`
    degrades: tuple[str, ...]  # what stops working, or fails open, where other spawns are denied; one sentence each


class Client(Protocol):
    """One kind of client. Modules of this package are instances of it."""

    NAME: str
    SHELLING: Shelling
    TRANSPORTS: frozenset[Transport]  # what it speaks; `render` leaves every other endpoint out

    def render(self, endpoints: Sequence[Endpoint], codex_toml: str = "") -> list[ClientFile]:
        """Return the client's files for `endpoints`; `codex_toml` is `SessionSpec.codex_toml`."""

    def switches(self, root: str, session_ca: str | None = None) -> Switches:
        """Return what makes the client use its files below `root`, an absolute path.

        `session_ca` is the path of a PEM file that it must trust besides its usual authorities, where there is one.
        """
