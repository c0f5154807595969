"""SHELL: the targets that run, and on which CPU they and their clients are.

`busy` has what is measured; `other` has what only looks on, or what a proxy serves when it has a CPU of its own. On a
machine with one CPU both are the same.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass

from bench import targets
from bench.processes import pin
from bench.targets import Target
from bench.upstream import Upstream


@dataclass(frozen=True, slots=True)
class Layout:
    """See the module."""

    upstream: Upstream
    targets: dict[str, Target]
    busy: int
    other: int

    def all_on_one(self) -> None:
        """Put proxies and upstream on `busy`, where the client goes too, and this process on `other`."""
        self._place(self.busy, self.busy)
        os.sched_setaffinity(0, {self.other})

    def proxies_alone(self) -> None:
        """Put the proxies on `busy`, the upstream and this process, which is the client, on `other`."""
        self._place(self.busy, self.other)
        os.sched_setaffinity(0, {self.other})

    def _place(self, proxies: int, upstream: int) -> None:
        for target in self.targets.values():
            if target.pid:
                pin(target.pid, proxies)
        pin(self.upstream.pid, upstream)


@contextlib.contextmanager
def layout(upstream: Upstream, names: tuple[str, ...]) -> Iterator[Layout]:
    """Run the targets `names` in the block; all of them where there are none."""
    cpus = sorted(os.sched_getaffinity(0))
    busy, other = cpus[0], cpus[-1]
    os.sched_setaffinity(0, {other})
    try:
        with contextlib.ExitStack() as stack:
            started = {
                name: stack.enter_context(start(upstream))
                for name, start in targets.ALL.items()
                if name in names or not names
            }
            yield Layout(upstream, started, busy, other)
    finally:
        os.sched_setaffinity(0, set(cpus))
