"""What `coding-agents doctor` says is what was tried: as root, as an ordinary user, and where a layer cannot be had."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from codingagents.supervisor.layers import LAYER_NAMES

DOCTOR = (sys.executable, "-I", "-m", "codingagents.supervisor", "doctor")
EXPECTED = ("uid_drop", "no_new_privs", "landlock_exec", "memfd_rule", "exec_trap")
ROLES = ["agent", "task", "command-server"]
USER = 58031  # of no account
AS_USER = ("setpriv", "--reuid", str(USER), "--regid", str(USER), "--clear-groups")

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="changing identity or capabilities needs root")
readable_by_all = pytest.mark.skipif(
    not all(directory.stat().st_mode & 0o5 == 0o5 for directory in Path(__file__).resolve().parents),
    reason="an ordinary user cannot read this checkout",
)

# Occupies the one listener that a filter chain can have, as an engine profile with SCMP_ACT_NOTIFY does.
OCCUPIED = """
import subprocess, sys
from codingagents.supervisor import seccomp
from codingagents.trust import linux
from codingagents.trust.bpf import ALLOW, USER_NOTIF, assemble, give, on_call, prologue
linux.set_no_new_privs()
program = assemble(prologue(linux.machine().audit_arch, None), on_call(9998, give(USER_NOTIF)), give(ALLOW))
listener, _ = seccomp.install(program)
sys.exit(subprocess.run(sys.argv[1:]).returncode)
"""


# A kernel that pretends: landlock_restrict_self(2) returns 0 and restricts nothing.
PRETENDING = """
import subprocess, sys
from codingagents.supervisor import seccomp
from codingagents.trust import linux
from codingagents.trust.bpf import ALLOW, assemble, errno_action, give, on_call, prologue
linux.set_no_new_privs()
numbers = linux.machine()
call = numbers.number("landlock_restrict_self")
seccomp.install(assemble(prologue(numbers.audit_arch, None), on_call(call, give(errno_action(0))), give(ALLOW)),
    listener=False)
