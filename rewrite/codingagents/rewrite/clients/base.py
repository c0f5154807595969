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
    """A program that a client itself must be able to execute, beside the task shell; a file that is not there is none.

    `path` is absolute, or relative to the directory of the client's program, links resolved, with the globs of
    glob(7); "" is that program itself.
    """

    path: str
    why: str  # one clause, for records


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """A JSON file of the client's that wins over what a project, or the agent, can write.

    `path` is `DIRECTORY/NAME` below the clients' directory, or absolute: an administrator's file, which is changed in
    containers only, merged with what it holds, and put back at the end. In `content` and `arguments`, `{shell}` is the
    path of the task shell and `{file}` that of this file.
    """

    path: str
    content: Mapping[str, Mapping[str, str]]  # the values of each top-level table that are to be ours
    arguments: tuple[str, ...] = ()  # before the client's own


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Shelling:
    """How a client runs shell commands, and what it takes to have the task runner run them.

    Measured for one version (`measured`): a new one is a change of this table and a recorded run. `{shell}` in a value
    stands for the path of the task shell. The sentences say what stops working, or fails open, in enforce mode, where
    what is not routed is denied.
    """

    measured: str  # version that the table was measured with
    environment: Mapping[str, str]  # variables that choose the shell, e.g. {"COPILOT_BASH_PATH": "{shell}"}
    account_shell: bool  # the shell of the agent's account in passwd(5) chooses it
    needs: tuple[Need, ...]
    task_environment: tuple[str, ...]  # variables of its own that its commands want: names, or prefixes ending in `*`
    settings: tuple[Settings, ...] = ()
    degrades: tuple[str, ...] = ()  # anyhow
    unmounted: tuple[str, ...] = ()  # where the task shells cannot be mounted over the system's
    open: tuple[str, ...] = ()  # what cannot be closed


class Client(Protocol):
    """One kind of client. Modules of this package are instances of it."""

    NAME: str
    SHELLING: Shelling
    TRANSPORTS: frozenset[Transport]  # what it speaks; `render` leaves every other endpoint out

    def render(self, endpoints: Sequence[Endpoint], codex_toml: str = "", *, routed: bool = False) -> list[ClientFile]:
        """Return the client's files for `endpoints`; `codex_toml` is `SessionSpec.codex_toml`.

        `routed`: its commands are run by the task runner, each in a sandbox.
        """

    def switches(self, root: str, session_ca: str | None = None) -> Switches:
        """Return what makes the client use its files below `root`, an absolute path.

        `session_ca` is the path of a PEM file that it must trust besides its usual authorities, where there is one.
        """
