"""What a session, or others, can do to a tree that is shared by ACL while its rights are given and taken back.

Links, moves, mounts, replaced trees and forged records: nothing outside gets an entry or an owner by it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import msgspec
import pytest

from codingagents.launcher.workspace_session import workspace_of
from codingagents.trust.errors import ConfigError, ProcessError, UsageError
from shared_tree_rig import STRANGER, Rig, acts, does, getfacl, listing, names_session, owned_by_owner, refused
from workspace_rig import OWNER, UIDS

pytest_plugins = ("shared_tree_fixtures",)  # rig

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="other users' files need root")


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
