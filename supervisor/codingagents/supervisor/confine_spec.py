"""CORE: what the supervisor and a confine stub say to each other, in order, over one stream socket.

supervisor: `ConfineSpec` · stub: `Trapped` (+ listener fd) · stub: `Observed` · supervisor: `Go` · stub: exec, or
`ExecFailed`. EOF on either side means die. No I/O here.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from codingagents.rewrite.specs import RoleLimits
from codingagents.trust.vocabulary import Role
from codingagents.trust.wire import Message

# argv[0] of the exec that the stub attempts to see the trap refuse it. The supervisor adds a nonce.
PROBE_ARGV0 = "coding-agents-self-test-"
# What is seen of a directory that is masked: its mode, and what listing it comes to.
MASKED = "0000, listing it: EACCES"
# SECBIT_NOROOT, _NO_SETUID_FIXUP_LOCKED, _KEEP_CAPS_LOCKED, _NO_CAP_AMBIENT_RAISE, each with its lock: capabilities(7).
WANTED_SECUREBITS = 0b1110_1011


class ConfineSpec(Message, frozen=True, kw_only=True):
    """How to confine, and what to run; `argv` is empty for a stub that only reports (doctor)."""

    argv: list[str]
    environment: dict[str, str]
    role: str = Role.AGENT.value
    limits: RoleLimits = RoleLimits()
    working_directory: str
    uid: int | None  # None: keep the caller's (an ordinary user)
    gid: int
    groups: list[int]
    umask: int
    execute_trees: list[str]
    probe_file: str | None  # an executable file of no format outside the trees, for the Landlock probe
    probe_nonce: str
    death_signal: bool  # die with the supervisor (where it is not PID 1)
    # Shells of the system, links resolved, and which file is to lie over each in a mount namespace of the role's own.
    shims: dict[str, str] = msgspec.field(default_factory=dict)
    layers_off: list[str] = msgspec.field(default_factory=list)  # controls of attack tests, and `layers = off`


class Observation(Message, frozen=True, kw_only=True):
    """One forbidden act as it went, in the very process that becomes the role.

    `control` is the outcome of the same act before the layer was put on, "" where there is none.
    """

    layer: str
    act: str
    control: str
    outcome: str


class Trapped(Message, frozen=True, kw_only=True, tag_field="stub", tag="trapped"):
    """The filter stands; the listener comes along as SCM_RIGHTS unless `error` says why there is none."""

    error: str = ""  # errno name
    mounted: list[str] | None = None  # of `ConfineSpec.shims`; None: the role has no mount namespace of its own
    wait_killable: bool = False


class Observed(Message, frozen=True, kw_only=True, tag_field="stub", tag="observed"):
    """All layers are on and were tried."""

    observations: list[Observation]
    trees: list[str]


class ExecFailed(Message, frozen=True, kw_only=True, tag_field="stub", tag="exec-failed"):
    """The program could not be run, or a step before it failed; the stub exits with `code` (125, 126 or 127)."""

    step: str
    errno: str
    code: int


class Go(Message, frozen=True, kw_only=True):
    """Run the program now."""

    version: Literal[1] = 1


AnyStubMessage = Trapped | Observed | ExecFailed
