"""A layer is enforced only where an attempt was seen to fail, and to fail because of that layer."""

from collections.abc import Sequence

import pytest

from codingagents.supervisor.confine_spec import MASKED, Observation
from codingagents.supervisor.layers import LAYER_NAMES, Facts, build_report, unmet_requirements
from codingagents.supervisor.mounts_seen import Place
from codingagents.trust.events import Layer


def seen(layer: str, outcome: str, *, control: str = "", act: str = "act") -> Observation:
    return Observation(layer=layer, act=act, control=control, outcome=outcome)


def capabilities(bounding: str, held: str, *, inheritable: str = "0") -> list[Observation]:
    values = {"CapBnd": bounding, "CapEff": held, "CapPrm": held, "CapInh": inheritable, "CapAmb": "0"}
    return [seen("caps_bounding", value, act=f"/proc/self/status {name}") for name, value in values.items()]


def row(layer: str, observations: Sequence[Observation] = (), facts: Facts = Facts()) -> Layer:  # noqa: B008 -- frozen
    return next(row for row in build_report(observations, facts) if row.layer == layer)


TRAPPED = Facts(trap_saw_self_test=True)
ENGINES = Place(path="/run/b", kind="engine")
KEY = seen("seccomp_static", "EPERM", control="EPERM", act="keyctl")  # as Docker's default profile has it
FAULTS = seen("seccomp_static", "EPERM", control="EPERM", act="userfaultfd of nothing")  # and podman's
NO_FAULTS = seen("seccomp_static", "EPERM", control="ENOSYS", act="userfaultfd of nothing")  # a kernel without it
NAMESPACE = seen("userns", "EPERM", control="EPERM", act="unshare(CLONE_NEWUSER)")  # perhaps by sysctl
NONE, ALL = "0" * 16, "000001ffffffffff"

