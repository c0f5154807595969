"""SHELL: a session's clone of the repository that its workspace lies in, and how what was committed comes out of it.

In: git as the tree's owner, from a repository of the owner's. Out: the clone is a stranger's by then, so git looks at
it as the agent only, without room for a second process, whatever its configuration names; what it gives is a list of
branches that `workspace_branches` checks, and a pack. That pack goes to git as the owner, which checks every object.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from codingagents.launcher.terminal import say, say_briefly
from codingagents.launcher.workspace_branches import (
    closing_sentence,
    creations,
    new_branches,
    parse_refs,
    wanted_objects,
)
from codingagents.launcher.workspace_git import Acting, Bounds, Done, git, leave_dead_namespace, owner_acting
from codingagents.launcher.workspace_owner import GivingBack
from codingagents.launcher.workspace_rules import place_name, shared_mode
from codingagents.rewrite.specs import UidPlan
from codingagents.trust.errors import ProcessError, UsageError

MAX_PACK_BYTES = 2 * 1024**3
_LIST_BYTES = 64 * 1024**2
_MEMORY_BYTES = 4 * 1024**3
_SECONDS = 600.0  # for each step at the end, when nobody can interrupt it
_LIST_SECONDS = 60.0

_ALONE = Bounds(written_bytes=_LIST_BYTES, memory_bytes=_MEMORY_BYTES, processes=1, seconds=_LIST_SECONDS)
_PACKING = Bounds(written_bytes=MAX_PACK_BYTES, memory_bytes=_MEMORY_BYTES, processes=1, seconds=_SECONDS)
_TAKING = Bounds(written_bytes=2 * MAX_PACK_BYTES, memory_bytes=_MEMORY_BYTES, seconds=_SECONDS)
_MAKING = Bounds()


@dataclass(frozen=True, slots=True, kw_only=True)
class Clone:
    """A clone at `path` of the repository whose top is `top`; `known` is all that its references led to at first."""

    top: str
    path: str
    working_directory: str
    owner: Acting
    agent: Acting
    known: frozenset[str]

    def take_over(self, session: str) -> None:
        """Take what was committed into the owner's repository, below the session's prefix, and say so; or say why not.

        To be called when no process of the session lives any more.
        """
        try:
            leave_dead_namespace()
            new = new_branches(parse_refs(self._listed()), self.known)
            if not new:
                say_briefly(f"the session committed nothing new; {self.top} is as it was")
                return
            with tempfile.TemporaryFile(dir=os.path.dirname(self.path)) as pack:
                self._pack(new, pack)
                pack.seek(0)
                self._unpack(pack)
            self._create(new, session)
        except (ProcessError, OSError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            say_briefly(
                f"warning: what the session committed cannot be taken into {self.top}: {why}; it is in {self.path}"
            )
            return
        say_briefly(closing_sentence(self.top, session, new))

    def _listed(self) -> bytes:
        return _show_refs(self.agent, self.path, _ALONE)

    def _pack(self, new: Mapping[str, str], pack: IO[bytes]) -> None:
        words = ("pack-objects", "--revs", "--thin", "--stdout", "--delta-base-offset", "--quiet", "--threads=1")
        done = git(
            self.agent,
            (_git_dir(self.path), *words),
            bounds=_PACKING,
            given=wanted_objects(new, self.known),
            output=pack,
        )
        _must(done, "git cannot pack it")

    def _unpack(self, pack: IO[bytes]) -> None:
        """Have git check what it reads as it would check what a stranger pushed, and that nothing is missing."""
        words = ("index-pack", "--stdin", "--fix-thin", "--strict", f"--max-input-size={MAX_PACK_BYTES}")
        _must(git(self.owner, ("-C", self.top, *words), bounds=_TAKING, given=pack), "git refuses the pack")

    def _create(self, new: Mapping[str, str], session: str) -> None:
        whole = ("rev-list", "--objects", "--stdin", "--not", "--all", "--quiet")
        tips = "".join(f"{each}\n" for each in new.values()).encode()
        _must(git(self.owner, ("-C", self.top, *whole), bounds=_TAKING, given=tips), "something of it is missing")
        made = ("update-ref", "-m", f"coding-agents {session}", "--stdin")
        done = git(self.owner, ("-C", self.top, *made), bounds=_TAKING, given=creations(new, session))
        _must(done, "git cannot make its branches")


def make_clone(tree: str, place: Path, uids: UidPlan, owner: os.stat_result) -> Clone:
    """Clone the repository that `tree` lies in into a directory below `place`, ready for the session's roles.

    Says what of the repository it does not have. Raises `UsageError` and `ProcessError`; the caller removes what is
    below `place` then.
    """
    acting = owner_acting(owner)
    top, excludes = _repository(acting, tree)
    path = str(place / place_name(top))
    try:
        os.mkdir(path, 0o700)
        os.chown(path, acting.uid, acting.gid)
    except OSError as error:
        raise ProcessError(f"cannot make {path} for the workspace: {error.strerror}") from None
    cloning = ("clone", "--quiet", "--template=", "--no-recurse-submodules", "-c", "core.sharedRepository=group")
    done = git(acting, (*cloning, Path(top).as_uri(), path), bounds=_MAKING, transport="file")
    _must(done, f"the repository {top} cannot be cloned")
    if git(acting, ("-C", top, "symbolic-ref", "--quiet", "HEAD"), bounds=_MAKING).code:  # detached: clone may guess
        words = (_git_dir(path), f"--work-tree={path}", "checkout", "--quiet", "--detach")
        _must(git(acting, words, bounds=_MAKING), "git cannot detach the clone's HEAD")
    inside = os.path.normpath(os.path.join(path, os.path.relpath(tree, top)))
    if not os.path.isdir(inside) or os.path.realpath(inside) != inside:
        raise UsageError(f"the workspace {tree} is no folder in the last commit of {top}; commit it, or name {top}")
    _warn(acting, top, path, excludes)
    known = parse_refs(_show_refs(acting, path, _MAKING)).objects
    _share(path, uids, acting)
    return Clone(
        top=top,
        path=path,
        working_directory=inside,
        owner=acting,
        agent=Acting(uid=uids.agent, gid=uids.agent, groups=(uids.workspace_gid,)),
        known=known,
    )


def _repository(acting: Acting, tree: str) -> tuple[str, str]:
    """Return the top of the repository that `tree` lies in, and its file of names that are not to be committed."""
    words = ("rev-parse", "--path-format=absolute", "--show-toplevel", "--git-path", "info/exclude")
    done = git(acting, ("-C", tree, *words), bounds=_MAKING)
    if done.code:
        raise UsageError(
            f"the workspace {tree} cannot be cloned: {done.said}; "
            'use workspace_mode = "copy" for what is no git repository of its owner'
        )
    found = os.fsdecode(done.output).splitlines()
    if len(found) != 2:
        raise UsageError(f"the workspace {tree} has a line break in its path; rename it")
    return found[0], found[1]


def _warn(acting: Acting, top: str, path: str, excludes: str) -> None:
    """Say what the repository's files have that the clone has not.

    The clone is asked, by its own index: its configuration is git's, so that looking at the files runs no filter.
    """
    words = ("status", "--porcelain", "-z", "--ignore-submodules=all", "--untracked-files=normal", "--no-renames")
    settings = ("-c", f"core.excludesFile={excludes}")
    done = git(acting, (*settings, _git_dir(path), f"--work-tree={top}", *words), bounds=_MAKING)
    _must(done, f"git cannot compare {top} with its clone")
    differing = [os.fsdecode(entry)[3:] for entry in done.output.split(b"\0") if entry]
    if differing:
        more = f" and {len(differing) - 3} more" if len(differing) > 3 else ""
        say(f"warning: not committed in {top}, so the clone does not have it: {', '.join(differing[:3])}{more}")
    if os.path.lexists(f"{path}/.gitmodules"):
        say(f"warning: the submodules of {top} are not cloned: their folders are empty")


def _share(path: str, uids: UidPlan, acting: Acting) -> None:
    """Give all of the clone to the session's roles."""
    giving = GivingBack(
        path=path,
        made_by=(acting.uid,),
        uid=uids.agent,
        gid=uids.workspace_gid,
        mode_of=shared_mode,
        directories=True,
    )
    try:
        giving.run()
    except OSError as error:
        raise ProcessError(f"the clone at {path} cannot be given to the session: {error.strerror}") from None
    if giving.unseen:
        raise UsageError(f"the clone at {path} has more entries than a session can be given; use a smaller repository")
    os.chmod(path, 0o2770)  # noqa: S103 -- the roles' group works here; others, who can reach it, may not enter


def _show_refs(acting: Acting, path: str, bounds: Bounds) -> bytes:
    done = git(acting, (_git_dir(path), "show-ref", "--head"), bounds=bounds)
    if done.code == 1 and not done.output:  # there are none
        return b""
    _must(done, "git cannot list its references")
    return done.output


def _git_dir(path: str) -> str:
    """Return the option that has git look there and nowhere above, and not ask whose it is: that is known."""
    return f"--git-dir={path}/.git"


def _must(done: Done, otherwise: str) -> None:
    if done.code:
        raise ProcessError(f"{otherwise}: {done.said}")
