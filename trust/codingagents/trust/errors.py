"""CORE: the one error family. A bug is `RuntimeError` or `AssertionError`; bad data or a refusal is one of these.

Every message is one sentence that names what was wrong and what to do, and never holds a secret:
it is printed to the user as it is. Nothing here does I/O.
"""

from __future__ import annotations

from typing import ClassVar

EXIT_OK = 0
EXIT_REFUSED = 1
EXIT_USAGE = 2
EXIT_NOT_FOUND = 3
# Where a command passes on another program's code (`run`, `init`), our own failures are those of container engines.
EXIT_UNCONFINED = 124  # a layer that the session requires is not enforced
EXIT_ENGINE = 125
EXIT_NOT_EXECUTABLE = 126
EXIT_NO_PROGRAM = 127


class AgentError(Exception):
    """Root of all errors that are not bugs; `exit_code` is what a command ends with."""

    exit_code: ClassVar[int] = EXIT_REFUSED


class UsageError(AgentError):
    """The command line, or who runs it, does not fit the command."""

    exit_code: ClassVar[int] = EXIT_USAGE


class ConfigError(AgentError):
    """A configuration file cannot be used; the message names file, table and key."""

    exit_code: ClassVar[int] = EXIT_USAGE


class NotFoundError(AgentError):
    """Something named on the command line does not exist."""

    exit_code: ClassVar[int] = EXIT_NOT_FOUND


class WireError(AgentError):
    """Bytes from another process do not decode to what the channel carries."""


class TrustError(AgentError):
    """A peer, a pin or a trust store is not what the configuration demands."""


class ChainError(AgentError):
    """An event log does not verify; `line` is the 1-based number of the first line that does not hold."""

    def __init__(self, line: int, reason: str) -> None:
        """Name the offending line and why it was refused."""
        super().__init__(f"line {line}: {reason}")
        self.line = line
        self.reason = reason


class EventLogError(AgentError):
    """The event log cannot be written; whatever needed the record must be denied."""


class ProcessError(AgentError):
    """A process could not be started or confined as demanded."""

    exit_code: ClassVar[int] = EXIT_ENGINE


class UnconfinedError(ProcessError):
    """A layer that the session requires is not enforced here, so nothing was started."""

    exit_code: ClassVar[int] = EXIT_UNCONFINED
