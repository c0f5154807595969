"""Tools that wait for the client, so that a test sees order instead of time; none of them is the harness's.

A gate is a name that the caller makes up. `walk` reports each step only when `step` was called once more, which a
client does on hearing of the step before: behind a proxy that holds back progress until the end, the two wait for each
other for ever. `hang` ends by being cancelled only, and `cancelled` answers once it was.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import anyio

from conformance.catalog import said, tool

_STEPS: defaultdict[str, anyio.Semaphore] = defaultdict(lambda: anyio.Semaphore(0))
_CANCELLED: defaultdict[str, anyio.Event] = defaultdict(anyio.Event)
_GATE = {"gate": {"type": "string"}}


@tool("walk", _GATE | {"steps": {"type": "integer"}})
async def _walk(ctx: Any, params: Any) -> Any:
    """Report `steps` steps, and wait after each until `step` was called."""
    steps = params.arguments["steps"]
    for number in range(1, steps + 1):
        await ctx.session.report_progress(number, steps, f"step {number}")
        await _STEPS[params.arguments["gate"]].acquire()
    return said(f"walked {steps} steps")


@tool("step", _GATE)
async def _step(_ctx: Any, params: Any) -> Any:
    """Let `walk` go on."""
    _STEPS[params.arguments["gate"]].release()
    return said("one step")


@tool("hang", _GATE)
async def _hang(ctx: Any, params: Any) -> Any:
    """Report that it started, and wait to be cancelled."""
    try:
        await ctx.session.report_progress(1, 2, "hanging")
        await anyio.sleep_forever()
    except anyio.get_cancelled_exc_class():
        _CANCELLED[params.arguments["gate"]].set()
        raise


@tool("cancelled", _GATE)
async def _cancelled(_ctx: Any, params: Any) -> Any:
    """Answer once `hang` was cancelled."""
    await _CANCELLED[params.arguments["gate"]].wait()
    return said("it was cancelled")
