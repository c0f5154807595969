"""Where a session works: agent, task and a server's user together in a copy, and whose everything is afterwards.

Each role is a process with the UID, group and umask that it has in a session.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import resource
import shutil
import signal
import socket
import stat
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import pytest

from codingagents.launcher import workspace_copy, workspace_owner
from codingagents.launcher.workspace_owner import GivingBack
from codingagents.launcher.workspace_session import workspace_of
from codingagents.rewrite.specs import SessionSpec
from codingagents.trust.errors import ProcessError, UsageError
from workspace_rig import OWNER, SPEC, UIDS

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="other users' files need root")


@dataclasses.dataclass(frozen=True)
class Rig:
    tree: Path
    base: Path  # of copies

    def spec(self, mode: str) -> SessionSpec:
        return msgspec.structs.replace(SPEC, workspace=mode, working_directory=str(self.tree))

    def owned(self) -> None:
        subprocess.run(["chown", "-hR", f"{OWNER}:{OWNER}", str(self.tree)], check=True)


@pytest.fixture
def rig() -> Iterator[Rig]:
    """Give a tree of a user of its own, in a place that everybody can reach."""
    place = Path("/var/tmp") / f"workspace-{os.getpid()}"
    place.mkdir()
    place.chmod(0o755)
    rig = Rig(place / "project", place / "lib" / "workspaces")
    rig.tree.mkdir()
    (rig.tree / "file").write_text("as it was\n")
    (rig.tree / "private").write_text("the owner's\n")
    (rig.tree / "private").chmod(0o600)
    rig.owned()
    yield rig
    shutil.rmtree(place)


def acts(
    script: str, where: str, uid: int, *, group: bool = True, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a shell script as a role does its work."""
    return subprocess.run(
        ["/bin/sh", "-ec", script],
        cwd="/" if not group else where,
        user=uid,
        group=uid,
        extra_groups=[UIDS.workspace_gid] if group else [],
        umask=0o002,
        env=environment or {"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )


def does(script: str, where: str, uid: int, environment: dict[str, str] | None = None) -> str:
    done = acts(script, where, uid, environment=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def snapshot(tree: Path) -> list[tuple[str, int, int, int, int]]:
    found = [(path, os.lstat(path)) for path in sorted([tree, *tree.rglob("*")])]
    return [(str(path), each.st_mode, each.st_uid, each.st_gid, each.st_mtime_ns) for path, each in found]


def test_agent_task_and_a_server_work_on_each_others_files_in_a_copy(rig: Rig) -> None:
    """And nobody outside the group does: a server without it, as the control."""
    before = snapshot(rig.tree)
    with workspace_of(rig.spec("copy"), rig.base) as placed:
        placed.started = True
        copy = placed.spec.working_directory
        assert os.stat(copy).st_mode & 0o7777 == 0o2770
        does("cat private; mkdir made; echo agent > made/note; echo more >> file", copy, UIDS.agent)
        does("echo task >> made/note; echo task > made/other; rm private", copy, UIDS.task)
        does("echo server >> made/other", copy, UIDS.servers["server"])
        assert does("cat made/note made/other", copy, UIDS.agent) == "agent\ntask\ntask\nserver\n"
        made = os.stat(f"{copy}/made")
        assert (made.st_uid, made.st_gid, made.st_mode & 0o7777) == (UIDS.agent, UIDS.workspace_gid, 0o2775)
        assert os.stat(f"{copy}/made/other").st_mode & 0o777 == 0o664
        stranger = acts(f"cat {copy}/file", copy, UIDS.servers["server"], group=False)
        assert stranger.returncode != 0
        assert "Permission denied" in stranger.stderr
        assert acts(f"ls {rig.base}/test", copy, UIDS.agent).returncode != 0, "roles can list who works there"
    assert snapshot(rig.tree) == before
    left = sorted(Path(copy).rglob("*"))
    assert {path.name for path in left} == {"file", "made", "note", "other"}
    for path in [Path(copy), *left]:
        found = os.lstat(path)
        assert (found.st_uid, found.st_gid) == (OWNER, OWNER)
        assert not found.st_mode & (stat.S_ISUID | stat.S_ISGID | stat.S_IWGRP)
    assert os.stat(copy).st_mode & 0o7777 == 0o755


@pytest.mark.parametrize("role", [UIDS.agent, UIDS.task])
def test_git_works_in_a_copy_for_every_role(rig: Rig, role: int) -> None:
    """Without our environment git refuses the task, whose files they are not: the control."""
    setup = "git init -q . && git add -A && git -c user.name=o -c user.email=o@example.org commit -qm first"
    does(setup, str(rig.tree), OWNER)
    with workspace_of(rig.spec("copy"), rig.base) as placed:
        placed.started = True
        copy, environment = placed.spec.working_directory, dict(placed.spec.environment)
        for each, text in ((UIDS.agent, "one"), (UIDS.task, "two"), (role, "three")):
            commit = f"echo {text} >> file; git -c user.name=a -c user.email=a@example.org commit -qam {text}"
            does(commit, copy, each, environment)
        assert does("git log --format=%s", copy, role, environment).split() == ["three", "two", "one", "first"]
        assert "dubious ownership" in acts("git log", copy, UIDS.task).stderr


def test_what_a_copy_leaves_out(rig: Rig, capsys: pytest.CaptureFixture[str]) -> None:
    """Links lead nowhere new, a hard link is a file of its own, and what only root may read stays root's."""
    secret = rig.tree.parent / "secret"
    secret.write_text("root's\n")
    secret.chmod(0o600)
    (rig.tree / "link").symlink_to(secret)
    (rig.tree / "folder").symlink_to(rig.tree.parent)
    os.mkfifo(rig.tree / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(rig.tree / "socket"))
    os.mknod(rig.tree / "device", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    (rig.tree / "setuid").write_text("")
    (rig.tree / "twin").hardlink_to(rig.tree / "file")
    rig.owned()
    (rig.tree / "setuid").chmod(0o6755)
    (rig.tree / "hard").hardlink_to(secret)
    with workspace_of(rig.spec("copy"), rig.base) as placed:
        copy = Path(placed.spec.working_directory)
        assert sorted(path.name for path in copy.iterdir()) == [
            *("file", "folder", "link", "private", "setuid", "twin"),
        ]
        assert os.readlink(copy / "link") == str(secret)
        assert os.lstat(copy / "file").st_nlink == 1
        assert os.stat(copy / "setuid").st_mode & 0o7777 == 0o775
        said = capsys.readouterr().err
    for name in ("fifo", "socket", "device"):
        assert f"left out of the copy: {name}: neither file, directory nor symbolic link" in said
    assert "left out of the copy: hard: another user's, and closed to others" in said
    assert os.stat(secret).st_uid == 0
    assert not (rig.base / "test").exists(), "a session that did not start leaves its copy"


def test_holes_and_bytes_are_copied(rig: Rig) -> None:
    with open(rig.tree / "sparse", "wb") as file:
        file.write(b"begin")
        file.seek(64 * 1024 * 1024)
        file.write(b"middle")
        file.truncate(256 * 1024 * 1024)
    rig.owned()
    with workspace_of(rig.spec("copy"), rig.base) as placed:
        copy = Path(placed.spec.working_directory) / "sparse"
        subprocess.run(["cmp", str(copy), str(rig.tree / "sparse")], check=True)
        assert os.stat(copy).st_blocks * 512 < 1024 * 1024


def test_a_tree_that_is_too_big_is_not_copied(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workspace_copy, "MAX_ENTRIES", 1)
    with pytest.raises(ProcessError, match=r"has more than 1 entries; name a smaller one$"):
        contextlib.ExitStack().enter_context(workspace_of(rig.spec("copy"), rig.base))
    assert list(rig.base.iterdir()) == []


def test_a_full_disk_is_a_sentence_and_leaves_nothing(rig: Rig) -> None:
    rig.base.parent.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,mode=0711", "tmpfs", str(rig.base.parent)], check=True)
    try:
        (rig.tree / "big").write_bytes(os.urandom(2 * 1024 * 1024))
        with pytest.raises(ProcessError, match=f"cannot be copied to .*: {os.strerror(errno.ENOSPC)}; make room there"):
            contextlib.ExitStack().enter_context(workspace_of(rig.spec("copy"), rig.base))
        assert list(rig.base.iterdir()) == []
        (rig.tree / "big").unlink()
        with workspace_of(rig.spec("copy"), rig.base):
            pass
    finally:
        subprocess.run(["umount", str(rig.base.parent)], check=True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_copying_leaves_nothing(rig: Rig, number: signal.Signals) -> None:
    """It comes from inside the copy, so that it cannot come too late."""
    script = f"""
        import os, signal, msgspec
        from pathlib import Path
        from codingagents.launcher import workspace_copy, workspace_session
        from codingagents.rewrite.specs import SessionSpec
        finish = workspace_copy.TreeCopy._finish
        def stopped(self, made, found):
            finish(self, made, found)
            assert list(Path({str(rig.base)!r}).rglob("file")) or list(Path({str(rig.base)!r}).rglob("private"))
            os.kill(os.getpid(), {int(number)})
        workspace_copy.TreeCopy._finish = stopped
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        spec = msgspec.json.decode(open(0).read(), type=SessionSpec)
        with workspace_session.workspace_of(spec, Path({str(rig.base)!r})):
            print("copied")
    """
    done = subprocess.run(
        [sys.executable, "-I", "-c", textwrap.dedent(script)],
        input=msgspec.json.encode(rig.spec("copy")),
        capture_output=True,
        check=False,
    )
    assert done.stdout == b"", done.stderr
    assert done.returncode in (128 + number, -number)
    assert list(rig.base.iterdir()) == []


def test_a_place_that_is_there_already_is_nobodys_to_delete(rig: Rig) -> None:
    """It may hold another session's work."""
    with workspace_of(rig.spec("copy"), rig.base) as placed:
        placed.started = True
    with pytest.raises(ProcessError, match="File exists"):
        contextlib.ExitStack().enter_context(workspace_of(rig.spec("copy"), rig.base))
    assert (rig.base / "test" / "project" / "file").read_text() == "as it was\n"


def test_a_tree_that_holds_the_place_of_copies_is_refused(rig: Rig) -> None:
    spec = msgspec.structs.replace(rig.spec("copy"), working_directory=str(rig.tree.parent))
    with pytest.raises(UsageError, match=r"where copies are made; name a smaller one$"):
        contextlib.ExitStack().enter_context(workspace_of(spec, rig.base))
    assert not rig.base.parent.exists()


@pytest.mark.parametrize("spoil", ["writable", "owned", "link"])
def test_a_place_that_somebody_else_may_change_is_refused(rig: Rig, spoil: str) -> None:
    rig.base.parent.mkdir()
    rig.base.parent.chmod(0o711)
    if spoil == "link":
        (rig.base.parent / "elsewhere").mkdir()
        rig.base.symlink_to("elsewhere")
    else:
        rig.base.mkdir()
        rig.base.chmod(0o777 if spoil == "writable" else 0o711)
        os.chown(rig.base, OWNER if spoil == "owned" else 0, 0)
    with pytest.raises(ProcessError, match="must be a directory that only root can change"):
        contextlib.ExitStack().enter_context(workspace_of(rig.spec("copy"), rig.base))


def test_what_a_session_makes_in_the_tree_itself_is_given_to_its_owner(rig: Rig) -> None:
    """By whatever role, without setuid; what others made there, and what links lead to, stays as it is."""
    os.chmod(rig.tree, 0o777)
    outside = rig.tree.parent / "outside"
    outside.mkdir()
    for path, uid in ((outside / "of-root", 0), (outside / "of-agent", UIDS.agent), (rig.tree / "of-another", 58999)):
        path.write_text("")
        os.chown(path, uid, uid)
    with workspace_of(rig.spec("direct"), rig.base) as placed:
        placed.started = True
        where = placed.spec.working_directory
        assert where == str(rig.tree)
        does(
            f"mkdir -p a/b; cp /bin/true a/b/suid; chmod 6755 a/b/suid; ln -s {outside}/of-root a/link; "
            f"ln -s {outside} a/folder; mkfifo a/fifo",
            where,
            UIDS.agent,
        )
        does("echo > by-task", where, UIDS.task)
        assert os.stat(f"{where}/a/b/suid").st_mode & stat.S_ISUID
    for name in ("a", "a/b", "a/b/suid", "a/link", "a/folder", "a/fifo", "by-task"):
        found = os.lstat(rig.tree / name)
        assert (found.st_uid, found.st_gid) == (OWNER, OWNER), name
    assert os.stat(rig.tree / "a/b/suid").st_mode & 0o7777 == 0o755
    owners = [os.stat(path).st_uid for path in (outside / "of-root", outside / "of-agent", rig.tree / "of-another")]
    assert owners == [0, UIDS.agent, 58999]


def test_a_walk_that_followed_links_would_reach_outside(rig: Rig) -> None:
    """The control of the test above: chown -R without -h and with -L does what GivingBack must not."""
    outside = rig.tree.parent / "outside"
    outside.mkdir()
    target = outside / "of-agent"
    target.write_text("")
    os.chown(target, UIDS.agent, UIDS.agent)
    (rig.tree / "folder").symlink_to(outside)
    os.lchown(rig.tree / "folder", UIDS.agent, UIDS.agent)
    GivingBack(path=str(rig.tree), made_by=[UIDS.agent], uid=OWNER, gid=OWNER).run()
    assert os.stat(target).st_uid == UIDS.agent
    subprocess.run(["chown", "-LR", f"--from={UIDS.agent}", str(OWNER), str(rig.tree)], check=True)
    assert os.stat(target).st_uid == OWNER


def test_a_tree_without_end_ends(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Deeper than descriptors or Python's stack would last, as an agent can make it."""
    monkeypatch.setattr(workspace_owner, "MAX_DEPTH", 64)
    deep = rig.tree
    directory = os.open(deep, os.O_RDONLY)
    for _ in range(2000):
        os.mkdir("d", dir_fd=directory)
        below = os.open("d", os.O_RDONLY, dir_fd=directory)
        os.close(directory)
        directory = below
    os.close(directory)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, hard))
    try:
        giving = GivingBack(path=str(rig.tree), made_by=[UIDS.agent], uid=OWNER, gid=OWNER)
        giving.run()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        subprocess.run(["rm", "-rf", str(rig.tree / "d")], check=True)
    assert giving.unseen == 1


def words(*arguments: object) -> Sequence[str]:
    return [sys.executable, "-I", "-m", "codingagents.launcher", *map(str, arguments)]


@pytest.mark.parametrize("mode", ["copy", "direct"])
def test_a_whole_session_leaves_its_work_to_the_owner(rig: Rig, mode: str) -> None:
    """With the real agent's confinement, and what the launcher says at the end."""
    os.chmod(rig.tree, 0o777)
    home = rig.tree.parent / "home"
    home.mkdir(mode=0o700)
    config = home / "config.toml"
    config.write_text(f'[session]\nworkspace_mode = "{mode}"\n')
    command = ["/bin/sh", "-ec", "umask; id -G; pwd; echo agent > made; echo $GIT_CONFIG_VALUE_0"]
    done = subprocess.run(
        [*words("run", "--config", config, "--workspace", rig.tree, "--uid-base", UIDS.agent), "--", *command],
        env={"HOME": str(home), "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    umask, groups, where, safe = done.stdout.split("\n")[:4]
    assert (umask, str(UIDS.workspace_gid) in groups.split(), safe) == ("0002", True, where)
    found = os.stat(f"{where}/made")
    assert (found.st_uid, found.st_gid) == (OWNER, OWNER)
    if mode == "copy":
        assert f"what the session made of {rig.tree} is in {where}; {rig.tree} is as it was" in done.stderr
        assert not (rig.tree / "made").exists()
        shutil.rmtree(Path(where).parent)
    else:
        assert where == str(rig.tree)
