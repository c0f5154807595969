"""CORE: turns what was tried into the layer report. Pure: observations and facts in, rows out.

A layer is *enforced* only where the forbidden act was tried and refused, and, where the act has a control, the
control shows that it was that layer which refused. Configuration alone never makes a row say *enforced*.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

from codingagents.supervisor.apparmor_profile import ASKED_FOR
from codingagents.supervisor.confine_spec import MASKED, WANTED_SECUREBITS, Observation
from codingagents.supervisor.mounts_seen import WANTED, Place
from codingagents.trust.events import Layer, LayerState
from codingagents.trust.vocabulary import LayerWish


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the supervisor knows besides the stub's observations."""

    trap_error: str = ""  # errno name, "disabled", or "" where the listener stands
    trap_saw_self_test: bool = False
    memory_access: str = "none"  # cap_sys_ptrace | fsuid | none
    wait_killable: bool = False
    synchronous: bool = False
    landlock_abi: int = 0
    trees: Sequence[str] = ()
    is_pid1: bool = False
    mount_namespace: str = ""  # "" where private and ours, else why not
    run_dirs: Sequence[Place] = ()  # the session's directories, as they were read back
    proc_hidden: str = ""  # why /proc could not be mounted or remounted with hidepid; "" where it was
    yama: str = ""  # kernel.yama.ptrace_scope, "" where the kernel has no Yama
    engine_seccomp: str = "0"  # `Seccomp` of /proc/self/status before ours
    apparmor: str = ""  # label, "" where the kernel has none
    root: bool = True  # root that may change its UID
    task_totals: str = ""  # what bounds all tasks together, or why it does not; "" where nothing is to
    task_totals_held: bool = True


@dataclass(frozen=True, slots=True)
class _Outcome:
    state: LayerState
    probe: str
    why: str = ""
    detail: Mapping[str, str] = field(default_factory=dict)
    remedy: str = ""  # where the kind's own would not help
    mechanism: str = ""  # likewise, of what tasks have
    consequence: str = ""


@dataclass(frozen=True, slots=True)
class _Kind:
    name: str
    mechanism: str
    consequence: str  # of the layer's absence
    remedy: str
    judge: Callable[[Sequence[Observation], Facts], _Outcome]


# What an engine has to be told where the session may not mount.
ENGINE_TMPFS: Final = tuple((wanted.path, wanted.engine_options) for wanted in WANTED)
_NEEDS_ROOT: Final = "needs root with the Linux capabilities SETUID and SETGID"


def _allowing(*calls: str) -> str:
    """Return the flag of an engine whose profile refuses what a layer is put on with."""
    return f"--security-opt seccomp=PROFILE that allows {', '.join(calls)}, as Docker's and podman's own profiles do"


_LANDLOCK_CALLS: Final = _allowing("landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self")


def _said(observations: Sequence[Observation]) -> str:
    acts = (
        f"{seen.act}: {seen.outcome}" + (f" (before: {seen.control})" if seen.control else "") for seen in observations
    )
    return "; ".join(acts) or "not tried"


def _all_refused(*errnos: str) -> Callable[[Sequence[Observation], Facts], _Outcome]:
    def judge(observations: Sequence[Observation], facts: Facts) -> _Outcome:
        if not observations:
            return _Outcome("unavailable", "not tried", "not applied" if facts.root else _NEEDS_ROOT)
        if not all(seen.outcome in errnos for seen in observations):
            return _Outcome("unavailable", _said(observations), "not refused")
        if any(seen.outcome == seen.control for seen in observations):
            return _Outcome("unavailable", _said(observations), "refused before too: it was not shown to be this layer")
        return _Outcome("enforced", _said(observations))

    return judge


def _capabilities(observations: Sequence[Observation], facts: Facts) -> _Outcome:
    values = {seen.act.rsplit(" ", 1)[-1]: seen.outcome for seen in observations}
    held_gone = all(int(values.get(held, "1"), 16) == 0 for held in ("CapEff", "CapPrm", "CapInh", "CapAmb"))
    bounding_gone = int(values.get("CapBnd", "1"), 16) == 0
    if held_gone and bounding_gone:
        return _Outcome("enforced", _said(observations))
    if held_gone:
        why = "needs CAP_SETPCAP; with no_new_privs the bounding set cannot be reached either"
        return _Outcome("partial", _said(observations), why if facts.root else _NEEDS_ROOT)
    return _Outcome("unavailable", _said(observations), "Linux capabilities remain")


