"""A session's rights in a tree by ACL: who has them while it lasts, and that the tree is afterwards what it was.

Each role is a process with the UID, groups and umask that it has in a session.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap

import msgspec
import pytest

from codingagents.launcher.workspace_acl import parse, to_bytes
from shared_tree_rig import STRANGER, Rig, does, getfacl, listing, names_session, owned_by_owner, refused
from workspace_rig import OWNER, UIDS

pytest_plugins = ("shared_tree_fixtures",)  # rig

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="other users' files need root")


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
