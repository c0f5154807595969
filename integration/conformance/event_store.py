"""Keeps a session's SSE events in memory, so that a client can come back with Last-Event-ID."""

from __future__ import annotations

from typing import Any

from mcp.server.streamable_http import EventMessage, EventStore


class Events(EventStore):  # type: ignore[misc]  # the SDK lives in another environment: Any for this one
    """Every event of every stream, in order; an event's id is its place."""

    def __init__(self) -> None:
        self._events: list[tuple[str, Any]] = []

    async def store_event(self, stream_id: str, message: Any) -> str:
        """Keep `message`, None where it only primes the stream, and return its id."""
        self._events.append((stream_id, message))
        return str(len(self._events) - 1)

    async def replay_events_after(self, last_event_id: str, send_callback: Any) -> str | None:
        """Send what came after `last_event_id` on its stream; None where there is no such event."""
        if not last_event_id.isdecimal() or int(last_event_id) >= len(self._events):
            return None
        after = int(last_event_id)
        stream = self._events[after][0]
        for number, (of, message) in enumerate(self._events[after + 1 :], after + 1):
            if of == stream and message is not None:
                await send_callback(EventMessage(message, str(number)))
        return stream
