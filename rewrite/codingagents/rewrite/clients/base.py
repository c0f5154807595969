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


class Client(Protocol):
    """One kind of client. Modules of this package are instances of it."""

    NAME: str
    TRANSPORTS: frozenset[Transport]  # what it speaks; `render` leaves every other endpoint out

    def render(self, endpoints: Sequence[Endpoint], codex_toml: str = "") -> list[ClientFile]:
        """Return the client's files for `endpoints`; `codex_toml` is `SessionSpec.codex_toml`."""

    def switches(self, root: str, session_ca: str | None = None) -> Switches:
        """Return what makes the client use its files below `root`, an absolute path.

        `session_ca` is the path of a PEM file that it must trust besides its usual authorities, where there is one.
        """
