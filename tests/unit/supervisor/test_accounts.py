"""The account files of a container: changed at once and with their modes, left alone where that cannot be."""

import fcntl
import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest

from codingagents.rewrite.specs import UidPlan
from codingagents.supervisor import account_lines, accounts
from codingagents.supervisor.accounts import AccountFiles
from codingagents.trust.errors import ProcessError

UIDS = UidPlan(agent=52000, task=52001, workspace_gid=52002, servers={"github": 52003})
PASSWD = b"root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65534::/nonexistent:/usr/sbin/nologin\n"
GROUP = b"root:x:0:\nnogroup:x:65534:\n"
HOLD = """
import fcntl, sys
file = open(sys.argv[1], "w")
fcntl.lockf(file, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def etc(tmp_path: Path) -> Path:
    (tmp_path / "passwd").write_bytes(PASSWD)
    (tmp_path / "group").write_bytes(GROUP)
    (tmp_path / "passwd").chmod(0o640)
    return tmp_path


def contents(etc: Path) -> tuple[bytes, bytes]:
    return (etc / "passwd").read_bytes(), (etc / "group").read_bytes()


def test_accounts_come_and_go(etc: Path) -> None:
    files = AccountFiles(etc)
    assert files.add(UIDS) == "created"
    passwd, group = contents(etc)
    assert passwd == PASSWD + (
        b"agentcli:*:52000:52000:coding-agents:/run/coding-agents/home:/bin/sh\n"
        b"agentuser:*:52001:52001:coding-agents:/nonexistent:/bin/sh\n"
        b"mcp-github:*:52003:52003:coding-agents:/nonexistent:/usr/sbin/nologin\n"
    )
    assert group == GROUP + (
        b"agentcli:*:52000:\nagentuser:*:52001:\nmcp-github:*:52003:\nagentwork:*:52002:agentcli,agentuser\n"
    )
    assert (etc / "passwd").stat().st_mode & 0o777 == 0o640
    files.remove()
    assert contents(etc) == (PASSWD, GROUP)
    assert (etc / "passwd").stat().st_mode & 0o777 == 0o640
    assert {path.name for path in etc.iterdir()} == {"passwd", "group", ".pwd.lock"}


def test_the_agents_account_has_the_shell_that_it_is_to_have(etc: Path) -> None:
    files = AccountFiles(etc)
    assert files.shell_of(UIDS.agent) == ""
    files.add(UIDS, "/run/agent-tasks/shells/bash")
    assert files.shell_of(UIDS.agent) == "/run/agent-tasks/shells/bash"
    assert files.shell_of(UIDS.task) == "/bin/sh"
    second = AccountFiles(etc)
    assert second.add(UIDS, "/bin/zsh") == "there"
    assert second.shell_of(UIDS.agent) == "/run/agent-tasks/shells/bash"  # what is there counts, not what was wanted
    assert AccountFiles(etc / "no-such").shell_of(0) == ""


def test_accounts_that_are_there_stay(etc: Path) -> None:
    AccountFiles(etc).add(UIDS)
    before = contents(etc)
    second = AccountFiles(etc)
    assert second.add(UIDS) == "there"
    second.remove()
    assert contents(etc) == before


def test_what_others_added_meanwhile_stays(etc: Path) -> None:
    files = AccountFiles(etc)
    files.add(UIDS)
    for name in ("passwd", "group"):
        with (etc / name).open("ab") as file:
            file.write(b"new:x:1:1:::\n")
    files.remove()
    assert contents(etc) == (PASSWD + b"new:x:1:1:::\n", GROUP + b"new:x:1:1:::\n")


@pytest.mark.parametrize(
    ("file", "line", "why"),
    [
        ("passwd", b"agentcli:x:1000:1000::/home/a:/bin/sh\n", "agentcli is another's: it has the ID 1000"),
        ("passwd", b"node:x:52000:52000::/home/node:/bin/sh\n", "the ID 52000 is node's"),
        ("group", b"agentwork:x:7:\n", "agentwork is another's: it has the ID 7"),
        ("passwd", b"agentcli\n", "agentcli is another's: it has the ID -1"),
    ],
)
def test_names_and_numbers_of_the_image_win(etc: Path, file: str, line: bytes, why: str) -> None:
    with (etc / file).open("ab") as there:
        there.write(line)
    before = contents(etc)
    files = AccountFiles(etc)
    assert files.add(UIDS) == f"numeric: {etc / file}: {why}"
    files.remove()
    assert contents(etc) == before


def test_a_missing_file_is_no_error(etc: Path) -> None:
    (etc / "passwd").unlink()
    assert AccountFiles(etc).add(UIDS) == f"numeric: {etc}/passwd: ENOENT"
    assert (etc / "group").read_bytes() == GROUP


def test_a_link_and_a_fifo_are_not_followed(etc: Path) -> None:
    (etc / "passwd").rename(etc / "elsewhere")
    (etc / "passwd").symlink_to("elsewhere")
    assert AccountFiles(etc).add(UIDS) == f"numeric: {etc}/passwd: ELOOP"
    (etc / "passwd").unlink()
    os.mkfifo(etc / "passwd")
    assert AccountFiles(etc).add(UIDS) == f"numeric: {etc}/passwd is no file"


def test_a_huge_file_is_left_alone(etc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounts, "MAX_BYTES", 10)
    assert AccountFiles(etc).add(UIDS) == f"numeric: {etc}/group has more than 10 bytes"
    assert contents(etc) == (PASSWD, GROUP)


def test_either_both_files_change_or_none(etc: Path) -> None:
    (etc / ".passwd.coding-agents").mkdir()  # so that the second file cannot be replaced
    assert AccountFiles(etc).add(UIDS).startswith("numeric: ")
    assert contents(etc) == (PASSWD, GROUP)


def test_what_a_killed_session_left_half_written_is_replaced(etc: Path) -> None:
    (etc / ".passwd.coding-agents").write_text("half")
    assert AccountFiles(etc).add(UIDS) == "created"
    assert not (etc / ".passwd.coding-agents").exists()


def test_whoever_edits_them_is_waited_for_not_long(etc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lock is lckpwdf(3)'s own."""
    monkeypatch.setattr(accounts, "LOCK_SECONDS", 0.05)
    files = AccountFiles(etc)
    argv = [sys.executable, "-c", HOLD, str(etc / ".pwd.lock")]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert files.add(UIDS) == f"numeric: another process has locked {etc}/.pwd.lock"
        holder.kill()
    assert files.add(UIDS) == "created"
    with (etc / ".pwd.lock").open("w") as mine:
        fcntl.lockf(mine, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_accounts_that_cannot_be_taken_out_are_spoken_of(etc: Path) -> None:
    files = AccountFiles(etc)
    files.add(UIDS)
    (etc / "group").unlink()
    with pytest.raises(ProcessError, match=r"cannot take the session's accounts out of .*: No such file"):
        files.remove()


def test_the_machines_own_file_is_understood() -> None:
    """Guards the reading of passwd(5) against the C library's."""
    data = Path("/etc/passwd").read_bytes()
    names, _ = account_lines._known(data)
    assert names == {entry.pw_name: entry.pw_uid for entry in pwd.getpwall()}
