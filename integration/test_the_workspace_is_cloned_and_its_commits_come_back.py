"""A session's clone: what it has, what comes back, and that nothing which a hostile clone names runs as anybody.

Each role is a process with the UID, group and umask that it has in a session. The planted program writes its UID.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
import signal
import stat
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

import workspace_rig
from codingagents.launcher import workspace_clone
from codingagents.launcher.workspace_git import Acting, git
from codingagents.launcher.workspace_session import workspace_of
from codingagents.trust.errors import ProcessError, UsageError
from workspace_rig import OWNER, UIDS

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="other users' files need root")

SESSION = "20261124-clone"
BELOW = f"refs/heads/coding-agents/{SESSION}/"
SPEC = msgspec.structs.replace(workspace_rig.SPEC, session=SESSION, workspace="clone")
COMMIT = "git -c user.name=a -c user.email=a@example.org commit -q"


def acts(script: str, where: str | Path, uid: int, environment: dict[str, str] | None = None) -> str:
    """Run a shell script as a role does its work, and return its standard output."""
    done = subprocess.run(
        ["/bin/sh", "-ec", script],
        cwd=where,
        user=uid,
        group=uid,
        extra_groups=[UIDS.workspace_gid] if uid not in (0, OWNER) else [],
        umask=0o002,
        env=environment or {"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@dataclasses.dataclass(frozen=True)
class Rig:
    tree: Path
    base: Path  # of clones
    ran: Path  # where the planted program says as whom it ran
    planted: Path

    def session(self, inside: str = "") -> contextlib.AbstractContextManager[str]:
        return self._session(inside)

    @contextlib.contextmanager
    def _session(self, inside: str) -> Iterator[str]:
        """Give the directory of a session that started."""
        spec = msgspec.structs.replace(SPEC, working_directory=str(self.tree / inside))
        with workspace_of(spec, self.base) as placed:
            placed.started = True
            assert placed.spec.environment["GIT_CONFIG_VALUE_0"] == str(self.clone)
            yield placed.spec.working_directory

    @property
    def clone(self) -> Path:
        return self.base / SESSION / "project"

    def ran_as(self) -> list[str]:
        return sorted({line for path in self.ran.iterdir() for line in path.read_text().split()})

    def refs(self) -> dict[str, str]:
        lines = acts("git for-each-ref --format='%(refname) %(objectname)'", self.tree, OWNER).splitlines()
        return {line.split()[0]: line.split()[1] for line in lines}


@pytest.fixture
def rig() -> Iterator[Rig]:
    """Give a repository of a user of its own, in a place that everybody can reach."""
    place = Path("/var/tmp") / f"clone-{os.getpid()}"
    place.mkdir()
    place.chmod(0o755)
    rig = Rig(place / "project", place / "lib" / "workspaces", place / "ran", place / "planted")
    rig.ran.mkdir()
    rig.ran.chmod(0o777)
    rig.planted.write_text(f"#!/bin/sh\nid -u >> {rig.ran}/$(id -u)\n")
    rig.planted.chmod(0o755)
    rig.tree.mkdir()
    os.chown(rig.tree, OWNER, OWNER)
    acts(
        f"git init -q -b main; mkdir sub; echo one > file; echo two > sub/file; git add -A; {COMMIT} -m first", *at(rig)
    )
    yield rig
    shutil.rmtree(place)


def at(rig: Rig) -> tuple[Path, int]:
    return rig.tree, OWNER


def whole(rig: Rig) -> None:
    """The owner's repository is as git wants it, and all of it the owner's."""
    said = acts("git fsck --strict --no-dangling 2>&1", *at(rig)).splitlines()
    assert [line for line in said if not line.startswith("notice: ")] == []
    others = [path for path in [rig.tree, *rig.tree.rglob("*")] if os.lstat(path).st_uid != OWNER]
    assert others == []


def test_roles_commit_in_a_clone_and_the_owner_gets_branches(rig: Rig, capsys: pytest.CaptureFixture[str]) -> None:
    acts(
        "git branch other; echo changed > file; echo new > new; echo ignored > x.o; echo '*.o' > .git/info/exclude",
        *at(rig),
    )
    before = rig.refs()
    with rig.session() as clone:
        assert os.stat(clone).st_mode & 0o7777 == 0o2770
        assert not os.path.lexists(f"{clone}/.git/objects/info/alternates")
        assert not os.path.lexists(f"{clone}/.git/hooks")
        assert acts("cat file; git branch --show-current", clone, UIDS.agent).split() == ["one", "main"]
        environment = {"PATH": "/usr/bin:/bin", "GIT_CONFIG_COUNT": "1"}
        environment |= {"GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": clone}
        acts(f"echo agent > made; git add made; {COMMIT} -m agent", clone, UIDS.agent, environment)
        acts(f"git checkout -qb feature/x; echo task >> made; {COMMIT} -am task", clone, UIDS.task, environment)
        acts(f"echo server >> made; {COMMIT} -am server; echo left > left", clone, UIDS.servers["server"], environment)
    said = capsys.readouterr().err
    assert f"warning: not committed in {rig.tree}, so the clone does not have it: file, new\n" in said
    assert f"branches coding-agents/{SESSION}/feature/x, coding-agents/{SESSION}/main; look at it with: git log" in said
    assert f"is in {rig.clone}\n" in said
    after = rig.refs()
    assert {name: found for name, found in after.items() if not name.startswith(BELOW)} == before
    assert set(after) - set(before) == {f"{BELOW}main", f"{BELOW}feature/x"}
    log = acts(f"git log --format=%s main..coding-agents/{SESSION}/feature/x", *at(rig))
    assert log.split() == ["server", "task", "agent"]
    assert (rig.tree / "file").read_text() == "changed\n"
    whole(rig)
    assert (rig.clone / "left").read_text() == "left\n"
    for path in [rig.clone, *rig.clone.rglob("*")]:
        found = os.lstat(path)
        assert (found.st_uid, found.st_gid) == (OWNER, OWNER)
        assert not found.st_mode & (stat.S_ISUID | stat.S_ISGID)


def test_a_folder_of_a_repository_and_a_detached_head(rig: Rig, capsys: pytest.CaptureFixture[str]) -> None:
    acts("git checkout -q --detach", *at(rig))
    with rig.session("sub") as where:
        assert where == str(rig.clone / "sub")
        acts(f"echo more >> file; {COMMIT} -am more", where, UIDS.agent)
    assert f"branch coding-agents/{SESSION}/HEAD; look" in capsys.readouterr().err
    assert acts(f"git show --format= --name-only coding-agents/{SESSION}/HEAD", *at(rig)) == "sub/file\n"
    whole(rig)


def test_nothing_committed_changes_nothing(rig: Rig, capsys: pytest.CaptureFixture[str]) -> None:
    before = rig.refs()
    with rig.session() as clone:
        acts("echo left > left; git branch here", clone, UIDS.agent)
    assert f"the session committed nothing new; {rig.tree} is as it was\n" in capsys.readouterr().err
    assert rig.refs() == before
    assert (rig.clone / "left").exists()


@pytest.mark.parametrize(
    "setup", ["git init -q -b main", f"git init -q -b main --object-format=sha256; git add file; {COMMIT} -m first"]
)
def test_other_repositories_get_their_branch(rig: Rig, setup: str) -> None:
    """An empty one, and one with SHA-256."""
    shutil.rmtree(rig.tree / ".git")
    acts(setup, *at(rig))
    before = rig.refs()
    with rig.session() as clone:
        acts(f"echo > first; git add first; {COMMIT} -m first", clone, UIDS.agent)
    assert set(rig.refs()) - set(before) == {f"{BELOW}main"}
    whole(rig)


def refused(rig: Rig, inside: str = "") -> str:
    """Return the sentence that a session is refused with; it leaves nothing."""
    spec = msgspec.structs.replace(SPEC, working_directory=str(rig.tree / inside))
    with contextlib.ExitStack() as stack, pytest.raises((UsageError, ProcessError)) as caught:
        stack.enter_context(workspace_of(spec, rig.base))
    assert list(rig.base.iterdir()) == []
    return str(caught.value)


def test_what_cannot_be_cloned_is_said(rig: Rig) -> None:
    acts("mkdir uncommitted", *at(rig))
    assert f"no folder in the last commit of {rig.tree}; commit it, or name {rig.tree}" in refused(rig, "uncommitted")
    os.chown(rig.tree / ".git", 0, 0)  # a root's repository in a user's folder
    assert f"cannot be cloned: detected dubious ownership in repository at '{rig.tree}'; use" in refused(rig)
    shutil.rmtree(rig.tree / ".git")
    assert refused(rig).endswith('use workspace_mode = "copy" for what is no git repository of its owner')


def test_a_session_that_did_not_start_leaves_nothing(rig: Rig) -> None:
    before = rig.refs()
    with workspace_of(msgspec.structs.replace(SPEC, working_directory=str(rig.tree)), rig.base) as placed:
        assert os.path.exists(f"{placed.spec.working_directory}/file")
    assert list(rig.base.iterdir()) == []
    assert rig.refs() == before


def test_submodules_are_not_cloned_and_said(rig: Rig, capsys: pytest.CaptureFixture[str]) -> None:
    module = rig.tree.parent / "module"
    shutil.copytree(rig.tree, module)
    subprocess.run(["chown", "-R", f"{OWNER}:{OWNER}", str(module)], check=True)
    add = f"git -c protocol.file.allow=always submodule --quiet add file://{module} module; {COMMIT} -m module"
    acts(add, *at(rig))
    with rig.session() as clone:
        assert os.listdir(f"{clone}/module") == []
    assert f"the submodules of {rig.tree} are not cloned" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_cloning_leaves_nothing(rig: Rig, number: signal.Signals) -> None:
    """It comes from inside, when the clone is there, so that it comes neither too early nor too late."""
    script = f"""
        import os, msgspec
        from pathlib import Path
        from codingagents.launcher import workspace_clone, workspace_session
        from codingagents.rewrite.specs import SessionSpec
        share = workspace_clone._share
        def stopped(path, uids, acting):
            assert os.path.exists(path + "/.git/HEAD")
            os.kill(os.getpid(), {int(number)})
            share(path, uids, acting)
        workspace_clone._share = stopped
        spec = msgspec.json.decode(open(0).read(), type=SessionSpec)
        with workspace_session.workspace_of(spec, Path({str(rig.base)!r})):
            print("cloned")
    """
    done = subprocess.run(
        [sys.executable, "-I", "-c", textwrap.dedent(script)],
        input=msgspec.json.encode(msgspec.structs.replace(SPEC, working_directory=str(rig.tree))),
        capture_output=True,
        check=False,
    )
    assert (done.stdout, list(rig.base.iterdir())) == (b"", []), done.stderr
    assert done.returncode in (128 + number, -number)


def hostile_config(rig: Rig) -> str:
    """Return the script that plants the program wherever git's configuration lets a program be named."""
    keys = [
        *("core.fsmonitor", "core.sshCommand", "core.alternateRefsCommand", "core.pager", "core.editor"),
        *("uploadpack.packObjectsHook", "filter.evil.clean", "filter.evil.smudge", "filter.evil.process"),
        *("diff.external", "diff.evil.textconv", "credential.helper", "gpg.program", "pager.show-ref"),
        *("core.gitProxy", "core.askPass", "alias.show-ref", "alias.pack-objects", "trace2.eventTarget"),
    ]
    plant = "".join(f"git config --file {{0}} {key} {rig.planted}\n" for key in keys)
    hooks = "post-checkout reference-transaction post-index-change pre-auto-gc fsmonitor-watchman pre-push update"
    return (
        plant.format(".git/included")
        + plant.format(".git/config")
        + "git config --file .git/config include.path included; git config --file .git/config core.hooksPath .git/h\n"
        + f"mkdir -p .git/h .git/hooks; for hook in {hooks}; do "
        + f"cp {rig.planted} .git/h; cp {rig.planted} .git/h/$hook; "
        + f"cp {rig.planted} .git/hooks/$hook; done; echo '* filter=evil diff=evil' > .gitattributes\n"
    )


