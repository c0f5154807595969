"""A layer that is required and cannot be had stops the session; one that is switched off is off, and said to be."""

from __future__ import annotations

import json
import shutil

import pytest

import session_rig as rig
from codingagents.supervisor.confine_spec import WANTED_SECUREBITS
from codingagents.trust.errors import EXIT_UNCONFINED
from codingagents.trust.events import AgentStarted, Event, ExecAllowed, ExecDenied, Layer, LayerReport, SessionEnded
from session_rig import Place, Session, every_mode

pytest_plugins = ("session_fixtures",)  # where


HELD = (
    *("uid_drop", "caps_bounding", "securebits", "no_new_privs", "seccomp_static", "userns", "limits"),
    *("landlock_exec", "memfd_rule", "exec_trap", "mountns"),
)
SWITCHED = ("caps_bounding", "securebits", "seccomp_static", "userns", "landlock_exec", "memfd_rule", "exec_trap")
DENIED = "/usr/bin/env"  # by a rule, and by nothing else


# What no verb of the agent's says: its securebits, reading its own memory as another's, a user namespace.
PROBE = """
import ctypes, errno, json, os
libc = ctypes.CDLL(None, use_errno=True)
def answer(made):
    return errno.errorcode[ctypes.get_errno()] if made < 0 else None
vectors = [(ctypes.c_size_t * 2)(ctypes.addressof(ctypes.create_string_buffer(1)), 0) for _ in range(2)]
one, none = ctypes.c_ulong(1), ctypes.c_ulong(0)
print(json.dumps({
    "securebits": libc.prctl(27, 0, 0, 0, 0),
    "seccomp_static": answer(libc.process_vm_readv(os.getpid(), vectors[0], one, vectors[1], one, none)),
    "userns": answer(libc.unshare(0x10000000)),
}))
"""


@pytest.fixture(scope="module")
def where(where: Place) -> Place:
    shutil.copy("/bin/true", where.open / "true")  # outside the executable trees
    (where.open / "true").chmod(0o755)
    return where


def config(layers: str) -> str:
    return f'[session]\nlayers = {{ {layers} }}\n[exec]\nrules = [ {{ deny = "{DENIED}" }} ]\n'


def rows(session: Session) -> dict[str, Layer]:
    (report,) = [each for each in session.events(LayerReport) if each.role == "agent"]
    return {row.layer: row for row in report.layers}


def attempts(session: Session, where: Place) -> dict[str, object]:
    """What a layer forbids, tried by the agent itself."""
    return {
        **json.loads(session.ask("run", "/usr/bin/python3", "-I", "-c", PROBE)["output"]),
        "caps_bounding": session.ask("status")["CapBnd"] == "0" * 16,
        "landlock_exec": session.ask("run", str(where.open / "true"))["errno"],
        "memfd_rule": session.ask("call", "memfd_create", "program", 0),
        "exec_trap": session.ask("run", DENIED)["errno"],
    }


REFUSED = {
    "caps_bounding": True,
    "securebits": WANTED_SECUREBITS,
    "seccomp_static": "EPERM",
    "userns": "EPERM",
    "landlock_exec": "EACCES",
    "memfd_rule": "EPERM",
    "exec_trap": "EPERM",
}
LET_BE = {
    "caps_bounding": False,
    "securebits": 0,
    "seccomp_static": None,
    "userns": None,
    "landlock_exec": None,
    "memfd_rule": "",
    "exec_trap": None,
}


@every_mode
def test_what_is_reported_as_enforced_refuses_the_agent(mode: str, where: Place) -> None:
    """The control of the tests below: with every layer on, each forbidden act fails as the report says."""
    with rig.start(mode, where, config("")) as session:
        assert session.answer() == "up"
        states = {name: row.state for name, row in rows(session).items()}
        assert all(states[name] == "enforced" for name in HELD), states
        assert states["pidns"] == ("enforced" if mode == "pid1" else "unavailable")
        assert attempts(session, where) == REFUSED


@every_mode
@pytest.mark.parametrize("layer", SWITCHED)
def test_a_layer_that_is_off_is_reported_as_off_and_is_off(mode: str, layer: str, where: Place) -> None:
    """Its act now succeeds, and those of the others still fail."""
    with rig.start(mode, where, config(f'{layer} = "off"')) as session:
        assert session.answer() == "up"
        row = rows(session)[layer]
        assert (row.wanted, row.state, row.probe) == ("off", "disabled", "not tried")
        assert row.consequence != ""
        assert attempts(session, where) == {**REFUSED, layer: LET_BE[layer]}
        execs: list[Event] = [*session.events(ExecAllowed), *session.events(ExecDenied)]
        assert bool(execs) == (layer != "exec_trap")
        session.tell("leave", 0)
        assert session.wait() == 0


@every_mode
def test_a_required_layer_that_is_not_there_ends_the_session_before_the_agent_runs(mode: str, where: Place) -> None:
    """Exit 124, a sentence with the remedy; the report and the end are in the log, an agent is not."""
    with rig.start(mode, where, config('apparmor = "require"'), ["/bin/echo", "the agent ran"]) as session:
        assert session.wait() == EXIT_UNCONFINED
        assert session.rest() == b""
        session.assert_nothing_is_left()
    row = rows(session)["apparmor"]
    remedy = "--security-opt apparmor=PROFILE on a kernel that has AppArmor"
    sentence = f"required layers are not enforced here: apparmor: {row.why} ({remedy})"
    assert session.sentences() == [f"coding-agents: {sentence}"]
    assert (row.wanted, row.state) == ("require", "unavailable")
    assert row.why in {"this kernel has no AppArmor", "no profile is on this session"}
    assert session.events(AgentStarted) == []
    (ended,) = session.events(SessionEnded)
    assert (ended.exit_code, ended.reason) == (EXIT_UNCONFINED, sentence)
    assert session.verify().closed


@every_mode
def test_a_required_layer_that_holds_changes_nothing(mode: str, where: Place) -> None:
    """The control: requiring is no reason to stop."""
    layers = ", ".join(f'{name} = "require"' for name in HELD)
    with rig.start(mode, where, config(layers), ["/bin/echo", "the agent ran"]) as session:
        assert session.line() == "the agent ran"
        assert session.wait() == 0
        assert {row.wanted for name, row in rows(session).items() if name in HELD} == {"require"}


@every_mode
def test_a_hundred_execs_at_once_are_all_in_the_log(mode: str, where: Place) -> None:
    """From twenty threads; each is there once, and the chain over them verifies."""
    with rig.start(mode, where, "") as session:
        assert session.answer() == "up"
        assert session.ask("run_many", 100, 20) == {"0": 100}
        session.tell("leave", 0)
        assert session.wait() == 0
    numbers = [event.command_args[1] for event in session.events(ExecAllowed) if len(event.command_args) == 2]
    assert sorted(numbers) == sorted(f"exec-{number}" for number in range(100))
    verified = session.verify()
    assert verified.closed
    assert verified.covered == verified.events