CASES: list[tuple[str, str, list[Observation], Facts, str]] = [
    ("uid_drop", "enforced", [seen("uid_drop", "EPERM"), seen("uid_drop", "EACCES", control="succeeded")], Facts(), ""),
    ("uid_drop", "unavailable", [seen("uid_drop", "EPERM"), seen("uid_drop", "succeeded")], Facts(), "not refused"),
    # The same refusal before the layer was on: it was not this layer.
    ("uid_drop", "unavailable", [seen("uid_drop", "EPERM", control="EPERM")], Facts(), "refused before"),
    ("uid_drop", "unavailable", [seen("uid_drop", "ENOSYS")], Facts(), "not refused"),
    ("uid_drop", "enforced", [seen("uid_drop", "none"), seen("uid_drop", "EPERM")], Facts(), ""),
    ("uid_drop", "unavailable", [seen("uid_drop", "0 27"), seen("uid_drop", "EPERM")], Facts(), "not refused"),
    ("uid_drop", "unavailable", [], Facts(), "not applied"),
    ("uid_drop", "unavailable", [], Facts(root=False), "needs root"),
    ("caps_bounding", "enforced", capabilities(NONE, NONE), Facts(), ""),
    ("caps_bounding", "partial", capabilities(ALL, NONE), Facts(), "CAP_SETPCAP"),
    ("caps_bounding", "partial", capabilities(ALL, NONE), Facts(root=False), "needs root"),
    ("caps_bounding", "unavailable", capabilities(NONE, ALL), Facts(), "remain"),
    ("caps_bounding", "unavailable", capabilities(ALL, ALL), Facts(), "remain"),
    ("caps_bounding", "unavailable", capabilities(NONE, NONE, inheritable=ALL), Facts(), "remain"),
    ("caps_bounding", "unavailable", capabilities(NONE, NONE)[:2], Facts(), "remain"),  # not all were looked at
    ("caps_bounding", "unavailable", [], Facts(), "remain"),
    ("securebits", "enforced", [seen("securebits", "0xeb")], Facts(), ""),
    ("securebits", "enforced", [seen("securebits", "0xff")], Facts(), ""),
    ("securebits", "unavailable", [seen("securebits", "0x2b")], Facts(), "CAP_SETPCAP"),
    ("securebits", "unavailable", [seen("securebits", "EPERM")], Facts(), "CAP_SETPCAP"),
    ("securebits", "unavailable", [], Facts(), "not applied"),
    ("securebits", "unavailable", [], Facts(root=False), "needs root"),
    ("seccomp_static", "enforced", [seen("seccomp_static", "EPERM", control="ENOTTY")], Facts(), ""),
    ("seccomp_static", "enforced", [seen("seccomp_static", "EPERM", control="EPERM")], Facts(), ""),
    ("seccomp_static", "unavailable", [seen("seccomp_static", "ENOTTY", control="ENOTTY")], Facts(), "not refused"),
    ("seccomp_static", "unavailable", [], Facts(), "not applied"),
    ("userns", "enforced", [seen("userns", "EPERM", control="succeeded")], Facts(), ""),
    ("userns", "unavailable", [seen("userns", "succeeded", control="succeeded")], Facts(), "not refused"),
    ("userns", "enforced", [seen("userns", "ENOSYS", control="EINVAL")], Facts(), ""),  # clone3
    ("userns", "unavailable", [], Facts(), "not applied"),
    ("limits", "enforced", [seen("limits", "EAGAIN"), seen("limits", "EPERM")], Facts(), ""),
    ("limits", "unavailable", [seen("limits", "succeeded")], Facts(), "not refused"),
    ("limits", "unavailable", [], Facts(), "no limit"),
    ("limits", "enforced", [seen("limits", "EAGAIN")], Facts(task_totals="pids 40"), ""),
    (
        *("limits", "partial", [seen("limits", "EAGAIN")]),
        Facts(task_totals="pids not delegated: EROFS", task_totals_held=False),
        "the bounds of all tasks together do not hold: pids not delegated: EROFS",
    ),
    ("no_new_privs", "enforced", [seen("no_new_privs", "1")], Facts(), ""),
    ("no_new_privs", "unavailable", [seen("no_new_privs", "0")], Facts(), "not set"),
    ("no_new_privs", "unavailable", [], Facts(), "not set"),
    ("landlock_exec", "enforced", [seen("landlock_exec", "EACCES", control="ENOEXEC")], Facts(), ""),
    # Empty programs do "succeed": nothing of no format could be had outside the trees.
    ("landlock_exec", "partial", [seen("landlock_exec", "succeeded")], Facts(), "noexec"),
    # Refused before too (a noexec mount, say): something forbids it, but it was not shown to be Landlock.
    ("landlock_exec", "partial", [seen("landlock_exec", "EACCES", control="EACCES")], Facts(), "control"),
    ("landlock_exec", "partial", [seen("landlock_exec", "EACCES")], Facts(), "control"),
    (
        "landlock_exec",
        "unavailable",
        [seen("landlock_exec", "ENOEXEC", control="ENOEXEC")],
        Facts(),
        "nothing is refused",
    ),
    ("landlock_exec", "unavailable", [seen("landlock_exec", "ENOSYS")], Facts(), "no Landlock"),
    ("landlock_exec", "unavailable", [seen("landlock_exec", "EPERM")], Facts(), "the engine's profile"),
    ("landlock_exec", "unavailable", [], Facts(), "not applied"),
    ("memfd_rule", "enforced", [seen("memfd_rule", "EPERM", control="succeeded")], Facts(), ""),
    ("memfd_rule", "unavailable", [seen("memfd_rule", "EPERM", control="EPERM")], Facts(), "refused before"),
    ("memfd_rule", "unavailable", [seen("memfd_rule", "EACCES", control="succeeded")], Facts(), "not refused"),
    ("memfd_rule", "unavailable", [seen("memfd_rule", "succeeded", control="succeeded")], Facts(), "not refused"),
    ("exec_trap", "enforced", [seen("exec_trap", "EPERM")], TRAPPED, ""),
    ("exec_trap", "unavailable", [seen("exec_trap", "EPERM")], Facts(), "not refused"),  # refused, but not by us
    ("exec_trap", "unavailable", [seen("exec_trap", "ENOSYS")], TRAPPED, "not refused"),
    ("exec_trap", "unavailable", [], TRAPPED, "not refused"),
    ("exec_trap", "unavailable", [], Facts(trap_error="EBUSY"), "EBUSY: another seccomp listener"),
    ("exec_trap", "unavailable", [seen("exec_trap", "EPERM")], Facts(trap_error="EINVAL"), "EINVAL"),
    ("pidns", "enforced", [], Facts(is_pid1=True), ""),
    ("pidns", "unavailable", [], Facts(), "not PID 1"),
    # What a task saw goes before what the session has.
    ("pidns", "enforced", [seen("pidns", "1")], Facts(), ""),
    ("pidns", "unavailable", [seen("pidns", "EPERM")], Facts(), "none of their own"),
    ("pidns", "enforced", [seen("pidns", "EPERM")], Facts(is_pid1=True), ""),
    ("mountns", "enforced", [seen("mountns", MASKED, control="0755, listing it: succeeded")], Facts(), ""),
    ("mountns", "unavailable", [seen("mountns", MASKED, control=MASKED)], Facts(), "no mount namespace"),
    ("mountns", "unavailable", [seen("mountns", "EPERM")], Facts(), "the tasks have no mount namespace"),
    ("mountns", "enforced", [], Facts(), ""),
    ("mountns", "unavailable", [], Facts(mount_namespace="EPERM"), "CAP_SYS_ADMIN"),
    ("mountns", "unavailable", [], Facts(mount_namespace="EACCES"), "security module"),
    ("run_dirs", "enforced", [], Facts(run_dirs=[Place(path="/run/a", kind="ours"), ENGINES]), ""),
    (
        "run_dirs",
        "partial",
        [],
        Facts(run_dirs=[ENGINES, Place(path="/run/a", kind="plain")]),
        "plain directories: /run/a",
    ),
    (
        "run_dirs",
        "partial",
        [],
        Facts(run_dirs=[Place(path="/run/c", kind="engine", faults=("not noexec",))]),
        "/run/c",
    ),
    ("run_dirs", "unavailable", [], Facts(), "no session"),
    ("proc_hidden", "enforced", [seen("proc_hidden", "ENOENT", control="succeeded")], Facts(), ""),
    ("proc_hidden", "unavailable", [seen("proc_hidden", "ENOENT", control="ENOENT")], Facts(), "not refused"),
    ("proc_hidden", "unavailable", [seen("proc_hidden", "succeeded")], Facts(proc_hidden="EPERM"), "EPERM"),
    ("proc_hidden", "unavailable", [], Facts(), "not refused"),
    ("engine_seccomp", "enforced", [KEY, NO_FAULTS], Facts(engine_seccomp="2"), ""),
    ("engine_seccomp", "enforced", [FAULTS], Facts(engine_seccomp="2"), ""),
    ("engine_seccomp", "partial", [NO_FAULTS], Facts(engine_seccomp="2"), "refuses none"),
    ("engine_seccomp", "partial", [NAMESPACE], Facts(engine_seccomp="2"), "nothing could be tried"),
    ("engine_seccomp", "partial", [], Facts(engine_seccomp="2"), "nothing could be tried"),
    ("engine_seccomp", "unavailable", [KEY], Facts(engine_seccomp="0"), "no engine"),
    ("apparmor", "enforced", [], Facts(apparmor="docker-default (enforce)"), ""),
    ("apparmor", "unavailable", [], Facts(apparmor="unconfined"), "no profile"),
    ("apparmor", "unavailable", [], Facts(), "no AppArmor"),
    ("apparmor", "unavailable", [seen("apparmor", "this kernel has no AppArmor")], Facts(), "no AppArmor"),
    ("apparmor", "unavailable", [seen("apparmor", "not loaded")], Facts(apparmor="unconfined"), "no profile"),
    ("apparmor", "enforced", [seen("apparmor", "docker-default is on")], Facts(apparmor="docker-default"), ""),
    ("apparmor", "partial", [seen("apparmor", "asked for")], Facts(apparmor="unconfined"), "not seen to hold"),
]


