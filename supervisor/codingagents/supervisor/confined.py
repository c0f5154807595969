"""SHELL: starts a role behind its confine stub, with its exec trap, and reports what the stub tried.

The other end of `confine.py`, and of `task_parent.py`, which is driven like a stub but does not become a role: it makes
the role's processes. Both are spawned by `early.py` and wait for their specification.
"""

from __future__ import annotations

import array
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import trio

from codingagents.rewrite.specs import ExecSpec
from codingagents.supervisor import kernel, proc_walk
from codingagents.supervisor.confine_spec import AnyStubMessage, ConfineSpec, ExecFailed, Go, Observed, Trapped
from codingagents.supervisor.early import StubProcess, TaskParentProcess
from codingagents.supervisor.exec_policy import ExecPolicy
from codingagents.supervisor.exec_routes import Routes
from codingagents.supervisor.explain import HeldPolicy
from codingagents.supervisor.layers import Facts, build_report
from codingagents.supervisor.programs import local_mounts
from codingagents.supervisor.scripts import Scripts
from codingagents.supervisor.task_spec import SandboxMade, SandboxSpec
from codingagents.supervisor.tracee import TraceeReader
from codingagents.supervisor.tracee_paths import FileTree, proc_mounts
from codingagents.supervisor.trap import ExecTrap, Recorder, TrapContext
from codingagents.trust import wire
from codingagents.trust.errors import ProcessError
from codingagents.trust.events import ExecPolicyLoaded, Layer, LayerState
from codingagents.trust.landlock import abi_version
from codingagents.trust.scrub import Scrubber
from codingagents.trust.vocabulary import LayerWish, Role

_STUB_SECONDS: Final = 20.0
# What keeps a role from chroot(2), setns(2), unshare(2), mounts and user namespaces, for good.
_KEEPS_IN_OUR_TREE: Final = ("uid_drop", "no_new_privs", "seccomp_static", "userns")


class _StubEndedError(ProcessError):
    """EOF on the stub's channel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrapSettings:
    """What the trap of a role needs besides the role's identity."""

    exec_spec: ExecSpec
    log: Recorder
    scrubber: Scrubber
    on_trouble: Callable[[str], None]
    routes: Routes | None = None  # of the agent, where what it starts goes to the task runner


