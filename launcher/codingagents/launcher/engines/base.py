"""CORE: what every engine does: give a session directory's supervisor a place to be PID 1, and stay with it to the end.

Interface only. `podman` and `docker` come behind it later.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from codingagents.rewrite.specs import AnyControl, AnyRenewal, SessionSecrets


class Companion(Protocol):
    """What the launcher does beside its session. None of it waits for anything."""

    def fileno(self) -> int:
        """Return a descriptor that is readable where `attend` should be called."""

    def hear(self, message: AnyControl) -> None:
        """Take in a message of the session."""

    def hung_up(self) -> None:
        """Take in a SIGHUP that is the launcher's own, and not the session's."""

    def attend(self) -> list[AnyRenewal]:
        """Do what is due, and return what to send the session; called at each turn, at least once a second."""


class Engine(Protocol):
    """One way to run a session. An engine object starts at most one."""

    def prepare(self) -> None:
        """Take what the session will need of this process; writes nothing. Raises `UsageError` or `ProcessError`.

        It comes first, so that an engine that cannot work here leaves no trace of a session. Signals that are meant for
        the session may wait from then on, until `start` passes them on.
        """

    def start(self, directory: Path, secrets: SessionSecrets, companion: Companion) -> int:
        """Run the session that `directory` describes and return its exit code, 128+N where signal N ended it.

        `secrets` go over an inherited descriptor and nowhere else; the launcher's end of it stays open for as long as
        the launcher lives, so that its death is seen. `companion` hears each message that comes back, in order, and
        what it returns is sent to the session. Signals meant for the session are passed on. `prepare` must have
        succeeded. Raises `ProcessError`.
        """