@pytest.mark.parametrize(("layer", "state", "observations", "facts", "why"), CASES)
def test_what_was_tried_decides_the_state(
    layer: str, state: str, observations: list[Observation], facts: Facts, why: str
) -> None:
    found = row(layer, observations, facts)
    assert found.state == state
    assert why in found.why
    assert bool(found.why) is (state != "enforced")


@pytest.mark.parametrize(("layer", "state", "observations", "facts", "why"), CASES)
def test_a_row_says_what_follows_and_what_would_change_it(
    layer: str, state: str, observations: list[Observation], facts: Facts, why: str
) -> None:
    found = row(layer, observations, facts)
    assert found.probe
    assert found.observed_by == "observed"
    assert bool(found.consequence) is (state != "enforced")
    assert bool(found.remedy) is (state != "enforced" and layer != "no_new_privs")  # nothing could keep that off


def test_every_layer_is_listed_once_in_one_order() -> None:
    assert [row.layer for row in build_report([], Facts())] == list(LAYER_NAMES)
    assert len(set(LAYER_NAMES)) == len(LAYER_NAMES) == len({layer for layer, *_ in CASES})


def test_the_report_shows_what_was_seen_and_what_was_seen_before() -> None:
    found = row("memfd_rule", [seen("memfd_rule", "EPERM", control="succeeded", act="memfd_create(flags=0)")])
    assert found.probe == "memfd_create(flags=0): EPERM (before: succeeded)"