def test_nothing_that_a_hostile_configuration_names_runs(rig: Rig) -> None:
    """The control: the owner's own `git status` in the clone does run it, as the owner."""
    before = rig.refs()
    with rig.session() as clone:
        acts(f"echo agent > made; git add made; {COMMIT} -m agent", clone, UIDS.agent)
        acts(hostile_config(rig), clone, UIDS.agent)
    assert rig.ran_as() == []
    assert set(rig.refs()) - set(before) == {f"{BELOW}main"}
    whole(rig)
    acts("git status || true", rig.clone, OWNER)
    assert rig.ran_as() == [str(OWNER)]


def test_a_missing_object_fetches_nothing(rig: Rig, capsys: pytest.CaptureFixture[str]) -> None:
    """The control: git without our bounds asks for it by the transport that the clone names, which is a program."""
    before = rig.refs()
    with rig.session() as clone:
        acts(f"echo agent > made; git add made; {COMMIT} -m agent", clone, UIDS.agent)
        lost = acts("git rev-parse HEAD:made", clone, UIDS.agent).strip()
        acts(
            f"rm -f .git/objects/{lost[:2]}/{lost[2:]}; git config extensions.partialClone evil; "
            "git config core.repositoryFormatVersion 1; git config remote.evil.promisor true; "
            f"git config remote.evil.url 'ext::{rig.planted}'; git config protocol.ext.allow always",
            clone,
            UIDS.agent,
        )
    assert rig.ran_as() == []
    assert f"cannot be taken into {rig.tree}: " in capsys.readouterr().err
    assert rig.refs() == before
    whole(rig)
    acts(f"git cat-file -p {lost} || true", rig.clone, OWNER)
    assert rig.ran_as() == [str(OWNER)]


