"""The profiles close what the masks and the filter close. That they parse is an integration test's matter."""

import re
from pathlib import Path

import pytest

from codingagents.rewrite import places
from codingagents.supervisor import apparmor, apparmor_profile, doctor, mounts_seen
from codingagents.trust.vocabulary import Role

ROLES = [Role(name) for name in apparmor_profile.ROLES]


def denied(role: Role) -> list[str]:
    """The paths of deny rules about files, without what they say of everything below."""
    return re.findall(r"(?m)^  deny (/\S+?)(?:\{,/\*\*\})? r\w*,$", apparmor_profile.profile_text(role))


def test_a_task_sees_into_no_directory_of_the_session_but_its_own() -> None:
    assert set(denied(Role.TASK)) >= {wanted.path for wanted in mounts_seen.WANTED} - {places.RUN_TASKS}
    assert places.RUN_TASKS not in denied(Role.TASK)


def test_an_agent_reaches_its_home_its_configuration_and_the_runner() -> None:
    closed = denied(Role.AGENT)
    for path in (places.AGENT_HOME, places.CLIENTS, places.SOCKETS, places.RUNNER_SOCKET, f"{places.SHELLS}/bash"):
        assert not [one for one in closed if path == one or path.startswith(f"{one}/")]
    assert {places.RUN_SECRETS, places.TRUST, places.TASK_HOME} <= set(closed)


@pytest.mark.parametrize("role", ROLES)
def test_what_the_filter_refuses_is_refused_by_name(role: Role) -> None:
    rules = [line.strip() for line in apparmor_profile.profile_text(role).splitlines()]
    for rule in ("capability", "mount", "umount", "pivot_root", "network packet", "network inet raw"):
        assert f"deny {rule}," in rules
    assert not [rule for rule in rules if re.match(r"(audit )?(allow )?(capability|mount|userns|change_profile)", rule)]
    # Tracing is allowed to nobody by any rule; being looked at is.
    assert [rule for rule in rules if rule.startswith("ptrace")] == [
        "ptrace (readby, tracedby),",
        f"ptrace (read) peer={apparmor_profile.profile_name(role)},",
    ]


def test_a_role_without_a_profile_has_none() -> None:
    with pytest.raises(KeyError):
        apparmor_profile.profile_text(Role.HELPER)


@pytest.mark.parametrize("role", ROLES)
def test_doctor_prints_it(role: Role, capsys: pytest.CaptureFixture[str]) -> None:
    assert doctor.main(["--apparmor", role.value]) == 0
    assert capsys.readouterr().out == apparmor_profile.profile_text(role)


class _Attributes:
    """Files in the place of those below /proc/self/attr."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.label, self.first, self.second = (folder / name for name in ("current", "first", "second"))
        monkeypatch.setattr(apparmor, "_LABEL", str(self.label))
        monkeypatch.setattr(apparmor, "_ON_EXEC", (str(self.first), str(self.second)))


@pytest.fixture
def attributes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> _Attributes:
    return _Attributes(tmp_path, monkeypatch)


def test_without_apparmor_nothing_is_asked_for(attributes: _Attributes) -> None:
    attributes.first.write_bytes(b"")
    assert apparmor.confine_next_exec("x") == "this kernel has no AppArmor"
    assert attributes.first.read_bytes() == b""
    attributes.first.unlink()
    attributes.label.write_bytes(b"unconfined\n")
    assert apparmor.confine_next_exec("x") == "this kernel has no AppArmor"


def test_a_profile_is_asked_for_where_the_kernel_takes_it(attributes: _Attributes) -> None:
    attributes.label.write_bytes(b"unconfined\n")
    attributes.second.write_bytes(b"")
    assert apparmor.confine_next_exec("coding-agents-task") == ""
    assert attributes.second.read_bytes() == b"exec coding-agents-task"


def test_who_is_under_a_profile_asks_for_none(attributes: _Attributes) -> None:
    """Its exec would fail, and no task would run."""
    attributes.label.write_bytes(b"docker-default (enforce)\n")
    attributes.first.write_bytes(b"")
    why = "docker-default (enforce) is on this process already, and no_new_privs allows no change"
    assert apparmor.confine_next_exec("x") == why
    assert attributes.first.read_bytes() == b""


def test_what_the_kernel_refuses_is_said(attributes: _Attributes) -> None:
    attributes.label.write_bytes(b"unconfined\n")
    attributes.first.mkdir()
    assert apparmor.confine_next_exec("x") == f"{attributes.first}: EISDIR"
    attributes.first.rmdir()
    attributes.first.symlink_to("/dev/full")
    assert apparmor.confine_next_exec("x") == f"{attributes.first}: ENOSPC"
