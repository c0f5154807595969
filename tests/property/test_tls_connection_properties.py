"""However a TLS stream is cut, and wherever its reader pauses: the same data and the same end."""

from __future__ import annotations

import asyncio
from typing import Literal

from hypothesis import given, settings
from hypothesis import strategies as st

from tls_bench import SERVING, VERSIONS, Bench, Version, trusting

_CONTEXT = trusting()
_SIZES = st.lists(st.sampled_from([1, 2, 300, 16 * 1024 - 1, 16 * 1024, 16 * 1024 + 1, 70_000]), max_size=5)
_CUTS = st.lists(st.integers(1, 100_000) | st.integers(1, 40), max_size=60)
Ending = Literal["alert", "eof", "corrupt"]


@settings(deadline=None)
@given(
    version=st.sampled_from(VERSIONS),
    sizes=_SIZES,
    cuts=_CUTS,
    pauses=st.sets(st.integers(0, 12)),
    ending=st.sampled_from(["alert", "eof", "corrupt"]),
)
def test_no_cut_and_no_pause_changes_what_is_delivered(
    version: Version, sizes: list[int], cuts: list[int], pauses: set[int], ending: Ending
) -> None:
    """`cuts` are the sizes of the first reads of the socket; `pauses` the pieces after which the owner pauses."""
    asyncio.run(_deliver(version, sizes, cuts, pauses, ending))


async def _deliver(version: Version, sizes: list[int], cuts: list[int], pauses: set[int], ending: Ending) -> None:
    bench = Bench(_CONTEXT, SERVING[version])
    connection = bench.stand()

    def maybe_pause() -> None:
        if len(bench.owner.pieces) in pauses:
            connection.pause_reading()

    bench.owner.then = maybe_pause
    sent = [bytes([number]) * size for number, size in enumerate(sizes)]
    wire = b"".join(map(bench.sealed, sent))
    if ending == "alert":
        wire += bench.close_alert()
    elif ending == "corrupt":
        bad = bytearray(bench.sealed(b"never seen"))
        bad[-1] ^= 1
        wire += bad
    for size in [*cuts, len(wire)]:
        piece, wire = wire[:size], wire[size:]
        if piece and not connection.ended:
            bench.arrive(piece)
            await _resume(bench)
    if ending == "eof":
        connection.eof_received()
    assert bench.owner.data == b"".join(sent)
    assert bench.owner.ends == [ending == "alert"]


async def _resume(bench: Bench) -> None:
    while bench.pipe.paused and not bench.connection.ended:
        bench.connection.resume_reading()
        await asyncio.sleep(0)
