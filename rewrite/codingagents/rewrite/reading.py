"""SHELL: reads a configuration file; `parse` says what is in it."""

from __future__ import annotations

import hashlib
from pathlib import Path

from codingagents.rewrite.config import Config
from codingagents.rewrite.parse import MAX_BYTES, parse_config
from codingagents.rewrite.private_files import read_plain
from codingagents.trust.errors import ConfigError, NotFoundError


def read_config(path: Path, *, unpinned_credentials: bool = False) -> tuple[Config, str]:
    """Return the configuration in `path` and the SHA-256 of the file in hex; `NotFoundError` or `ConfigError`.

    `unpinned_credentials`: as `parse.parse_config` has it.
    """
    text = read_text(path)
    config = parse_config(text, str(path), unpinned_credentials=unpinned_credentials)
    return config, hashlib.sha256(text.encode()).hexdigest()


def read_text(path: Path, directory: int | None = None) -> str:
    """Return the text of a configuration file, its line ends as they are; `NotFoundError` or `ConfigError`.

    `directory`: as `read_plain` has it.
    """
    try:
        return read_plain(path, limit=MAX_BYTES, directory=directory).decode()
    except FileNotFoundError:
        raise NotFoundError(f"there is no configuration file {path}; write one, or name another") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is not UTF-8 text") from None
