from __future__ import annotations

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from codingagents.trust.merkle import MerkleTree


def by_definition(leaves: list[bytes]) -> bytes:
    """RFC 6962 section 2.1, word for word."""
    if not leaves:
        return hashlib.sha256().digest()
    if len(leaves) == 1:
        return hashlib.sha256(b"\0" + leaves[0]).digest()
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return hashlib.sha256(b"\1" + by_definition(leaves[:split]) + by_definition(leaves[split:])).digest()


@given(st.lists(st.binary(max_size=4), max_size=70))
def test_the_incremental_root_is_the_one_of_the_definition(leaves: list[bytes]) -> None:
    tree = MerkleTree()
    for leaf in leaves:
        tree.append(leaf)
    assert tree.root() == by_definition(leaves)