def test_git_has_no_room_for_a_second_process(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even if its configuration were obeyed: the same alias runs where the bound is lifted, as the control."""
    with rig.session() as clone:
        acts(f"git config alias.evil '!{rig.planted}'", clone, UIDS.agent)
        words = (f"--git-dir={clone}/.git", "evil")
        acting = Acting(uid=UIDS.agent, gid=UIDS.agent, groups=(UIDS.workspace_gid,))
        done = git(acting, words, bounds=workspace_clone._ALONE)
        assert done.code != 0
        assert rig.ran_as() == []
        free = dataclasses.replace(workspace_clone._ALONE, processes=None)
        assert git(acting, words, bounds=free).code == 0
        assert rig.ran_as() == [str(UIDS.agent)]


def secret_repository(rig: Rig) -> tuple[Path, str]:
    """Give a repository that only root can read, and its commit."""
    secret = rig.tree.parent / "secret"
    secret.mkdir(mode=0o700)
    acts(f"git init -q -b secret; echo secret > secret; git add secret; {COMMIT} -m secret", secret, 0)
    return secret, acts("git rev-parse HEAD", secret, 0).strip()


STOLEN = "echo {commit} > .git/refs/heads/stolen"


@pytest.mark.parametrize(
    "attack",
    [
        "mkdir -p .git/objects/info; echo {secret}/.git/objects > .git/objects/info/alternates; " + STOLEN,
        "rm -rf .git; ln -s {secret}/.git .git",
        "rm -rf .git; echo 'gitdir: {secret}/.git' > .git",
        "rm -rf .git/objects; ln -s {secret}/.git/objects .git/objects; " + STOLEN,
        "rm -rf .git/refs .git/packed-refs; ln -s {secret}/.git/refs .git/refs",
        "echo {secret}/.git > .git/commondir",
    ],
    ids=["alternates", "link", "gitfile", "objects", "refs", "commondir"],
)
def test_nothing_is_read_with_more_than_the_agents_rights(
    rig: Rig, attack: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The control: root's own git, told to look there, finds the secret through the clone."""
    secret, commit = secret_repository(rig)
    before = rig.refs()
    with rig.session() as clone:
        acts(f"echo agent > made; git add made; {COMMIT} -m agent", clone, UIDS.agent)
        acts(attack.format(secret=secret, commit=commit), clone, UIDS.agent)
    said = capsys.readouterr().err
    assert "cannot be taken into" in said or "committed nothing new" in said
    assert rig.refs() == before
    assert commit not in acts("git cat-file --batch-all-objects --batch-check", *at(rig))
    whole(rig)
    looks, finds = (
        ("rev-parse refs/heads/secret", commit) if "/refs .git/refs" in attack else (f"cat-file -p {commit}", "secret")
    )
    assert finds in acts(f"git -c safe.directory='*' {looks}", rig.clone, 0)


@pytest.mark.parametrize(
    "name",
    ["../main", "../../HEAD", "--upload-pack=x", "-x", "a..b", "a.lock", "a b", "@{x", "x/../../../config"],
)
def test_names_of_branches_lead_nowhere_else(rig: Rig, name: str) -> None:
    """Written as git would not: loose where that is a path, and packed. Whatever git lists, only ours are made."""
    before, configured = rig.refs(), (rig.tree / ".git/config").read_text()
    with rig.session() as clone:
        acts(f"echo agent > made; git add made; {COMMIT} -m agent", clone, UIDS.agent)
        commit = acts("git rev-parse HEAD", clone, UIDS.agent).strip()
        acts(f"echo '{commit} refs/heads/{name}' >> .git/packed-refs", clone, UIDS.agent)
        if ".." not in name:
            acts(f"echo {commit} > '.git/refs/heads/{name}'", clone, UIDS.agent)
    after = rig.refs()
    assert {each: found for each, found in after.items() if not each.startswith(BELOW)} == before
    assert set(after) - set(before) <= {f"{BELOW}main", f"{BELOW}HEAD"}
    assert (rig.tree / ".git/config").read_text() == configured
    assert (rig.tree / ".git/HEAD").read_text() == "ref: refs/heads/main\n"
    whole(rig)


def test_objects_that_would_write_to_dot_git_are_refused(rig: Rig, capsys: pytest.CaptureFixture[str]) -> None:
    """The control: a plain `git fetch` of the clone takes them."""
    before = rig.refs()
    with rig.session() as clone:
        blob = acts("echo evil | git hash-object -w --stdin", clone, UIDS.agent).strip()
        entry = f"{bytes.fromhex(blob)!r}"[2:-1]
        inner = subprocess.run(
            [sys.executable, "-c", f"import sys; sys.stdout.buffer.write(b'100644 config\\0' + b'''{entry}''')"],
            capture_output=True,
            check=True,
        ).stdout
        (Path(clone) / "raw").write_bytes(inner)
        os.chmod(Path(clone) / "raw", 0o666)
        tree = acts("git hash-object -t tree -w --literally raw", clone, UIDS.agent).strip()
        (Path(clone) / "raw").write_bytes(b"40000 .git\0" + bytes.fromhex(tree))
        top = acts("git hash-object -t tree -w --literally raw", clone, UIDS.agent).strip()
        identity = "git -c user.name=a -c user.email=a@example.org"
        acts(f"git update-ref refs/heads/evil $({identity} commit-tree -m evil {top})", clone, UIDS.agent)
    assert "git refuses the pack: " in capsys.readouterr().err
    assert rig.refs() == before
    whole(rig)
    acts(f"git fetch -q {rig.clone} evil:taken", *at(rig))
    assert "refs/heads/taken" in rig.refs()


def test_a_clone_that_hangs_git_is_given_up(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(workspace_clone, "_ALONE", dataclasses.replace(workspace_clone._ALONE, seconds=0.5))
    with rig.session() as clone:
        acts("rm -f .git/packed-refs; mkfifo .git/packed-refs", clone, UIDS.agent)
    assert f"cannot be taken into {rig.tree}: git took more than" in capsys.readouterr().err
    assert os.stat(rig.clone).st_uid == OWNER


def test_a_pack_that_is_too_big_is_not_taken(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small = dataclasses.replace(workspace_clone._PACKING, written_bytes=1024 * 1024)
    monkeypatch.setattr(workspace_clone, "_PACKING", small)
    before = rig.refs()
    with rig.session() as clone:
        acts(f"head -c 2000000 /dev/urandom > big; git add big; {COMMIT} -m big", clone, UIDS.agent)
    assert f"cannot be taken into {rig.tree}: git cannot pack it" in capsys.readouterr().err
    assert rig.refs() == before
    assert (rig.clone / "big").stat().st_size == 2_000_000


def test_a_whole_session_brings_its_commits_back(rig: Rig) -> None:
    """With the real agent's confinement, after which the launcher's PID namespace for children has ended."""
    home = rig.tree.parent / "home"
    home.mkdir(mode=0o700)
    config = home / "config.toml"
    config.write_text('[session]\nworkspace_mode = "clone"\n')
    done = subprocess.run(
        [
            *(sys.executable, "-I", "-m", "codingagents.launcher", "run", "--config", str(config)),
            *("--workspace", str(rig.tree), "--uid-base", str(UIDS.agent), "--"),
            *("/bin/sh", "-ec", f"pwd; echo agent > made; git add made; {COMMIT} -m agent; exit 7"),
        ],
        env={"HOME": str(home), "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 7, done.stderr
    clone = Path(done.stdout.strip())
    (branch,) = [name for name in rig.refs() if "coding-agents" in name]
    assert branch == f"refs/heads/coding-agents/{clone.parent.name}/main"
    assert f"branch {branch.removeprefix('refs/heads/')}; look at it with: git log" in done.stderr
    whole(rig)
    assert os.stat(clone / "made").st_uid == OWNER
    shutil.rmtree(clone.parent)


def test_roots_own_repository_is_cloned_too(rig: Rig) -> None:
    """It belongs to root before and after, and what was packed was packed by the agent."""
    subprocess.run(["chown", "-R", "0:0", str(rig.tree)], check=True)
    with rig.session() as clone:
        acts(f"echo agent > made; git add made; {COMMIT} -m agent", clone, UIDS.agent)
        acts(hostile_config(rig), clone, UIDS.agent)
    assert rig.ran_as() == []
    assert f"{BELOW}main" in acts("git for-each-ref; git fsck --strict", rig.tree, 0)
    assert {os.lstat(path).st_uid for path in [rig.tree, *rig.tree.rglob("*")]} == {0}


def test_nothing_that_an_earlier_session_left_in_the_tree_runs(rig: Rig) -> None:
    """Neither as it is cloned and compared nor as it takes commits; the control: the owner's `git status` there."""
    acts(hostile_config(rig), *at(rig))
    before = rig.refs()
    with rig.session() as clone:
        acts(f"echo agent > made; git add made; {COMMIT} -m agent", clone, UIDS.agent)
    assert set(rig.refs()) - set(before) == {f"{BELOW}main"}
    assert rig.ran_as() == []
    acts("git status || true", *at(rig))
    assert rig.ran_as() == [str(OWNER)]


def test_a_branch_in_the_way_is_said_and_nothing_lost(rig: Rig, capsys: pytest.CaptureFixture[str]) -> None:
    acts("git branch coding-agents", *at(rig))
    before = rig.refs()
    with rig.session() as clone:
        acts(f"echo agent > made; git add made; {COMMIT} -m agent", clone, UIDS.agent)
    said = capsys.readouterr().err
    assert f"cannot be taken into {rig.tree}: git cannot make its branches: " in said
    assert f"'refs/heads/coding-agents' exists; cannot create '{BELOW}main'; it is in {rig.clone}\n" in said
    assert rig.refs() == before
    assert acts("git log -1 --format=%s", rig.clone, OWNER) == "agent\n"
