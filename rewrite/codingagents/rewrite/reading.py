"""SHELL: reads a configuration file; `parse` says what is in it."""

from __future__ import annotations

import hashlib
from pathlib import Path

from codingagents.rewrite.config import Config
from codingagents.rewrite.parse import MAX_BYTES, parse_config
from codingagents.rewrite.private_files import read_plain
from codingagents.trust.errors import ConfigError, NotFoundError


def read_config(path: Path) -> tuple[Config, str]:
    """Return the configuration in `path` and the SHA-256 of the file in hex; `NotFoundError` or `ConfigError`."""
    try:
        content = read_plain(path, limit=MAX_BYTES)
        text = content.decode()
    except FileNotFoundError:
        raise NotFoundError(f"there is no configuration file {path}; write one, or name another") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is not UTF-8 text") from None
    return parse_config(text, str(path)), hashlib.sha256(content).hexdigest()
