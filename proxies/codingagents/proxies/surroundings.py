"""CORE: what a `Relay` is surrounded by: the two ends of its connection, its shell, its helper's configuration.

Interfaces and one frozen value, nothing that runs. The shell (`server`, `upstream`) implements the interfaces over
asyncio; tests implement them with recorders.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from codingagents.proxies.credentials import Attachment
from codingagents.proxies.gate import Gate
from codingagents.proxies.heads import RequestHeads, ResponseHeads
from codingagents.proxies.sse import Endpoints
from codingagents.proxies.targets import Origin
from codingagents.rewrite.specs import LimitsSpec
from codingagents.trust.facts import AnyFact


class ClientEnd(Protocol):
    """The client's transport, with asyncio's own method names and meanings, so that it *is* the transport."""

    def write(self, data: bytes, /) -> None:
        """Send after all that was written before."""

    def write_eof(self) -> None:
        """End our half of the stream after all that was written."""

    def close(self) -> None:
        """End the connection."""

    def abort(self) -> None:
        """End the connection and drop what was not sent yet."""

    def pause_reading(self) -> None:
        """Deliver no data until `resume_reading`."""

    def resume_reading(self) -> None:
        """Deliver data again."""


class UpstreamEnd(Protocol):
    """One upstream connection, this relay's alone until `release` or `close`."""

    trusted: bool  # a pin matched, or the server needs none: the credential may be sent
    reused: bool  # it served a request before

    def write(self, data: bytes, /) -> None:
        """Send after all that was written before."""

    def pause_reading(self) -> None:
        """Deliver no data until `resume_reading`."""

    def resume_reading(self) -> None:
        """Deliver data again."""

    def release(self, idle_seconds: int | None, /) -> None:
        """Give the connection back for other requests; the server said it keeps it so long."""

    def close(self) -> None:
        """End the connection."""


class Surroundings(Protocol):
    """What a relay asks of its shell."""

    def peer(self) -> tuple[bool, int | None]:
        """Return (allowed, UID) of the client as the kernel tells it now."""

    def watch(self, on: bool, /) -> None:
        """Call `client_closed` as soon as the client goes away, also while nothing is read from it; or no longer so."""

    def connect(self, *, fresh: bool) -> UpstreamEnd | None:
        """Return an idle connection (never with `fresh`), or None: `upstream_ready` or `upstream_failed` follow."""

    def cancel_connect(self) -> None:
        """Forget the connection that was asked for."""

    def emit(self, fact: AnyFact, /) -> None:
        """Report `fact`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayConfig:
    """What all relays of one helper share."""

    server: str
    gate: Gate
    requests: RequestHeads
    responses: ResponseHeads
    limits: LimitsSpec
    attachment: Attachment
    origin: Origin  # of the upstream
    judge: Callable[[bytes], str | None]  # a code where a target is not on the route that the credential is for
    endpoints: Endpoints | None  # exactly where the upstream speaks legacy HTTP with SSE
    refusal: Callable[[], str | None]  # a code while no request may go upstream at all (pins past their date)
