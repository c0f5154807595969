"""SHELL: the document of `GET /helpers`: each helper asked for its counts, its memory looked at, in one JSON object."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from typing import Final

import msgspec
import trio

from codingagents.supervisor import memory
from codingagents.supervisor.helper_listing import HelperList, HelperRow, Memory
from codingagents.supervisor.helpers import HelperKeeper

_MEMORY_SECONDS: Final = 2.0


class HelperReport:
    """Asks the helpers of one session."""

    def __init__(self, session: str, keepers: Sequence[HelperKeeper]) -> None:
        """Ask those that are in `keepers` at the time."""
        self._session = session
        self._keepers = keepers
        self._threads = trio.CapacityLimiter(1)  # one that hangs on a process's memory must not become many

    async def document(self) -> bytes:
        """Return a `HelperList` as JSON, with a newline; within a few seconds, whatever a helper does."""
        rows: dict[str, HelperRow] = {}

        async def ask(keeper: HelperKeeper) -> None:
            rows[keeper.slot.remote.name] = await keeper.row()

        async with trio.open_nursery() as nursery:
            for keeper in self._keepers:
                nursery.start_soon(ask, keeper)
        taken_at = datetime.datetime.now(datetime.UTC).isoformat().replace("+00:00", "Z")
        seen = await self._look([row.pid for row in rows.values() if row.pid is not None], taken_at)
        helpers = [
            msgspec.structs.replace(row, memory=seen.get(row.pid or 0))
            for row in (rows[keeper.slot.remote.name] for keeper in self._keepers)
        ]
        return msgspec.json.encode(HelperList(session=self._session, taken_at=taken_at, helpers=helpers)) + b"\n"

    async def _look(self, pids: list[int], taken_at: str) -> dict[int, Memory]:
        with trio.move_on_after(_MEMORY_SECONDS):
            return await trio.to_thread.run_sync(
                memory.of_processes, pids, taken_at, abandon_on_cancel=True, limiter=self._threads
            )
        return {}