def _no_new_privs(observations: Sequence[Observation], _facts: Facts) -> _Outcome:
    on = bool(observations) and all(seen.outcome == "1" for seen in observations)
    return _Outcome("enforced" if on else "unavailable", _said(observations), "" if on else "not set")


def _securebits(observations: Sequence[Observation], facts: Facts) -> _Outcome:
    """Judge the value read back: `WANTED_SECUREBITS` must all be there."""
    if not observations:
        return _Outcome("unavailable", "not tried", "not applied" if facts.root else _NEEDS_ROOT)
    value = observations[-1].outcome
    if value.startswith("0x") and int(value, 16) & WANTED_SECUREBITS == WANTED_SECUREBITS:
        return _Outcome("enforced", _said(observations))
    return _Outcome("unavailable", _said(observations), "needs CAP_SETPCAP; with no_new_privs nothing is lost by it")


def _by_us_or_the_engine(*errnos: str) -> Callable[[Sequence[Observation], Facts], _Outcome]:
    """Judge acts that the engine's profile may refuse before: refused is refused, and the detail says by whom."""

    def judge(observations: Sequence[Observation], _facts: Facts) -> _Outcome:
        if not observations:
            return _Outcome("unavailable", "not tried", "not applied")
        if not all(seen.outcome in errnos for seen in observations):
            return _Outcome("unavailable", _said(observations), "not refused")
        ours = any(seen.outcome != seen.control for seen in observations)
        return _Outcome("enforced", _said(observations), "", {"refused_by": "this layer" if ours else "the engine"})

    return judge


def _limits(observations: Sequence[Observation], facts: Facts) -> _Outcome:
    if not observations:
        return _Outcome("unavailable", "not tried", "no limit is set")
    refused = all(seen.outcome in ("EAGAIN", "EPERM", "ENOMEM", "EMFILE") for seen in observations)
    detail = {"together": facts.task_totals} if facts.task_totals else {}
    if not refused:
        return _Outcome("unavailable", _said(observations), "not refused", detail)
    if not facts.task_totals_held:
        why = f"the bounds of all tasks together do not hold: {facts.task_totals}"
        return _Outcome("partial", _said(observations), why, detail, "--cap-add SYS_ADMIN, or no totals in task_limits")
    return _Outcome("enforced", _said(observations), "", detail)


def _run_dirs(_observations: Sequence[Observation], facts: Facts) -> _Outcome:
    if not facts.run_dirs:
        return _Outcome("unavailable", "not tried", "there is no session whose directories could be looked at")
    probe = "/proc/self/mountinfo: " + "; ".join(
        f"{place.path} {place.kind}" + (f" ({', '.join(place.faults)})" if place.faults else "")
        for place in facts.run_dirs
    )
    plain = [place.path for place in facts.run_dirs if place.kind == "plain"]
    faulty = [place.path for place in facts.run_dirs if place.faults]
    if not plain and not faulty:
        return _Outcome("enforced", probe)
    why = f"plain directories: {', '.join(plain)}" if plain else f"mounted with other options: {', '.join(faulty)}"
    return _Outcome("partial", probe, why)


def _proc_hidden(observations: Sequence[Observation], facts: Facts) -> _Outcome:
    detail = {"yama_ptrace_scope": facts.yama or "none"}
    if observations and all(seen.outcome == "ENOENT" != seen.control for seen in observations):
        return _Outcome("enforced", _said(observations), "", detail)
    return _Outcome("unavailable", _said(observations), facts.proc_hidden or "not refused", detail)


