"""A session's rights in a tree by ACL: who has them while it lasts, and that the tree is afterwards what it was.

Each role is a process with the UID, groups and umask that it has in a session.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from codingagents.launcher.workspace_acl import parse, to_bytes
from codingagents.launcher.workspace_session import workspace_of
from codingagents.rewrite.specs import SessionSpec, UidPlan
from codingagents.trust.errors import ConfigError, ProcessError, UsageError

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="other users' files need root")

OWNER, STRANGER = 58900, 58999
UIDS = UidPlan(agent=58901, task=58902, workspace_gid=58903, servers={"server": 58904})
SESSION_IDS = ("58901", "58902", "58903", "58904")
SPEC = SessionSpec(
    session="test",
    agent="claude",
    engine="local",
    config_sha256="0" * 64,
    uids=UIDS,
    remotes=[],
    workspace_acl=True,
    command=["true"],
    working_directory="/",
    environment={"PATH": "/usr/bin:/bin"},
    public_key="",
)


@dataclasses.dataclass(frozen=True)
class Rig:
    place: Path
    tree: Path
    base: Path  # of copies; records lie beside it

    def spec(self) -> SessionSpec:
        return msgspec.structs.replace(SPEC, working_directory=str(self.tree))

    def own(self, *paths: Path) -> None:
        subprocess.run(["chown", "-h", f"{OWNER}:{OWNER}", *map(str, paths)], check=True)

    @property
    def records(self) -> list[Path]:
        return list(self.base.with_name("workspace-records").iterdir())

    def session(self) -> contextlib.AbstractContextManager[Path]:
        return _session(self)

    def repaired(self) -> None:
        """Do what the next run does first, wherever it works."""
        elsewhere = msgspec.structs.replace(self.spec(), working_directory=str(self.place), workspace_acl=False)
        with workspace_of(elsewhere, self.base):
            pass


@contextlib.contextmanager
def _session(rig: Rig) -> Iterator[Path]:
    with workspace_of(rig.spec(), rig.base) as placed:
        placed.started = True
        yield rig.tree


@pytest.fixture
def rig() -> Iterator[Rig]:
    """Give a tree of a user of its own: closed to others, with files of several modes and with ACLs of its own."""
    place = Path("/var/tmp") / f"shared-{os.getpid()}"
    place.mkdir()
    place.chmod(0o755)
    rig = Rig(place, place / "project", place / "lib" / "workspaces")
    rig.tree.mkdir()
    for name, mode in (("file", 0o644), ("private", 0o600), ("program", 0o755), ("readonly", 0o444), ("listed", 0o640)):
        (rig.tree / name).write_text(f"{name}\n")
        (rig.tree / name).chmod(mode)
    for name, mode in (("folder", 0o755), ("setgid", 0o2750), ("inherits", 0o700)):
        (rig.tree / name).mkdir()
        (rig.tree / name).chmod(mode)
        (rig.tree / name / "inner").write_text("inner\n")
    (rig.tree / "link").symlink_to("file")
    subprocess.run(["setfacl", "-m", f"u:{STRANGER}:rwx,g:7:r,m::r", rig.tree / "listed"], check=True)
    subprocess.run(["setfacl", "-m", f"d:u:{STRANGER}:rx,u:{STRANGER}:rx,d:g::-", rig.tree / "inherits"], check=True)
    rig.tree.chmod(0o700)
    rig.own(rig.tree, *rig.tree.rglob("*"))
    yield rig
    shutil.rmtree(place)


def listing(tree: Path, *, times: bool = True) -> str:
    """Everything that must be as before: owners, modes, links, times of change of content, every ACL for getfacl."""
    form = "%P %U:%G %m %y %l" + (" %T@" if times else "")
    stats = subprocess.run(["find", tree, "-printf", f"{form}\n"], check=True, capture_output=True, text=True)
    acls = subprocess.run(["getfacl", "-RnpsP", tree], check=True, capture_output=True, text=True)
    return "\n".join([*sorted(stats.stdout.splitlines()), *sorted(acls.stdout.split("\n\n"))])


def acts(script: str, where: Path, uid: int, umask: int = 0o002) -> subprocess.CompletedProcess[str]:
    """Run a shell script as a role does its work; a server is not in the workspace group."""
    return subprocess.run(
        ["/bin/sh", "-ec", script],
        cwd="/",
        user=uid,
        group=uid,
        extra_groups=[UIDS.workspace_gid] if uid in (UIDS.agent, UIDS.task) else [],
        umask=umask,
        env={"PATH": "/usr/bin:/bin", "W": str(where), "HOME": "/nonexistent", **SAFE},
        capture_output=True,
        text=True,
        check=False,
    )


SAFE = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*"}


def does(script: str, where: Path, uid: int, umask: int = 0o002) -> str:
    done = acts(f'cd "$W"; {script}', where, uid, umask)
    assert done.returncode == 0, done.stderr
    return done.stdout


def refused(script: str, where: Path, uid: int) -> None:
    done = acts(script, where, uid)
    assert done.returncode != 0
    assert "Permission denied" in done.stderr


def test_agent_and_task_work_on_each_others_and_the_owners_files_and_nobody_else_does(rig: Rig) -> None:
    before = listing(rig.tree, times=False)
    refused('cat "$W/file"', rig.tree, UIDS.agent)
    with rig.session() as tree:
        does("cat private; echo more >> file; mkdir made; echo agent > made/note; ./program || true", tree, UIDS.agent)
        does("echo task >> made/note; echo task > made/other; echo > folder/new", tree, UIDS.task)
        does("cat made/other; echo owner >> made/note; echo owner > folder/mine", tree, OWNER)
        assert does("cat made/note", tree, UIDS.agent) == "agent\ntask\nowner\n"
        does("echo agent >> folder/mine", tree, UIDS.agent)
        refused('echo > "$W/readonly"', tree, UIDS.agent)  # as for its owner
        for script in ('cat "$W/file"', 'ls "$W"', 'echo > "$W/made/note"'):
            refused(script, tree, UIDS.servers["server"])
            refused(script, tree, STRANGER)
        does("rm -r made folder/new folder/mine", tree, OWNER)
    assert listing(rig.tree, times=False) == before
    assert rig.records == []
    refused('cat "$W/file"', rig.tree, UIDS.agent)


def test_a_session_that_makes_nothing_leaves_no_trace(rig: Rig) -> None:
    before = listing(rig.tree)
    with rig.session():
        assert listing(rig.tree) != before
    assert listing(rig.tree) == before


def owned_by_owner(tree: Path) -> None:
    """Nothing below is the session's, and no entry names it."""
    for path in [tree, *tree.rglob("*")]:
        found = os.lstat(path)
        assert (found.st_uid, found.st_gid) == (OWNER, OWNER), path
    assert not names_session(tree)


