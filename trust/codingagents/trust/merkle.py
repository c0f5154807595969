"""CORE: the RFC 6962 Merkle tree root of a growing list, in memory that grows with its logarithm.

Only roots: no inclusion or consistency proofs, for a reader of the whole log needs neither. No I/O.
"""

from __future__ import annotations

import hashlib


class MerkleTree:
    """A compact range: the roots of the perfect subtrees that make up the leaves so far, largest first."""

    __slots__ = ("_peaks", "size")

    def __init__(self) -> None:
        """Start with no leaves."""
        self.size = 0
        self._peaks: list[bytes] = []

    def append(self, leaf: bytes) -> None:
        """Add a leaf's bytes."""
        node = hashlib.sha256(b"\0" + leaf).digest()
        size = self.size
        # A trailing one bit of the size is a perfect subtree as large as the one in hand.
        while size & 1:
            node = _parent(self._peaks.pop(), node)
            size >>= 1
        self._peaks.append(node)
        self.size += 1

    def root(self) -> bytes:
        """Return the 32-byte tree hash (RFC 6962 section 2.1); of no leaves, the hash of nothing."""
        if not self._peaks:
            return hashlib.sha256().digest()
        root = self._peaks[-1]
        for peak in reversed(self._peaks[:-1]):
            root = _parent(peak, root)
        return root


def _parent(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\1" + left + right).digest()
