"""Any bytes at all are the head of a file that names a loader, within the kernel's limit, or of one that does not."""

from __future__ import annotations

import struct

from hypothesis import given
from hypothesis import strategies as st

from codingagents.supervisor.elf import interpreter_at

heads = st.binary(max_size=200) | st.tuples(
    st.integers(0, 2**64 - 1) | st.just(64), st.just(56) | st.integers(0, 65535), st.integers(0, 65535), st.binary()
).map(
    lambda of: (
        b"\x7fELF\x02\x01".ljust(32, b"\0")
        + struct.pack("<Q", of[0])
        + bytes(14)
        + struct.pack("<HH", of[1], of[2])
        + bytes(6)
        + of[3]
    )
)


@given(heads)
def test_any_head_is_read(head: bytes) -> None:
    at = interpreter_at(head)
    assert at is None or (at[0] >= 0 and 2 <= at[1] <= 4096)
