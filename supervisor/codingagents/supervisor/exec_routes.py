"""CORE: which execs remain the agent's own where what it starts is routed to the task runner. Values, and their text.

`routing` makes them of a client's table, `exec_policy` decides by them, `explain` is told them. No I/O here.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from codingagents.trust.wire import Message


class OwnProgram(Message, frozen=True, kw_only=True):
    """A program that the agent may execute itself."""

    path: str  # a glob as those of `[exec]` rules, matched against where a path leads
    why: str  # one clause, for records
    argv: list[str] = msgspec.field(default_factory=list)  # what its command line must begin with


class Routes(Message, frozen=True, kw_only=True):
    """All that the agent may execute itself; the rest is unrouted."""

    client: str  # "" for a program that we do not know
    own: list[OwnProgram]
    interpreters: list[str]  # links resolved: run for those of `own` that are scripts, and not by themselves
    files: list[str] = msgspec.field(default_factory=list)  # such of Landlock's trees as are files
    # Shells of the system that the agent sees a task shell in the place of, links resolved: to Landlock they are those.
    mounted: list[str] = msgspec.field(default_factory=list)

    def with_mounted(self, shells: Sequence[str]) -> Routes:
        """Return the same where task shells lie over the `shells` of the system."""
        own = [OwnProgram(path=path, why=f"a task shell lies over {path}") for path in shells]
        return msgspec.structs.replace(self, own=[*self.own, *own], mounted=[*self.mounted, *shells])

    def rule(self, program: OwnProgram) -> str:
        """Return how it reads in records that `program` was let through."""
        return f"client {self.client or 'of any name'}: {program.why}"
