"""Programs that are wrapped and put back, on real files; killed at each step that changes one."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from codingagents.supervisor import wrap_cli, wrap_rules, wrapping
from codingagents.supervisor.wrapping import Wrapping, locate
from codingagents.trust.errors import AgentError, NotFoundError, UsageError

PROGRAM = b"#!/bin/true\n"
# Audit events of what changes a directory or a file.
CHANGES = frozenset({"open", "os.link", "os.rename", "os.remove", "os.chown", "os.chmod", "os.mkdir"})


class Client:
    """A client's program at `path` in a directory of its own: a file, or the end of a chain of links."""

    def __init__(self, folder: Path, *, linked: bool) -> None:
        self.bin, self.lib = folder / "bin", folder / "lib"
        self.bin.mkdir()
        self.lib.mkdir()
        self.path = self.bin / "claude"
        self.program = self.lib / "cli.js" if linked else self.path
        self.program.write_bytes(PROGRAM)
        self.program.chmod(0o750)
        if linked:
            (self.bin / "chain").symlink_to("../lib/cli.js")
            self.path.symlink_to("chain")
        self.vendor = self.bin / "coding-agents-vendor-claude"
        self.wrapping = Wrapping(folder / "state" / "wrappers.json", owner=os.geteuid())
        self.before = self.seen()

    def seen(self) -> dict[str, tuple[int, int, int, int, bytes]]:
        """What lies in the directory: of each name inode, mode, owner, group and bytes."""
        return {
            path.name: (found.st_ino, found.st_mode, found.st_uid, found.st_gid, path.read_bytes())
            for path in self.bin.iterdir()
            for found in [path.lstat()]
        }

    def install(self) -> str:
        return self.wrapping.install(str(self.path))

    def remove(self) -> str:
        return self.wrapping.remove(str(self.path))

    def states(self, *, thorough: bool = True) -> list[str]:
        return [state for _, state, _ in self.wrapping.survey(thorough=thorough)]

    def is_wrapped(self) -> bool:
        return wrap_rules.is_wrapper(self.path.read_bytes())

    def update(self, content: bytes) -> None:
        """Put a new program where the old one was, as installers do."""
        new = self.bin / "new"
        new.write_bytes(content)
        new.chmod(0o755)
        new.rename(self.path)


@pytest.fixture(params=[False, True], ids=["file", "links"])
def client(request: pytest.FixtureRequest, tmp_path: Path) -> Client:
    return Client(tmp_path, linked=request.param)


def test_a_program_is_wrapped_once_and_put_back_as_it_was(client: Client) -> None:
    assert client.install() == f"{client.path} is wrapped now"
    assert client.is_wrapped()
    assert client.seen()[client.vendor.name] == client.before["claude"]
    assert client.states() == ["wrapped"]
    after = client.seen()
    assert client.install() == f"{client.path} is wrapped already"
    assert client.seen() == after
    assert client.remove() == f"{client.path} is the vendor's program again"
    assert client.seen() == client.before
    assert client.states() == []
    assert list(client.wrapping.record.parent.iterdir()) == []
    assert client.remove() == f"{client.path} is not wrapped"


def test_extended_attributes_stay_with_the_program(client: Client) -> None:
    os.setxattr(client.program, "user.kept", b"yes")
    client.install()
    assert os.getxattr(client.vendor, "user.kept") == b"yes"
    client.remove()
    assert os.getxattr(client.path, "user.kept") == b"yes"


def test_the_wrapper_is_for_whom_the_program_is_for(client: Client) -> None:
    client.install()
    found = client.path.stat()
    assert (found.st_mode & 0o7777, found.st_gid) == (0o750, client.program.stat().st_gid)


def test_a_link_to_a_wrapper_is_wrapped_already(client: Client) -> None:
    client.install()
    other = client.lib / "claude"
    other.symlink_to(client.path)
    assert client.wrapping.install(str(other)) == f"{other} leads to {client.path}, which is wrapped"
    assert other.is_symlink()
    assert client.states() == ["wrapped"]


@pytest.mark.parametrize("thorough", [True, False])
def test_an_update_that_overwrites_the_wrapper_is_found_and_mended(client: Client, thorough: bool) -> None:
    client.install()
    client.update(b"#!/bin/false\n")
    assert client.states(thorough=thorough) == ["not wrapped"]
    assert client.install() == f"{client.path} was wrapped anew"
    assert client.vendor.read_bytes() == b"#!/bin/false\n"
    assert client.states() == ["wrapped"]
    client.remove()
    assert client.path.read_bytes() == b"#!/bin/false\n"
    assert not client.vendor.exists()


def test_what_an_update_put_there_is_kept_when_the_wrapper_goes(client: Client) -> None:
    client.install()
    client.update(b"#!/bin/false\n")
    assert client.remove() == f"{client.path} is not wrapped any more; what stands there stays"
    assert client.path.read_bytes() == b"#!/bin/false\n"
    assert not client.vendor.is_symlink()
    assert not client.vendor.exists()
    assert client.states() == []