def names_session(path: Path) -> bool:
    said = subprocess.run(["getfacl", "-RnpP", path], check=True, capture_output=True, text=True).stdout
    return any(f"{kind}:{number}:" in said for kind in ("user", "group") for number in SESSION_IDS)


def test_what_programs_make_is_shared_and_then_the_owners(rig: Rig) -> None:
    """By a umask of 077 and by git; what is moved in from elsewhere has no entries, and is the owner's all the same."""
    elsewhere = rig.place / "elsewhere"
    elsewhere.mkdir()
    elsewhere.chmod(0o1777)
    commit = "git -c user.name=a -c user.email=a@example.org commit -q"
    with rig.session() as tree:
        does("echo closed > closed; mkdir deep; echo > deep/file", tree, UIDS.agent, umask=0o077)
        does("cat closed; echo more >> closed; echo more >> deep/file", tree, UIDS.task)
        does(f"git init -q .; git add -A; {commit} -m one", tree, UIDS.agent)
        does(f"echo > two; git add two; {commit} -m two; git gc -q", tree, UIDS.task)
        does(f"echo > three; git add three; {commit} -m three", tree, UIDS.agent)
        assert does("git log --format=%s", tree, UIDS.task).split() == ["three", "two", "one"]
        does(f"echo > {elsewhere}/moved; chmod 600 {elsewhere}/moved; mv {elsewhere}/moved .", tree, UIDS.agent)
        refused('cat "$W/moved"', tree, UIDS.task)  # said in configuration.md
        does("cp /bin/true suid; chmod 6755 suid; mkfifo fifo; ln -s /etc/passwd passwd", tree, UIDS.agent)
    owned_by_owner(rig.tree)
    modes = {name: f"{os.stat(rig.tree / name).st_mode & 0o7777:o}" for name in ("closed", "deep", "moved", "suid")}
    assert modes == {
        "closed": "600",
        "deep": "700",
        "moved": "600",
        "suid": "705",
    }  # its group has what the directory's has
    assert does("git fsck --strict; git log --format=%s", rig.tree, OWNER).split() == ["three", "two", "one"]


