"""CORE: a dictionary that forgets its oldest entry for a new one, so that what others choose cannot fill memory."""

from __future__ import annotations

from typing import TypeVar

_K = TypeVar("_K")
_V = TypeVar("_V")


class BoundedCache(dict[_K, _V]):
    """At most `limit` entries, by assignment only. One writer; others may read meanwhile."""

    def __init__(self, limit: int) -> None:
        """Start empty."""
        super().__init__()
        self._limit = limit

    def __setitem__(self, key: _K, value: _V) -> None:
        """Keep `value`, and make room for it."""
        if key not in self and len(self) >= self._limit:
            del self[next(iter(self))]
        super().__setitem__(key, value)