@pytest.mark.parametrize("thorough", [True, False])
@pytest.mark.parametrize("content", [PROGRAM.replace(b"true", b"fals"), b"#!/bin/false -x\n"], ids=["size", "longer"])
def test_a_program_that_changed_behind_its_wrapper_is_found_and_recorded(
    client: Client, thorough: bool, content: bytes
) -> None:
    client.install()
    client.vendor.write_bytes(content)  # through the links
    os.utime(client.vendor, (1, 1))
    assert client.states(thorough=thorough) == ["vendor changed"]
    assert client.install() == f"{client.path} was wrapped anew: the vendor's program had changed"
    assert client.states(thorough=thorough) == ["wrapped"]


def test_a_time_alone_is_no_change(client: Client) -> None:
    client.install()
    os.utime(client.vendor, (1, 1))
    assert client.states(thorough=False) == ["wrapped"]


def test_a_wrapper_of_another_version_is_found_and_replaced(client: Client) -> None:
    client.install()
    whole = client.path.read_bytes()
    client.path.write_bytes(whole + b"# edited\n")
    assert client.states() == ["wrapper changed"]
    assert client.install() == f"{client.path} was wrapped anew"
    client.path.write_bytes(whole + b"# edited\n")
    (client.wrapping.record).unlink()
    assert client.install() == f"{client.path} was wrapped anew"
    assert client.path.read_bytes() == whole
    assert client.states() == ["wrapped"]


def test_a_wrapper_without_its_program_can_only_go(client: Client) -> None:
    client.install()
    client.vendor.unlink()
    assert client.states() == ["vendor missing"]
    with pytest.raises(AgentError, match="the vendor's program behind it is gone"):
        client.install()
    assert client.remove() == f"the wrapper {client.path} was removed; the vendor's program is gone"
    assert not client.path.exists()


def test_a_package_that_was_removed_can_be_forgotten(client: Client) -> None:
    client.install()
    client.path.unlink()
    assert client.states() == ["missing"]
    with pytest.raises(NotFoundError, match="is not there"):
        client.install()
    client.vendor.unlink()
    assert client.remove() == f"{client.path} is not wrapped"
    assert client.states() == []


def test_what_must_not_be_wrapped_stays_as_it_is(client: Client) -> None:
    client.program.chmod(0o4755)
    before = client.seen()
    with pytest.raises(AgentError, match="must not be wrapped: it gives privileges"):
        client.install()
    assert client.seen() == before
    assert client.states() == []


def test_a_link_that_leads_nowhere_is_one_sentence(client: Client) -> None:
    client.program.rename(client.lib / "gone")
    if client.path.is_symlink():
        with pytest.raises(AgentError, match="No such file"):
            client.install()
    else:
        with pytest.raises(NotFoundError, match="is not there"):
            client.install()


def test_the_vendors_program_is_found_behind_links_to_its_wrapper(client: Client) -> None:
    mine = os.geteuid()
    assert wrapping.vendor_of(str(client.path), mine) is None
    client.install()
    other = client.lib / "claude"
    other.symlink_to(client.path)
    assert wrapping.vendor_of(str(other), mine) == str(client.vendor)
    assert wrapping.vendor_of("/nonexistent/claude", mine) is None


def test_a_wrapper_of_another_user_is_none(client: Client) -> None:
    """Who made it would say which program the agent is."""
    client.install()
    if os.geteuid() == 0:
        os.chown(client.path, 4242, -1)
    assert wrapping.vendor_of(str(client.path)) is None


def test_a_session_hears_of_what_changed_only(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wrapping, "Wrapping", lambda: client.wrapping)
    assert wrapping.changed_wrappers() == []
    client.install()
    assert wrapping.changed_wrappers() == []
    client.update(b"#!/bin/false\n")
    (sentence,) = wrapping.changed_wrappers()
    assert sentence.startswith(f"{client.path} was wrapped, and another program stands there now")
    client.wrapping.record.write_bytes(b"no record")
    (sentence,) = wrapping.changed_wrappers()
    assert "cannot be read" in sentence


def test_a_record_that_cannot_be_written_is_one_sentence(client: Client) -> None:
    client.wrapping.record.parent.write_bytes(b"")
    with pytest.raises(AgentError, match="cannot use"):
        client.install()
    client.wrapping.record.parent.unlink()
    client.wrapping.record.mkdir(parents=True)
    with pytest.raises(AgentError, match="cannot be read: Is a directory"):
        client.install()


@pytest.mark.parametrize("in_the_way", ["claude", "coding-agents-vendor-claude"])
def test_what_the_file_system_refuses_is_one_sentence_and_leaves_a_whole_program(
    client: Client, in_the_way: str
) -> None:
    """A directory stands where a draft is to be."""
    draft = client.bin / f"{in_the_way}{wrap_rules.DRAFT_SUFFIX}"
    draft.mkdir()
    for work in (client.install, client.remove):
        with pytest.raises(AgentError, match="cannot be wrapped or put back: Is a directory"):
            work()
        assert whole(client)
    draft.rmdir()
    client.install()
    assert client.states() == ["wrapped"]