def _landlock(observations: Sequence[Observation], facts: Facts) -> _Outcome:
    detail = {
        "abi": str(facts.landlock_abi),
        "fs": "execute",
        "net_tcp": "not restricted",
        "udp": "not restricted",
        "scope": "not restricted",
        "trees": " ".join(facts.trees),
    }
    if not observations:
        return _Outcome("unavailable", "not tried", "not applied", detail)
    seen = observations[-1]
    if seen.outcome == "EACCES" and seen.control == "ENOEXEC":
        return _Outcome("enforced", _said(observations), "", detail)
    if seen.outcome == "EACCES":
        return _Outcome("partial", _said(observations), "the probe's control did not show it to be Landlock", detail)
    if seen.outcome == "succeeded":
        why = "put on, but every writable place outside the trees is mounted noexec, so nothing could be tried"
        return _Outcome("partial", _said(observations), why, detail, "--tmpfs /tmp:exec")
    if seen.outcome == seen.control == "ENOEXEC":
        return _Outcome("unavailable", _said(observations), "put on, and nothing is refused", detail)
    if seen.outcome == "EPERM":  # which no kernel says after no_new_privs
        return _Outcome("unavailable", _said(observations), "the engine's profile refuses it", detail, _LANDLOCK_CALLS)
    why = "the kernel has no Landlock, or it is switched off"
    return _Outcome("unavailable", _said(observations), why, detail)


def _exec_trap(observations: Sequence[Observation], facts: Facts) -> _Outcome:
    detail = {
        "memory_access": facts.memory_access,
        "wait_killable": str(facts.wait_killable).lower(),
        "synchronous": str(facts.synchronous).lower(),
        "listener": facts.trap_error or "ours",
    }
    if facts.trap_error:
        busy = "EBUSY: another seccomp listener is in the filter chain (an engine profile with SCMP_ACT_NOTIFY)"
        why = busy if facts.trap_error == "EBUSY" else facts.trap_error
        return _Outcome("unavailable", f"seccomp(NEW_LISTENER): {facts.trap_error}", why, detail)
    refused = bool(observations) and all(seen.outcome == "EPERM" for seen in observations)
    if refused and facts.trap_saw_self_test:
        return _Outcome("enforced", _said(observations), "", detail)
    return _Outcome("unavailable", _said(observations), "the self-test was not refused", detail)


def _pid_namespace(observations: Sequence[Observation], facts: Facts) -> _Outcome:
    if observations:
        own = all(seen.outcome == "1" for seen in observations)
        mechanism = "PID namespace of the tasks"
        if own or not facts.is_pid1:
            why = "" if own else "the tasks have none of their own, and the supervisor is not PID 1"
            return _Outcome("enforced" if own else "unavailable", _said(observations), why, mechanism=mechanism)
    if facts.is_pid1:
        return _Outcome("enforced", "getpid() in the supervisor: 1")
    return _Outcome("unavailable", "getpid() in the supervisor: not 1", "the supervisor is not PID 1")


def _masks(observations: Sequence[Observation]) -> _Outcome:
    """Judge what a task saw at the session's directories: in their place, what nobody may look into."""
    masked = all(seen.outcome == MASKED != seen.control for seen in observations)
    return _Outcome(
        "enforced" if masked else "unavailable",
        _said(observations),
        "" if masked else "the tasks have no mount namespace of their own",
        mechanism="mount namespace of the tasks, empty tmpfs of mode 000 on the session's directories",
        consequence="what keeps tasks out of the session's directories are their owners and modes",
    )


def _mount_namespace(observations: Sequence[Observation], facts: Facts) -> _Outcome:
    if observations:
        return _masks(observations)
    if not facts.mount_namespace:
        return _Outcome("enforced", "unshare(CLONE_NEWNS), tmpfs mounted on the session's directories: ok")
    by_profile = facts.mount_namespace == "EACCES"  # a lacking Linux capability is EPERM
    return _Outcome(
        "unavailable",
        f"unshare(CLONE_NEWNS) and mount: {facts.mount_namespace}",
        f"{facts.mount_namespace}: " + ("a security module forbids it" if by_profile else "needs CAP_SYS_ADMIN"),
        remedy="--cap-add SYS_ADMIN --security-opt apparmor=PROFILE that allows mount" if by_profile else "",
    )