class ConfinedRole:
    """Drives one stub from its specification to its exec."""

    def __init__(self, stub: StubProcess | TaskParentProcess, role: Role, settings: TrapSettings) -> None:
        """Own the stub's channel."""
        self._stub = stub
        self._role = role
        self._settings = settings
        stub.channel.setblocking(False)
        self._channel = trio.socket.from_stdlib_socket(stub.channel)
        self._buffer = wire.LineBuffer()
        self._lines: list[bytes] = []
        self._descriptors: list[int] = []
        self.trap: ExecTrap | None = None
        self.held: HeldPolicy | None = None  # once the layers were tried
        self.mounted: list[str] = []  # those of the specification's shims that lie where they are to

    async def confine(
        self, spec: ConfineSpec | SandboxSpec, facts: Facts, wishes: Mapping[str, LayerWish] | None = None
    ) -> list[Layer]:
        """Put every layer on and return the report; `ProcessError` where the stub failed before.

        A `SandboxSpec` is for a `TaskParentProcess`.
        """
        await self._send(wire.encode(spec))
        apart: int | None = None
        if isinstance(spec, SandboxSpec):
            apart = await self._know_sandbox()
            spec = spec.confine
        trapped = await self._receive()
        if isinstance(trapped, ExecFailed):
            raise ProcessError(f"the {self._role} could not be confined: {trapped.step} failed with {trapped.errno}")
        if not isinstance(trapped, Trapped):
            raise ProcessError(f"the {self._role}'s stub spoke out of turn")
        if trapped.mounted is not None:
            apart = self._stub.child.pid
        self.mounted = trapped.mounted or []
        reader, memory_access = self._reader(spec, apart)
        facts = replace(
            facts, trap_error=trapped.error, wait_killable=trapped.wait_killable, memory_access=memory_access
        )
        context = self._context(spec, reader, held=spec.execute_trees, probe_nonce=spec.probe_nonce)
        if not trapped.error:
            if len(self._descriptors) != 1:
                raise ProcessError(f"the {self._role}'s stub handed over no trap")
            self.trap = ExecTrap(self._descriptors.pop(), context, on_trouble=self._settings.on_trouble)
            self.trap.start()
        observed = await self._receive()
        if not isinstance(observed, Observed):
            step = observed.step if isinstance(observed, ExecFailed) else "the order of messages"
            raise ProcessError(f"the {self._role} could not be confined: {step} failed")
        facts = replace(
            facts,
            trap_saw_self_test=self.trap is not None and self.trap.self_test_seen.is_set(),
            synchronous=self.trap is not None and self.trap.synchronous,
            landlock_abi=abi_version(),
            trees=observed.trees,
        )
        rows = build_report(observed.observations, facts, wishes)
        states = {row.layer: row.state for row in rows}
        self.held = HeldPolicy(
            role=self._role.value,
            uid=spec.uid,
            gid=spec.gid,
            groups=list(spec.groups),
            trees=list(observed.trees),
            landlock=states["landlock_exec"] == "enforced",
            memfd_closed=states["memfd_rule"] == "enforced",
            trapped=states["exec_trap"] == "enforced",
            routes=self._routes,
        )
        if self.trap is not None:
            # Firmness is known only now: it depends on what was seen to hold.
            context = self._context(
                spec,
                replace(reader, tree=None) if _stays_in_our_tree(states) else reader,
                held=observed.trees,
                landlock_on=self.held.landlock,
                memfd_closed=self.held.memfd_closed,
            )
            self.trap.adopt(context)
            self._settings.log.append(
                ExecPolicyLoaded(
                    role=self._role.value,
                    mode=self._settings.exec_spec.mode,
                    trees=self.held.trees if self.held.landlock else [],
                    rules=context.policy.marks(),
                )
            )
        return rows

    async def go(self) -> ExecFailed | None:
        """Let the program run; return None once it does, or why it cannot."""
        await self._send(wire.encode(Go()))
        try:
            answer = await self._receive()
        except _StubEndedError:
            return None  # the descriptor closed at exec; if the stub died instead, its exit says so
        if isinstance(answer, ExecFailed):
            return answer
        raise ProcessError(f"the {self._role}'s stub spoke out of turn")

    async def let_go(self) -> trio.socket.SocketType:
        """Let a task parent make tasks, and return its channel: to be used, and still closed by `close`."""
        await self._send(wire.encode(Go()))
        return self._channel

    def close(self) -> None:
        """Close the channel; a stub that still waits ends, and so does a task parent with all tasks."""
        self._channel.close()

    async def _know_sandbox(self) -> int | None:
        """Return the PID of a process in the mounts of the tasks; None where these are ours."""
        made = await self._receive()
        if not isinstance(made, SandboxMade) or len(self._descriptors) != 1:
            raise ProcessError(f"the sandbox of the {self._role} could not be made")
        assert isinstance(self._stub, TaskParentProcess)
        pidfd = self._descriptors.pop()
        pid = proc_walk.pid_of(pidfd)
        self._stub.moved_to(pid, pidfd)
        return None if made.why else pid

    def _reader(self, spec: ConfineSpec, apart: int | None) -> tuple[TraceeReader, str]:
        if spec.uid is None:
            fs_ids, access = None, "same-uid"
        elif kernel.has_capability(kernel.CAP_SYS_PTRACE):
            fs_ids, access = None, "cap_sys_ptrace"
        else:
            fs_ids, access = (spec.uid, spec.gid), "fsuid"
        groups, procs = tuple(spec.groups), proc_mounts(apart)
        file_ids = None if spec.uid is None or fs_ids is not None else (spec.uid, spec.gid)
        reader = TraceeReader(
            fs_ids=fs_ids,
            groups=groups,
            tree=FileTree.of_us() if apart is None else FileTree.copied_by(apart),
            procs=procs,
            apart=apart is not None,
            environments=self._settings.routes is not None,
            scripts=Scripts(
                file_ids=file_ids, groups=groups, procs=procs, apart=apart is not None, mounts=local_mounts(apart)
            ),
        )
        return reader, access

    def _context(
        self,
        spec: ConfineSpec,
        reader: TraceeReader,
        *,
        held: Sequence[str],
        landlock_on: bool = False,
        memfd_closed: bool = False,
        probe_nonce: str = "",
    ) -> TrapContext:
        settings = self._settings
        return TrapContext(
            role=self._role,
            uid=-1 if spec.uid is None else spec.uid,
            reader=reader,
            policy=ExecPolicy.compile(
                settings.exec_spec, held, landlock=landlock_on, memfd_closed=memfd_closed, routes=self._routes
            ),
            log=settings.log,
            scrubber=settings.scrubber,
            digest_bytes=settings.exec_spec.digest_bytes,
            probe_nonce=probe_nonce,
            landlock=landlock_on,
        )

    @property
    def _routes(self) -> Routes | None:
        routes = self._settings.routes
        return None if routes is None else routes.with_mounted(self.mounted)

    async def _send(self, line: bytes) -> None:
        view = memoryview(line)
        try:
            while view:
                view = view[await self._channel.send(view) :]
        except OSError as error:
            raise ProcessError(f"the {self._role}'s stub is gone: {error.strerror}") from None

    async def _receive(self) -> AnyStubMessage | SandboxMade:
        with trio.move_on_after(_STUB_SECONDS):
            while not self._lines:
                try:
                    data, ancillary, _, _ = await self._channel.recvmsg(
                        65536, socket.CMSG_SPACE(4), socket.MSG_CMSG_CLOEXEC
                    )
                except OSError:  # ECONNRESET: it died with something of ours unread
                    data, ancillary = b"", []
                for _, _, payload in ancillary:
                    received = array.array("i")
                    received.frombytes(payload)
                    self._descriptors.extend(received)
                if not data:
                    raise _StubEndedError(f"the {self._role}'s stub ended without a word")
                self._lines += self._buffer.feed(data)
            return _decode(self._lines.pop(0))
        raise ProcessError(f"the {self._role}'s stub did not answer within {_STUB_SECONDS:.0f} s")


def _decode(line: bytes) -> AnyStubMessage | SandboxMade:
    message: AnyStubMessage | SandboxMade = wire.decode(AnyStubMessage | SandboxMade, line)
    return message


def _stays_in_our_tree(states: Mapping[str, LayerState]) -> bool:
    """Say whether the role cannot have a root directory or mounts of its own: no Linux capability, nor a way to one."""
    capless = states["caps_bounding"] in ("enforced", "partial")  # partial: the bounding set alone remains
    return capless and all(states[layer] == "enforced" for layer in _KEEPS_IN_OUR_TREE)