def test_a_record_that_has_no_room_is_one_sentence(client: Client) -> None:
    client.wrapping.record.parent.mkdir()
    (client.wrapping.record.parent / f".{client.wrapping.record.name}.new").mkdir()
    with pytest.raises(AgentError, match="cannot write"):
        client.install()
    assert not client.is_wrapped()


def killed_at(step: int, work: Callable[[], object]) -> bool:
    """Do `work` in a child that is killed before its change number `step`; says whether there were so many."""
    pid = os.fork()
    if pid == 0:
        left = step

        def count(event: str, arguments: tuple[object, ...]) -> None:
            nonlocal left
            if event in CHANGES and (event != "open" or not isinstance(arguments[2], int) or arguments[2] & 3):
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(count)
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in (0, -signal.SIGKILL)
    return code != 0


def kills(client: Client, begin: Callable[[], object], work: Callable[[], object]) -> Iterator[int]:
    """Yield after a kill at each step of `work`; `begin` makes what it starts from."""
    step = 0
    while begin() and killed_at(step, work):
        yield step
        step += 1


def whole(client: Client) -> bool:
    """Say whether the path leads to a whole program: the vendor's, or a wrapper with the vendor's beside it."""
    if not client.is_wrapped():
        return client.path.read_bytes() == PROGRAM
    return client.path.read_bytes().endswith(b")\n") and client.vendor.read_bytes() == PROGRAM


def test_an_installation_that_is_killed_leaves_the_old_or_the_new_and_goes_on(client: Client) -> None:
    killed = 0
    for _ in kills(client, client.remove, client.install):
        killed += 1
        assert whole(client)
        client.install()
        assert client.states() == ["wrapped"]
        assert len(client.seen()) == len(client.before) + 1  # no draft
    assert killed > 8


def test_an_installation_that_is_killed_can_be_taken_back(client: Client) -> None:
    for _ in kills(client, client.remove, client.install):
        client.remove()
        assert client.seen() == client.before
        assert client.states() == []


def test_a_removal_that_is_killed_leaves_the_old_or_the_new_and_goes_on(client: Client) -> None:
    killed = 0
    for _ in kills(client, client.install, client.remove):
        killed += 1
        assert whole(client)
        client.remove()
        assert client.seen() == client.before
        assert client.states() == []
    assert killed > 2


def test_an_update_that_is_being_wrapped_survives_a_kill(client: Client) -> None:
    def begin() -> str:
        client.remove()
        client.install()
        client.update(PROGRAM)
        return "begun"

    for _ in kills(client, begin, client.install):
        assert whole(client)
        client.install()
        assert client.states() == ["wrapped"]
        assert client.vendor.read_bytes() == PROGRAM


def test_a_name_is_looked_for_in_path_and_a_path_is_taken_by_its_directory(client: Client, tmp_path: Path) -> None:
    (tmp_path / "other").symlink_to(client.bin)
    search = f"relative:{tmp_path}/nothing:{tmp_path}/other"
    assert locate("claude", search) == str(client.path)
    assert locate(f"{tmp_path}/other/claude", "") == str(client.path)
    assert locate("/claude", "") == "/claude"
    with pytest.raises(NotFoundError, match="nope is not in PATH"):
        locate("nope", search)


@pytest.fixture
def commanded(client: Client, monkeypatch: pytest.MonkeyPatch) -> Client:
    monkeypatch.setattr(wrap_cli, "Wrapping", lambda: client.wrapping)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("PATH", str(client.bin))
    return client


def test_the_command_says_a_sentence_for_each(commanded: Client, capsys: pytest.CaptureFixture[str]) -> None:
    assert wrap_cli.main(["install", "nope", "claude", "/bin/sh"]) == 3
    said = capsys.readouterr()
    assert said.out == f"{commanded.path} is wrapped now\n"
    assert "nope is not in PATH" in said.err
    assert "sh must not be wrapped: it is a shell" in said.err
    assert wrap_cli.main(["list"]) == 0
    assert capsys.readouterr().out == f"{commanded.path} is wrapped\n"
    commanded.update(PROGRAM)
    assert wrap_cli.main(["list", "--json"]) == 1
    assert '"state": "not wrapped"' in capsys.readouterr().out
    assert wrap_cli.main(["remove", str(commanded.path)]) == 0
    capsys.readouterr()
    assert wrap_cli.main(["list"]) == 0
    assert capsys.readouterr().out == "nothing is wrapped\n"


def test_only_root_changes_what_is_wrapped(commanded: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    for command in ("install", "remove"):
        with pytest.raises(UsageError, match="run it as root"):
            wrap_cli.main([command, "claude"])
    with pytest.raises(UsageError):
        wrap_cli.main([])
    assert not commanded.is_wrapped()
