"""SHELL: what the launcher does beside a running session: keeps checkpoints, looks after secrets, reloads trust.

The engine calls it between two waits; nothing here waits. Decides nothing: whoever asked for a reload gets its turn.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections import deque
from collections.abc import Callable, Iterator

from codingagents.launcher.reload_plan import ReloadReport, sentences
from codingagents.launcher.reload_socket import ReloadSocket
from codingagents.launcher.renewals import Renewals
from codingagents.launcher.session_dir import CheckpointKeeper, SessionFiles
from codingagents.launcher.session_trust import TrustReload
from codingagents.launcher.terminal import say_briefly
from codingagents.rewrite.specs import (
    AnyControl,
    AnyRenewal,
    ControlCheckpoint,
    ControlTrust,
    RenewedSecrets,
    RenewedTrust,
    SessionSpec,
)
from codingagents.trust.errors import AgentError

_LOOK_SECONDS = 1.0  # between two looks at the secrets' files


@contextlib.contextmanager
def beside(files: SessionFiles, spec: SessionSpec, renewals: Renewals, reload: TrustReload) -> Iterator[Beside]:
    """Give what goes on beside the session that `files` and `spec` describe, and its socket up afterwards."""
    with contextlib.closing(ReloadSocket(files.directory, say_briefly)) as callers:
        yield Beside(CheckpointKeeper(files, spec.public_key), renewals, reload, callers, say_briefly)


class Beside:
    """Of one session; an `engines.base.Companion`."""

    def __init__(
        self,
        checkpoints: CheckpointKeeper,
        renewals: Renewals,
        reload: TrustReload,
        callers: ReloadSocket,
        say: Callable[[str], None],
    ) -> None:
        """Put these together; `say` is told what nobody else is."""
        self._checkpoints = checkpoints
        self._renewals = renewals
        self._reload = reload
        self._callers = callers
        self._say = say
        self._next_look = time.monotonic() + _LOOK_SECONDS
        self._waiting: deque[Callable[[ReloadReport], None]] = deque()  # the first one's reload goes on, if one does
        self._reloading = False

    def fileno(self) -> int:
        """Return the descriptor to wait on."""
        return self._callers.fileno()

    def hear(self, message: AnyControl) -> None:
        """Take in a message of the session."""
        match message:
            case ControlCheckpoint(note=note):
                try:
                    self._checkpoints.keep(note)
                except AgentError as error:
                    # The session goes on: the log holds its checkpoints as well, only not out of the session's reach.
                    self._say(f"warning: a checkpoint was not kept: {error}")
            case ControlTrust():
                self._reload.hear(message)

    def hung_up(self) -> None:
        """Reload trust, and say what became of it."""
        if self._waiting.count(self._say_report) < 2:  # one that waits reads all that has changed by then
            self._waiting.append(self._say_report)

    def attend(self) -> list[AnyRenewal]:
        """Do what is due, and return what to send the session."""
        self._waiting.extend(functools.partial(self._callers.answer, caller) for caller in self._callers.attend())
        return [*self._look(), *self._reload_if_asked()]

    def _look(self) -> list[RenewedSecrets]:
        if time.monotonic() < self._next_look:
            return []
        self._next_look = time.monotonic() + _LOOK_SECONDS
        news = self._renewals.look()
        return [] if news is None else [news]

    def _reload_if_asked(self) -> list[RenewedTrust]:
        news: list[RenewedTrust] = []
        while not news:
            if self._reloading:
                report = self._reload.finished()
                if report is None:
                    break
                self._reloading = False
                self._waiting.popleft()(report)
            if not self._waiting:
                break
            self._reloading = True
            news = self._reload.begin()
        return news

    def _say_report(self, report: ReloadReport) -> None:
        for sentence in (*(f"warning: {warning}" for warning in report.warnings), *sentences(report)):
            self._say(f"trust reload: {sentence}")