def _engine_seccomp(observations: Sequence[Observation], facts: Facts) -> _Outcome:
    """Judge what was tried before our own filters were on: nobody else's profile could have refused it then."""
    tried = "; ".join(f"{seen.act} before our filters: {seen.control}" for seen in observations)
    probe = f"/proc/self/status Seccomp of the supervisor: {facts.engine_seccomp}" + (f"; {tried}" if tried else "")
    if facts.engine_seccomp != "2":
        return _Outcome("unavailable", probe, "no engine put a profile on this session")
    if any(seen.control == "EPERM" for seen in observations):
        return _Outcome("enforced", probe)
    why = "a profile is on, and refuses none of this" if tried else "a profile is on, and nothing could be tried"
    return _Outcome("partial", probe, why)


def _apparmor(observations: Sequence[Observation], facts: Facts) -> _Outcome:
    if not facts.apparmor:
        return _Outcome("unavailable", "open /proc/self/attr/apparmor/current: ENOENT", "this kernel has no AppArmor")
    probe = f"/proc/self/attr/apparmor/current: {facts.apparmor}"
    if observations:
        probe += f"; {_said(observations)}"
        if observations[0].outcome == ASKED_FOR:
            return _Outcome("partial", probe, "asked for at the exec of each task, and not seen to hold")
    if facts.apparmor.startswith("unconfined"):
        return _Outcome("unavailable", probe, "no profile is on this session")
    return _Outcome("enforced", probe)


_KINDS: Final = (
    _Kind(
        "uid_drop",
        "setresuid(2) to a UID of the role's own",
        "the role could read what the supervisor and the helpers own",
        "run as root; --cap-add SETUID --cap-add SETGID, which Docker gives by default",
        _all_refused("EPERM", "EACCES", "none"),  # none: no groups of others
    ),
    _Kind(
        "caps_bounding",
        "prctl(2) PR_CAPBSET_DROP",
        "a Linux capability could be regained by a privileged file, if no_new_privs did not forbid it",
        "--cap-add SETPCAP",
        _capabilities,
    ),
    _Kind(
        "securebits",
        "prctl(2) PR_SET_SECUREBITS: no privileges by UID 0, none kept or raised; locked",
        "a process that became root again would have Linux capabilities, if no_new_privs did not forbid it",
        "--cap-add SETPCAP",
        _securebits,
    ),
    _Kind(
        "no_new_privs",
        "prctl(2) PR_SET_NO_NEW_PRIVS",
        "set-user-ID programs would raise privileges",
        "",
        _no_new_privs,
    ),
    _Kind(
        "seccomp_static",
        "seccomp filter on ptrace(2), process_vm_*(2), mounts, keys, bpf(2), perf events, TIOCSTI and the like",
        "more of the kernel can be reached, and processes of the same UID can trace each other",
        _allowing("seccomp"),
        _by_us_or_the_engine("EPERM"),
    ),
    _Kind(
        "userns",
        "seccomp filter on unshare(2), clone(2) and clone3(2) of a user namespace",
        "in a user namespace of its own a process has every Linux capability over what it makes there",
        _allowing("seccomp"),
        _by_us_or_the_engine("EPERM", "ENOSYS"),  # clone3 is "not there", so that the C library uses clone
    ),
    _Kind(
        "limits",
        "setrlimit(2)",
        "a role could fill the machine with processes",
        "set [session.limits]",
        _limits,
    ),
    _Kind(
        "landlock_exec",
        "Landlock EXECUTE on the allowed trees",
        "path denials are advisory only: the kernel reads the path again after the decision",
        f"a kernel with CONFIG_SECURITY_LANDLOCK and lsm=landlock,...; {_LANDLOCK_CALLS}",
        _landlock,
    ),
    _Kind(
        "memfd_rule",
        "seccomp filter on memfd_create(2) without MFD_NOEXEC_SEAL",
        "a program in memory could be executed past Landlock",
        _allowing("seccomp", "memfd_create"),
        _all_refused("EPERM"),
    ),
    _Kind(
        "exec_trap",
        "seccomp user notification on execve(2) and execveat(2)",
        "execs are neither recorded nor decided",
        "--security-opt seccomp=PROFILE that has no SCMP_ACT_NOTIFY rule and allows seccomp",
        _exec_trap,
    ),
    _Kind(
        "pidns",
        "PID namespace of the session",
        "what the agent started would outlive a supervisor that is killed",
        "start the supervisor as the container's entrypoint (PID 1): without --init, without --pid host",
        _pid_namespace,
    ),
    _Kind(
        "mountns",
        "private mount namespace with tmpfs on the session's directories",
        "the session's directories lie in the container's own file system and are removed one by one at the end",
        "--cap-add SYS_ADMIN",
        _mount_namespace,
    ),
    _Kind(
        "run_dirs",
        "tmpfs, nosuid, nodev and (but where programs lie) noexec, root's alone, on the session's directories",
        "what is put there lies in the container's own file system",
        "--cap-add SYS_ADMIN, or " + " ".join(f"--tmpfs {path}:{options}" for path, options in ENGINE_TMPFS),
        _run_dirs,
    ),
    _Kind(
        "proc_hidden",
        "/proc mounted with hidepid=invisible",
        "a role sees the command lines and states of all processes",
        "--cap-add SYS_ADMIN",
        _proc_hidden,
    ),
    _Kind(
        "engine_seccomp",
        "the container engine's seccomp profile",
        "system calls that the engine would refuse reach the kernel",
        "run in a container engine with its default profile: without --security-opt seccomp=..., without --privileged",
        _engine_seccomp,
    ),
    _Kind(
        "apparmor",
        "AppArmor profile",
        "no mandatory access control by path",
        "--security-opt apparmor=PROFILE on a kernel that has AppArmor",
        _apparmor,
    ),
)
LAYER_NAMES: Final = tuple(kind.name for kind in _KINDS)


