"""CORE: the nouns: names, roles and secrets. Values only; no I/O, no clock, no randomness."""

from __future__ import annotations

import enum
import re
from typing import Final, Literal, NewType, NoReturn

from codingagents.trust.errors import ConfigError

ServerName = NewType("ServerName", str)
SessionId = NewType("SessionId", str)
SecretName = NewType("SecretName", str)

LayerWish = Literal["require", "prefer", "off"]
# The names of `layers = { … }`, in the order of the layer report. What each is: `supervisor/layers.py` and the runbook.
LAYER_NAMES: Final = (
    "uid_drop",
    "caps_bounding",
    "securebits",
    "no_new_privs",
    "seccomp_static",
    "userns",
    "limits",
    "landlock_exec",
    "memfd_rule",
    "exec_trap",
    "pidns",
    "mountns",
    "run_dirs",
    "proc_hidden",
    "agent_netns",
    "engine_seccomp",
    "apparmor",
)
PinPosition = Literal["any", "leaf", "intermediate", "root"]
PinMode = Literal["enforce", "report", "off"]
MinVersion = Literal["1.2", "1.3"]  # of TLS
Store = Literal["host", "certifi", "custom", "pinned-only"]  # where trust anchors come from

# Codex's own rule for the NAME of an `[mcp_servers.NAME]` table.
_SERVER_NAME = re.compile(r"[A-Za-z0-9_-]{1,32}", re.ASCII)
_SESSION_ID = re.compile(r"[a-z0-9-]{1,64}", re.ASCII)
_AGENT_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,31}", re.ASCII)
_SECRET_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}", re.ASCII)


def parse_server_name(text: str) -> ServerName:
    """Return `text` as a server name, or raise `ConfigError`."""
    if not _SERVER_NAME.fullmatch(text):
        raise ConfigError(f"server name {text!r} must be 1 to 32 of A-Z a-z 0-9 _ -")
    return ServerName(text)


def parse_session_id(text: str) -> SessionId:
    """Return `text` as a session id, or raise `ConfigError`."""
    if not _SESSION_ID.fullmatch(text):
        raise ConfigError(f"session id {text!r} must be 1 to 64 of a-z 0-9 -")
    return SessionId(text)


def parse_secret_name(text: str) -> SecretName:
    """Return `text` as a secret's name, or raise `ConfigError`."""
    if not _SECRET_NAME.fullmatch(text):
        raise ConfigError(f"secret name {text!r} must look like an environment variable's name")
    return SecretName(text)


def parse_agent_name(text: str) -> str:
    """Return `text` as an agent's name, or raise `ConfigError`."""
    if not _AGENT_NAME.fullmatch(text):
        raise ConfigError("agent must be 1 to 32 of a-z 0-9 -")
    return text


class Role(enum.StrEnum):
    """Who a process is in a session; each role has a UID of its own."""

    SUPERVISOR = "supervisor"
    AGENT = "agent"
    TASK = "task"
    HELPER = "helper"
    COMMAND_SERVER = "command-server"


class Firmness(enum.StrEnum):
    """What stands behind a denial."""

    FIRM = "firm"  # the kernel itself refuses: Landlock, DAC, a static seccomp filter
    ADVISORY = "advisory"  # decided from memory that the tracee can change after the decision


class Secret:
    """A secret value without a text form: `reveal` is the only way to the bytes, and greppable.

    It cannot be pickled, formatted or shown; the wire codec refuses it unless asked by name.
    """

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        """Wrap `value`; an empty secret is a mistake and raises `ConfigError`."""
        if not value:
            raise ConfigError("a secret must not be empty")
        self._value = value

    def reveal(self) -> str:
        """Return the value, at the last moment, in the process that needs it."""
        return self._value

    def __repr__(self) -> str:
        return "<Secret>"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return "<Secret>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is never pickled")
