"""CORE: what every client module offers (`known` lists them). Values only; files are written by `rewrite.files`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Protocol

from codingagents.trust.vocabulary import Secret


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One server as a client reaches it: the helper's URL and the local bearer that the helper demands."""

    name: str
    url: str
    bearer: Secret


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

    def render(self, endpoints: Sequence[Endpoint], codex_toml: str = "") -> list[ClientFile]:
        """Return the client's files for `endpoints`; `codex_toml` is `SessionSpec.codex_toml`."""

    def switches(self, root: str) -> Switches:
        """Return what makes the client use its files below `root`, an absolute path."""
