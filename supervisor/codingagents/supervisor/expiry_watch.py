"""SHELL: the clock of `expiry`: looks when something may be due, and has told what is. Decides nothing."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable

import trio

from codingagents.supervisor import expiry
from codingagents.supervisor.event_log import utc_now
from codingagents.trust.events import TrustExpiring


class ExpiryWatch:
    """Watches what ends in one session."""

    def __init__(
        self,
        ends: Callable[[], Iterable[expiry.End]],
        record: Callable[[TrustExpiring], object],
        now: Callable[[], datetime.datetime] = utc_now,
    ) -> None:
        """Ask `ends` for what there is at the time, and give `record` what must be told of it."""
        self._ends = ends
        self._record = record
        self._now = now
        self._changed = trio.Event()

    def changed(self) -> None:
        """Say that `ends` has something new to return."""
        self._changed.set()

    async def run(self) -> None:
        """Watch until cancelled."""
        told: expiry.Told = {}
        while True:
            self._changed = trio.Event()
            ends, now = list(self._ends()), self._now()
            events, told = expiry.due(ends, told, now)
            for event in events:
                self._record(event)
            with trio.move_on_after(expiry.next_look(ends, now).total_seconds()):
                await self._changed.wait()