sys.exit(subprocess.run(sys.argv[1:]).returncode)
"""


def doctor(*options: str, prefix: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*prefix, *DOCTOR, *options], capture_output=True, text=True, check=False, timeout=60)


def layers(*options: str, prefix: tuple[str, ...] = ()) -> dict[str, dict[str, Any]]:
    done = doctor("--json", *options, prefix=prefix)
    assert done.returncode == 0
    assert done.stderr == ""
    report = json.loads(done.stdout)
    assert report["schema"] == "coding-agents/layers/v1"
    return {layer["layer"]: layer for layer in report["layers"]}


def without(*capabilities: str) -> tuple[str, ...]:
    dropped = ",".join(f"-{name}" for name in capabilities)
    return ("setpriv", "--bounding-set", dropped, "--inh-caps", dropped)


@needs_root
def test_as_root_what_every_session_counts_on_is_enforced_and_shown_with_its_attempt() -> None:
    rows = layers()
    assert list(rows) == list(LAYER_NAMES)
    assert {name: rows[name]["state"] for name in EXPECTED} == dict.fromkeys(EXPECTED, "enforced")
    probes = {name: rows[name]["probe"] for name in EXPECTED}
    assert probes == {
        "uid_drop": "groups of others: none; setresuid(0, 0, 0): EPERM; kill(supervisor, 0): EPERM (before: succeeded)",
        "no_new_privs": "/proc/self/status NoNewPrivs: 1",
        "landlock_exec": "execve of a file outside the trees: EACCES (before: ENOEXEC)",
        "memfd_rule": "memfd_create(flags=0): EPERM (before: succeeded)",
        "exec_trap": "execve of /bin/true that the trap denies: EPERM",
    }
    assert rows["exec_trap"]["detail"]["memory_access"] == "cap_sys_ptrace"
    assert int(rows["landlock_exec"]["detail"]["abi"]) >= 1


@needs_root
def test_the_report_has_every_field_of_every_layer() -> None:
    for row in layers().values():
        assert list(row) == [
            *("layer", "wanted", "state", "mechanism", "probe", "observed_by"),
            *("why", "consequence", "remedy", "detail"),
        ]
        assert row["state"] in ("enforced", "partial", "unavailable")
        assert row["wanted"] == "prefer"
        assert row["mechanism"]
        assert row["probe"]
        assert bool(row["why"]) is bool(row["consequence"]) is (row["state"] != "enforced")


@needs_root
def test_in_a_pipe_it_is_plain_text_and_on_a_terminal_it_has_colours() -> None:
    plain = doctor().stdout
    assert "\x1b" not in plain
    assert re.search(r"^exec_trap +enforced +execve of /bin/true", plain, re.MULTILINE)
    shown = on_a_terminal()
    assert "\x1b[" in shown
    assert "exec_trap" in shown


def on_a_terminal() -> str:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(DOCTOR, stdin=theirs, stdout=theirs, stderr=theirs, env={"TERM": "xterm-256color"})
    os.close(theirs)
    shown = bytearray()
    try:
        while data := os.read(ours, 65536):
            shown += data
    except OSError:  # EIO: the last end of the terminal closed
        pass
    os.close(ours)
    assert process.wait(30) == 0
    return shown.decode()


@needs_root
def test_verify_passes_where_all_of_them_hold() -> None:
    done = doctor("--verify")
    assert (done.returncode, done.stderr) == (0, "")


@needs_root
def test_verify_tries_each_role_by_itself() -> None:
    """Each has a UID, a stub and a trap of its own, and the report says what was refused to each."""
    report = json.loads(doctor("--verify", "--json").stdout)
    assert list(report["roles"]) == [*ROLES, "helper"]
    assert report["layers"] == report["roles"]["agent"]
    helper = [(row["layer"], row["observed_by"], row["state"]) for row in report["roles"].pop("helper")]
    for layer in ("uid_drop", "capabilities", "no_new_privs", "seccomp", "non_dumpable"):
        assert {(layer, "self-reported", "enforced"), (layer, "observed", "enforced")} <= set(helper)
    for rows in report["roles"].values():
        probes = {row["layer"]: row["probe"] for row in rows}
        assert "setresuid(0, 0, 0): EPERM" in probes["uid_drop"]
        assert probes["exec_trap"] == "execve of /bin/true that the trap denies: EPERM"
    assert list(json.loads(doctor("--json").stdout)["roles"]) == ["agent"]
    told = doctor("--verify").stdout
    assert [line for line in told.splitlines() if line.startswith("As the ")] == [
        f"As the {role}:" for role in (*ROLES, "helper")
    ]


@needs_root
def test_a_layer_that_only_pretends_is_not_called_enforced() -> None:
    """Its call succeeds, and what it should forbid still goes: only the attempt can tell."""
    prefix = (sys.executable, "-I", "-c", PRETENDING)
    rows = layers(prefix=prefix)
    assert rows["landlock_exec"]["state"] == "unavailable"
    assert rows["landlock_exec"]["probe"] == "execve of a file outside the trees: ENOEXEC (before: ENOEXEC)"
    done = doctor("--verify", prefix=prefix)
    assert (done.returncode, done.stderr) == (1, "coding-agents: not enforced: landlock_exec\n")


@needs_root
def test_under_dockers_default_capabilities_all_of_them_hold_too() -> None:
    prefix = without("sys_ptrace", "sys_admin", "dac_read_search", "net_admin")
    rows = layers("--verify", prefix=prefix)
    assert rows["exec_trap"]["detail"]["memory_access"] == "fsuid"
    assert rows["mountns"]["state"] == "unavailable"
    assert rows["mountns"]["remedy"] == "--cap-add SYS_ADMIN"


@needs_root
def test_without_setpcap_the_bounding_set_stays_and_is_said_to() -> None:
    row = layers("--verify", prefix=without("setpcap"))["caps_bounding"]
    assert row["state"] == "partial"
    assert "prctl(PR_CAPBSET_DROP): EPERM" in row["probe"]
    assert row["remedy"] == "--cap-add SETPCAP"


@needs_root
def test_another_listener_in_the_filter_chain_is_named_and_the_rest_still_holds() -> None:
    prefix = (sys.executable, "-I", "-c", OCCUPIED)
    rows = layers(prefix=prefix)
    assert rows["exec_trap"]["state"] == "unavailable"
    assert rows["exec_trap"]["probe"] == "seccomp(NEW_LISTENER): EBUSY"
    assert "SCMP_ACT_NOTIFY" in rows["exec_trap"]["why"]
    assert "SCMP_ACT_NOTIFY" in rows["exec_trap"]["remedy"]
    assert {name: rows[name]["state"] for name in EXPECTED if name != "exec_trap"} == dict.fromkeys(
        set(EXPECTED) - {"exec_trap"}, "enforced"
    )
    done = doctor("--verify", prefix=prefix)
    assert (done.returncode, done.stderr) == (1, "coding-agents: not enforced: exec_trap\n")


@needs_root
def test_root_that_cannot_change_its_uid_is_told_in_one_sentence() -> None:
    done = doctor("--verify", prefix=without("setuid", "setgid"))
    assert done.returncode == 1
    assert done.stderr == "coding-agents: not enforced: uid_drop, limits\n"  # root has no limit of processes
    assert "Traceback" not in done.stdout


@needs_root
@readable_by_all
def test_an_ordinary_user_gets_what_the_kernel_gives_everyone() -> None:
    rows = layers(prefix=AS_USER)
    assert {name: row["state"] for name, row in rows.items() if name in EXPECTED} == {
        "uid_drop": "unavailable",
        "no_new_privs": "enforced",
        "landlock_exec": "enforced",
        "memfd_rule": "enforced",
        "exec_trap": "enforced",
    }
    assert "needs root" in rows["uid_drop"]["why"]
    assert rows["exec_trap"]["detail"]["memory_access"] == "same-uid"
    done = doctor("--verify", prefix=AS_USER)
    assert (done.returncode, done.stderr) == (1, "coding-agents: not enforced: uid_drop\n")


def test_an_unknown_option_is_a_usage_error() -> None:
    for wrong in ("--quick", "--ver"):
        done = doctor(wrong)
        sentence = f"coding-agents: unrecognized arguments: {wrong}; see: coding-agents doctor --help\n"
        assert (done.returncode, done.stdout, done.stderr) == (2, "", sentence)


@needs_root
def test_it_leaves_nothing_behind() -> None:
    places = [Path("/tmp"), Path("/var/tmp"), Path("/run"), Path("/dev/shm")]
    before = [sorted(place.iterdir()) for place in places], Path("/proc/self/mountinfo").read_text()
    for prefix in ((), without("sys_admin")):
        doctor(prefix=prefix)
    left = [sorted(set(place.iterdir()) - set(seen)) for place, seen in zip(places, before[0], strict=True)]
    assert [path for paths in left for path in paths if "self-test" in path.name or "doctor" in path.name] == []
    assert Path("/proc/self/mountinfo").read_text() == before[1]