# Acts of our own layers whose control tells of another: Docker's profile refuses both, podman's the second, and to no
# process does a kernel say EPERM. (ENOSYS may be the kernel's own, and a sysctl may forbid user namespaces.)
_ALSO_OF: Final = {("engine_seccomp", "keyctl"), ("engine_seccomp", "userfaultfd of nothing")}


def build_report(
    observations: Sequence[Observation], facts: Facts, wishes: Mapping[str, LayerWish] | None = None
) -> list[Layer]:
    """Return one row per layer, in a fixed order; a layer that was switched off by wish reads `disabled`."""
    rows = []
    for kind in _KINDS:
        wanted: LayerWish = (wishes or {}).get(kind.name, "prefer")
        own = [seen for seen in observations if seen.layer == kind.name or (kind.name, seen.act) in _ALSO_OF]
        outcome = (
            _Outcome("disabled", "not tried", "off by configuration") if wanted == "off" else kind.judge(own, facts)
        )
        missing = outcome.state in ("partial", "unavailable")
        rows.append(
            Layer(
                layer=kind.name,
                wanted=wanted,
                state=outcome.state,
                mechanism=outcome.mechanism or kind.mechanism,
                probe=outcome.probe,
                observed_by="observed",
                why=outcome.why,
                consequence=(outcome.consequence or kind.consequence) if missing or outcome.state == "disabled" else "",
                remedy=(outcome.remedy or kind.remedy) if missing else "",
                detail=dict(outcome.detail),
            )
        )
    return _with_what_verifies(rows)


def _with_what_verifies(rows: list[Layer]) -> list[Layer]:
    """Add to the trap's row whether the kernel refuses by itself what its denials refuse outside the trees."""
    states = {row.layer: row.state for row in rows}
    verified = states["landlock_exec"] == states["memfd_rule"] == "enforced"
    more = {"verified_by": "landlock" if verified else "none"}
    return [
        msgspec.structs.replace(row, detail={**row.detail, **more}) if row.layer == "exec_trap" else row for row in rows
    ]


def unmet_requirements(rows: Sequence[Layer]) -> list[Layer]:
    """Return the rows that were required and are not enforced: the session must not start with any."""
    return [row for row in rows if row.wanted == "require" and row.state != "enforced"]
