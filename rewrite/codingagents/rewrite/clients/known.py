"""CORE: the clients that sessions are rewritten for, by name."""

from __future__ import annotations

from collections.abc import Mapping

from codingagents.rewrite.clients import claude, codex
from codingagents.rewrite.clients.base import Client

CLIENTS: Mapping[str, Client] = {claude.NAME: claude, codex.NAME: codex}