def test_entries_are_those_of_setfacl(rig: Rig) -> None:
    """Where no mask hides anything, since setfacl(1) would show what it hid: the file "listed" is the control."""
    with rig.session() as tree:
        for name, rights in (
            ("file", "rw"),
            ("private", "rw"),
            ("program", "rwx"),
            ("readonly", "r"),
            ("inherits", "rwx"),
        ):
            ours = tree / name
            theirs = rig.place / "theirs"
            shutil.copytree(ours, theirs) if ours.is_dir() else shutil.copy(ours, theirs)
            former = FORMER[name]
            subprocess.run(["setfacl", "-b", theirs], check=True)
            theirs.chmod(former[0])
            for change in (*former[1], *(f"u:{uid}:{rights}" for uid in (UIDS.agent, UIDS.task))):
                subprocess.run(["setfacl", "-m", change, theirs], check=True)
            subprocess.run(["setfacl", "-m", f"g:{UIDS.workspace_gid}:{rights}", theirs], check=True)
            if ours.is_dir():
                for uid in (UIDS.agent, UIDS.task, OWNER):
                    subprocess.run(["setfacl", "-m", f"d:u:{uid}:{rights}", theirs], check=True)
                subprocess.run(["setfacl", "-m", f"d:g:{UIDS.workspace_gid}:{rights}", theirs], check=True)
            assert getfacl(ours) == getfacl(theirs)
            shutil.rmtree(theirs) if ours.is_dir() else theirs.unlink()
        assert f"user:{STRANGER}:r--\n" in getfacl(tree / "listed")
        does("cat listed; echo >> listed", tree, UIDS.agent)
        refused('echo >> "$W/listed"', tree, STRANGER)


FORMER: dict[str, tuple[int, tuple[str, ...]]] = {
    "file": (0o644, ()),
    "private": (0o600, ()),
    "program": (0o755, ()),
    "readonly": (0o444, ()),
    "inherits": (0o700, (f"d:u:{STRANGER}:rx", f"u:{STRANGER}:rx", "d:g::-")),
}


def getfacl(path: Path) -> str:
    return subprocess.run(["getfacl", "-ncpE", path], check=True, capture_output=True, text=True).stdout


def test_what_setfacl_wrote_is_read_and_written_back(rig: Rig) -> None:
    for name, attribute in (("listed", "access"), ("inherits", "access"), ("inherits", "default")):
        data = os.getxattr(rig.tree / name, f"system.posix_acl_{attribute}")
        assert to_bytes(parse(data)) == data