def test_the_trap_and_landlock_have_their_details() -> None:
    facts = Facts(
        trap_saw_self_test=True,
        memory_access="fsuid",
        wait_killable=True,
        landlock_abi=7,
        trees=["/usr", "/opt"],
    )
    assert row("exec_trap", [seen("exec_trap", "EPERM")], facts).detail == {
        "memory_access": "fsuid",
        "wait_killable": "true",
        "synchronous": "false",
        "listener": "ours",
        "verified_by": "none",
    }
    assert row("exec_trap", [], Facts(trap_error="EBUSY")).detail["listener"] == "EBUSY"
    assert row("landlock_exec", [], facts).detail == {
        "abi": "7",
        "fs": "execute",
        "net_tcp": "not restricted",
        "udp": "not restricted",
        "scope": "not restricted",
        "trees": "/usr /opt",
    }


def test_the_trap_is_verified_only_where_landlock_and_the_memfd_rule_both_hold() -> None:
    both = [
        seen("landlock_exec", "EACCES", control="ENOEXEC"),
        seen("memfd_rule", "EPERM", control="succeeded"),
    ]
    assert row("exec_trap", both).detail["verified_by"] == "landlock"
    for alone in both:
        assert row("exec_trap", [alone]).detail["verified_by"] == "none"


@pytest.mark.parametrize("layer", LAYER_NAMES)
def test_a_layer_that_is_off_reads_disabled_whatever_was_seen(layer: str) -> None:
    observations = [case[2][0] for case in CASES if case[0] == layer and case[1] == "enforced" and case[2]]
    rows = build_report(observations, TRAPPED, {layer: "off"})
    found = next(row for row in rows if row.layer == layer)
    assert (found.wanted, found.state, found.probe, found.why) == (
        "off",
        "disabled",
        "not tried",
        "off by configuration",
    )
    assert found.consequence
    assert not found.remedy
    assert all(row.wanted == "prefer" for row in rows if row.layer != layer)


def test_only_what_was_required_and_is_not_enforced_stops_a_session() -> None:
    observations = [seen("no_new_privs", "1"), *capabilities(ALL, NONE)]
    wishes = {"no_new_privs": "require", "caps_bounding": "require", "pidns": "require", "apparmor": "prefer"}
    rows = build_report(observations, Facts(), wishes)  # type: ignore[arg-type]  # all of them are wishes
    assert [row.layer for row in unmet_requirements(rows)] == ["caps_bounding", "pidns"]
    assert [row.wanted for row in rows if row.layer in wishes] == ["require", "require", "require", "prefer"]
    assert unmet_requirements(build_report(observations, Facts())) == []
