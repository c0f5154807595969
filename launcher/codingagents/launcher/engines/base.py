"""CORE: what every engine does: give a session directory's supervisor a place to be PID 1, and stay with it to the end.

Interface only. `podman` and `docker` come behind it later.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from codingagents.rewrite.specs import AnyControl, RenewedSecrets, SessionSecrets


class Engine(Protocol):
    """One way to run a session. An engine object starts at most one."""

    def prepare(self) -> None:
        """Take what the session will need of this process; writes nothing. Raises `UsageError` or `ProcessError`.

        It comes first, so that an engine that cannot work here leaves no trace of a session. Signals that are meant for
        the session may wait from then on, until `start` passes them on.
        """

    def start(
        self,
        directory: Path,
        secrets: SessionSecrets,
        on_control: Callable[[AnyControl], None],
        renewals: Callable[[], RenewedSecrets | None],
    ) -> int:
        """Run the session that `directory` describes and return its exit code, 128+N where signal N ended it.

        `secrets` go over an inherited descriptor and nowhere else; the launcher's end of it stays open for as long as
        the launcher lives, so that its death is seen. `on_control` gets each message that comes back, in order.
        `renewals` is asked about once a second whether secrets have new values, which the session is then sent.
        Signals meant for the session are passed on. `prepare` must have succeeded. Raises `ProcessError`.
        """