# In the order in which they come: what a launcher does when it is killed.
MOMENTS = {
    "before its record has a name": "os.link",
    "when only the record is there": "workspace_rights._grant",
    "at the first entry": "os.setxattr",
    "while the session works": "",
    "as it begins to take back": "workspace_rights._restore",
    "at the first that is taken back": "workspace_rights._change",
    "while it gives to the owner": "os.chown",
    "before it forgets the record": "workspace_record.Record.forget",
}
KILLED = """
    import os, signal, subprocess, msgspec
    from pathlib import Path
    from codingagents.launcher import workspace_record, workspace_rights, workspace_session
    from codingagents.rewrite.specs import SessionSpec
    def die(*_, **__):
        os.kill(os.getpid(), signal.SIGKILL)
    {change}
    spec = msgspec.json.decode(open(0).read(), type=SessionSpec)
    with workspace_session.workspace_of(spec, Path({base!r})) as placed:
        placed.started = True
        subprocess.run(["/bin/sh", "-c", {script!r}], user={uid}, group={uid}, cwd=spec.working_directory, check=True)
        {end}
"""


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("calls", [0, 3])
def test_what_a_killed_launcher_left_is_put_right_by_the_next_run(
    rig: Rig, moment: str, calls: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """The file that the session made is the owner's, all else as before. `calls` of that kind go well before."""
    before = listing(rig.tree, times=False)
    name = MOMENTS[moment]
    repeated = calls and name in ("os.setxattr", "workspace_rights._change")
    counted = (
        f"(lambda real, left: lambda *a, **k: real(*a, **k) if left.pop() else die())({name}, [0] + [1] * {calls})"
    )
    source = KILLED.format(
        change=f"{name} = {counted if repeated else 'die'}" if name else "",
        end="" if name else "die()",
        base=str(rig.base),
        script="echo > made; mkdir folder/sub; mv folder/inner folder/sub/moved",
        uid=UIDS.agent,
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", textwrap.dedent(source)],
        input=msgspec.json.encode(rig.spec()),
        capture_output=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    left = rig.records
    assert len(left) == (moment != "before its record has a name")
    for record in left:
        assert os.stat(record).st_mode & 0o777 == 0o600
        assert os.stat(record.parent).st_mode & 0o777 == 0o700
    rig.repaired()
    said = capsys.readouterr().err
    assert (f"session test was killed; {rig.tree} has the rights and owners it had before" in said) == bool(left)
    assert rig.records == []
    owned_by_owner(rig.tree)
    if (rig.tree / "made").exists():
        (rig.tree / "folder/sub/moved").rename(rig.tree / "folder/inner")
        (rig.tree / "folder/sub").rmdir()
        (rig.tree / "made").unlink()
    assert listing(rig.tree, times=False) == before


def test_a_record_whose_launcher_lives_is_left_alone(rig: Rig) -> None:
    with rig.session() as tree:
        rig.repaired()
        assert names_session(tree)
        assert len(rig.records) == 1


def test_a_session_whose_processes_live_keeps_its_rights(rig: Rig, capsys: pytest.CaptureFixture[str]) -> None:
    """Else what it made after the repair would stay."""
    source = KILLED.format(change="", end="die()", base=str(rig.base), script="true", uid=UIDS.agent)
    subprocess.run(
        [sys.executable, "-I", "-c", textwrap.dedent(source)], input=msgspec.json.encode(rig.spec()), check=False
    )
    with subprocess.Popen(["/bin/cat"], stdin=subprocess.PIPE, user=UIDS.task, group=UIDS.task) as process:
        rig.repaired()
        assert "of which processes live" in capsys.readouterr().err
        assert names_session(rig.tree)
        process.communicate()
    rig.repaired()
    assert not names_session(rig.tree)
    assert rig.records == []


def secret_of(rig: Rig, uid: int) -> Path:
    """Give a file outside the tree that is `uid`'s and closed, in a place that everybody may enter."""
    outside = rig.place / f"of-{uid}"
    outside.mkdir()
    secret = outside / "secret"
    secret.write_text("secret\n")
    secret.chmod(0o600)
    os.chown(secret, uid, uid)
    return secret


@pytest.mark.parametrize("uid", [0, OWNER, UIDS.agent])
def test_links_planted_before_and_while_taking_back_lead_nowhere(
    rig: Rig, uid: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the place of what is to be restored, and of its directory, at the last moment; setfacl -R is the control."""
    secret = secret_of(rig, uid)
    before = listing(secret.parent)
    (rig.tree / "early").symlink_to(secret)
    (rig.tree / "early-folder").symlink_to(secret.parent)
    real = os.setxattr

    def swapped(inode: str, name: str, value: bytes) -> None:
        """Whatever path is about to be set leads, from the tree, to the secret."""
        for path in (rig.tree / "file", rig.tree / "folder" / "inner"):
            if not path.is_symlink() and not path.parent.is_symlink():
                path.rename(path.with_name("away"))
                path.symlink_to(secret)
        real(inode, name, value)

    with rig.session() as tree:
        does(f"ln -s {secret} late; mv setgid gone; ln -s {secret.parent} setgid", tree, UIDS.agent)
        monkeypatch.setattr(os, "setxattr", swapped)
    assert (rig.tree / "file").is_symlink()
    assert (rig.tree / "folder" / "inner").is_symlink()
    assert listing(secret.parent) == before
    assert not names_session(rig.tree)
    assert getfacl(rig.tree / "gone" / "inner") == "user::rw-\ngroup::r--\nother::r--\n\n"
    subprocess.run(["setfacl", "-m", f"u:{STRANGER}:r", rig.tree / "file"], check=True)
    assert listing(secret.parent) != before, "a link that is followed would have shown"


def test_what_was_renamed_linked_or_moved_out_keeps_no_entry(rig: Rig) -> None:
    """A search by path would miss them: each has entries right before the end, as the control."""
    outside = rig.place / "outside"
    outside.mkdir()
    outside.chmod(0o777)
    before = {name: getfacl(rig.tree / name) for name in ("file", "private", "inherits", "folder", "listed")}
    with rig.session() as tree:
        does(f"mv file renamed; mv folder/inner {outside}/inner; mv listed folder; mv folder moved", tree, UIDS.agent)
        does(f"mv private {outside}; echo > file", tree, UIDS.agent)
        (tree / "inherits").rename(outside / "inherits")  # a directory's owner alone can move it elsewhere
        now = {
            "file": tree / "renamed",
            "private": outside / "private",
            "inherits": outside / "inherits",
            "folder": tree / "moved",
            "listed": tree / "moved" / "listed",
        }
        for path in now.values():
            assert names_session(path), path
    assert {name: getfacl(path) for name, path in now.items()} == before
    assert not names_session(outside)
    owned_by_owner(rig.tree)


def test_a_hard_link_to_a_file_elsewhere_gets_no_entry(rig: Rig, capsys: pytest.CaptureFixture[str]) -> None:
    """To another user's, and to the owner's own; whatever fs.protected_hardlinks is, since root made the link here."""
    for uid in (STRANGER, OWNER):
        secret = secret_of(rig, uid)
        (rig.tree / f"hard-{uid}").hardlink_to(secret)
    shutil.copy2(rig.tree / "private", rig.tree / "control")
    rig.own(rig.tree / "control")
    before = listing(rig.tree)
    with rig.session() as tree:
        said = capsys.readouterr().err
        assert f"not shared with the session: {tree}/hard-{STRANGER}: another user's" in said
        assert f"not shared with the session: {tree}/hard-{OWNER}: linked more than once, elsewhere perhaps" in said
        for uid in (STRANGER, OWNER):
            refused(f'cat "$W/hard-{uid}"', tree, UIDS.agent)
        does("cat control", tree, UIDS.agent)
    assert listing(rig.tree) == before


def test_a_hard_link_that_the_session_makes_changes_nothing_elsewhere(rig: Rig) -> None:
    """As fs.protected_hardlinks is, and as the worst would have it: root makes what the agent would."""
    secret = secret_of(rig, STRANGER)
    before = os.stat(secret)
    with rig.session() as tree:
        attempt = acts(f'ln {secret} "$W/hard"', tree, UIDS.agent)
        protected = Path("/proc/sys/fs/protected_hardlinks").read_text().strip() == "1"
        assert (attempt.returncode != 0) == protected
        if protected:
            (tree / "hard").hardlink_to(secret)
    after = os.stat(secret)
    assert (after.st_uid, after.st_gid, after.st_mode) == (before.st_uid, before.st_gid, before.st_mode)
    assert getfacl(secret) == "user::rw-\ngroup::---\nother::---\n\n"


def test_what_its_owner_changes_meanwhile_stays_changed(rig: Rig) -> None:
    with rig.session() as tree:
        does(f"chmod 700 file; setfacl -m u:{STRANGER}:r private", tree, OWNER)
    assert os.stat(rig.tree / "file").st_mode & 0o7777 == 0o700
    assert f"user:{STRANGER}:r--" in getfacl(rig.tree / "private")
    assert not names_session(rig.tree)


def test_an_immutable_file_is_a_sentence_and_nothing_is_changed(rig: Rig) -> None:
    before = listing(rig.tree)
    subprocess.run(["chattr", "+i", rig.tree / "private"], check=True)
    try:
        with pytest.raises(ProcessError, match="cannot be shared: Operation not permitted; look at it, or set"):
            rig.session().__enter__()
    finally:
        subprocess.run(["chattr", "-i", rig.tree / "private"], check=True)
    assert listing(rig.tree) == before
    assert rig.records == []


def test_a_file_that_became_immutable_is_said_and_done_later(rig: Rig, capsys: pytest.CaptureFixture[str]) -> None:
    before = listing(rig.tree)
    try:
        with rig.session() as tree:
            subprocess.run(["chattr", "+i", tree / "private"], check=True)
        assert "not all rights of the session were taken back" in capsys.readouterr().err
        assert not names_session(rig.tree / "file")
        assert names_session(rig.tree / "private")
    finally:
        subprocess.run(["chattr", "-i", rig.tree / "private"], check=True)
    rig.repaired()
    assert listing(rig.tree) == before
    assert rig.records == []


def test_a_tree_that_was_replaced_is_not_taken_for_the_former_one(rig: Rig, capsys: pytest.CaptureFixture[str]) -> None:
    with rig.session() as tree:
        away = tree.rename(rig.place / "away")
        tree.mkdir()
        (tree / "of-agent").write_text("")
        os.chown(tree / "of-agent", UIDS.agent, UIDS.agent)
    assert f"{rig.tree} is another directory now; put the former one back" in capsys.readouterr().err
    assert os.stat(rig.tree / "of-agent").st_uid == UIDS.agent
    shutil.rmtree(rig.tree)
    away.rename(rig.tree)
    rig.repaired()
    assert not names_session(rig.tree)
    assert rig.records == []


def test_a_file_system_without_acls_is_a_sentence(rig: Rig) -> None:
    subprocess.run(["mount", "-t", "ramfs", "ramfs", rig.tree], check=True)
    try:
        os.chown(rig.tree, OWNER, OWNER)
        before = os.stat(rig.tree)
        with pytest.raises(ProcessError, match='has no ACLs or no file handles; set workspace_mode = "copy"'):
            rig.session().__enter__()
        assert os.stat(rig.tree) == before
    finally:
        subprocess.run(["umount", rig.tree], check=True)


def test_other_mounts_below_the_tree_get_no_entries(rig: Rig, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither another file system nor another directory of the same one."""
    secret = secret_of(rig, OWNER)
    for name in ("bound", "other"):
        (rig.tree / name).mkdir()
    subprocess.run(["mount", "--bind", secret.parent, rig.tree / "bound"], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", rig.tree / "other"], check=True)
    try:
        (rig.tree / "other" / "file").write_text("")
        rig.own(rig.tree / "other" / "file", rig.tree / "bound", rig.tree / "other")
        with rig.session() as tree:
            assert f"{tree}/bound: on another mount" in capsys.readouterr().err
            for path in (secret.parent, tree / "other"):
                assert not names_session(path)
            assert names_session(tree / "file")
    finally:
        subprocess.run(["umount", rig.tree / "bound", rig.tree / "other"], check=True)


def test_a_tree_of_roots_is_refused(rig: Rig) -> None:
    os.chown(rig.tree, 0, 0)
    before = listing(rig.tree)
    with pytest.raises(UsageError, match="is root's; chown it to a user"):
        rig.session().__enter__()
    assert listing(rig.tree) == before


def test_a_tree_that_the_agent_can_only_read_is_said(rig: Rig) -> None:
    """Once; and not where it can write, nor where an ACL decides."""
    spec = msgspec.structs.replace(rig.spec(), workspace_acl=False)
    for mode, acl, said in ((0o755, None, True), (0o777, None, False), (0o755, f"u:{UIDS.agent}:rwx", False)):
        rig.tree.chmod(mode)
        if acl:
            subprocess.run(["setfacl", "-m", acl, rig.tree], check=True)
        with workspace_of(spec, rig.base) as placed:
            placed.started = True
            assert (acts('echo > "$W/new"; rm "$W/new"', rig.tree, UIDS.agent).returncode != 0) == said
        sentence = f"the agent can only read {rig.tree}, which belongs to UID {OWNER}; for it to work there, set"
        assert placed.warning.startswith(sentence) == said


def words(rig: Rig, *command: str) -> list[str]:
    """Return what a person would type to run `command` in the tree, in a configuration with ACLs."""
    home = rig.place / "home"
    home.mkdir(mode=0o700, exist_ok=True)
    config = home / "config.toml"
    config.write_text("[session]\nworkspace_acl = true\n")
    options = ["--config", str(config), "--uid-base", str(UIDS.agent), "--workspace", str(rig.tree)]
    return [sys.executable, "-I", "-m", "codingagents.launcher", "run", *options, "--", "/bin/sh", "-ec", *command]


def completed(rig: Rig, *command: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        words(rig, *command),
        env={"HOME": str(rig.place / "home"), "PATH": os.environ["PATH"]},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done


def test_a_whole_session_with_the_real_agent(rig: Rig) -> None:
    before = listing(rig.tree, times=False)
    done = completed(rig, "cat private; echo agent > made; rm made; getfacl -n .")
    assert done.stdout.startswith("private\n")
    assert f"user:{UIDS.agent}:rwx" in done.stdout
    assert listing(rig.tree, times=False) == before


def test_the_run_after_a_whole_session_was_killed_puts_the_tree_right(rig: Rig) -> None:
    """The launcher is killed; what ran for it ends by itself, which the end of its output shows."""
    before = listing(rig.tree, times=False)
    with subprocess.Popen(
        words(rig, "echo agent > made; echo ready; exec cat"),
        env={"HOME": str(rig.place / "home"), "PATH": os.environ["PATH"]},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as launcher:
        assert launcher.stdout is not None
        assert launcher.stdout.readline() == b"ready\n"
        launcher.kill()
        assert launcher.stdout.read() == b""
    assert names_session(rig.tree)
    done = completed(rig, "rm made")
    assert f" was killed; {rig.tree} has the rights and owners it had before" in done.stderr
    assert listing(rig.tree, times=False) == before


def test_records_that_others_could_write_are_not_worked_off(rig: Rig) -> None:
    """They say which rights root sets where."""
    with rig.session() as tree:
        (record,) = rig.records
        kept = record.with_name("forged")
        shutil.copy(record, kept)
    before = listing(tree)
    kept.parent.chmod(0o777)
    with pytest.raises(ConfigError, match="has mode 0777; run: chmod 700"):
        rig.repaired()
    assert kept.exists()
    kept.parent.chmod(0o700)
    rig.repaired()
    assert not kept.exists()
    assert listing(tree) == before


@pytest.mark.parametrize("text", ["", "{}\n", "no record\n"])
def test_what_is_no_record_is_said_and_left(rig: Rig, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with rig.session():
        pass
    place = rig.base.with_name("workspace-records") / "other"
    place.write_text(text)
    rig.repaired()
    assert f"{place} is no record of a session's rights; look at it and delete it" in capsys.readouterr().err
    assert place.read_text() == text
