"""SHELL: how a helper in the foreground is to trust its server, read again from the files that said so at its start.

A session's helper is told by its supervisor instead. Reads and compares; does not decide what becomes of connections.
"""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Final

from codingagents.rewrite import foreground_plan as plan
from codingagents.rewrite.anchors import read_anchors
from codingagents.rewrite.check import check_expiry
from codingagents.rewrite.override_store import OverrideStore
from codingagents.rewrite.plan import anchor_sources, with_anchors
from codingagents.rewrite.reading import read_config
from codingagents.rewrite.specs import RemoteSpec, TlsSpec
from codingagents.trust.errors import ConfigError

_PLACE: Final = ("scheme", "host", "port", "connect_to", "proxy")


def read_trust(file: Path, overrides: Path, running: RemoteSpec) -> TlsSpec:
    """Return what `file` and the store of `overrides` say now of the server that `running` describes.

    Raises `AgentError` where they cannot be used, or where the server is reached at another place than it was.
    """
    read, _ = read_config(file)
    config = plan.only(read, running.name)
    check_expiry(config, datetime.datetime.now(datetime.UTC).date())
    (server,) = config.remotes
    anchors = read_anchors(anchor_sources(config), config.file, OverrideStore(overrides))
    found = with_anchors(config, server, anchors)
    if found.tls is None or any(getattr(found, name) != getattr(running, name) for name in _PLACE):
        raise ConfigError(f"{config.file}: [mcp_servers.{running.name}] is at another place now; start helper run anew")
    return found.tls
