"""SHELL: the workspace of one session, from before its start to after its end: the tree itself, or a copy of it.

Decides nothing of what is copied (`workspace_rules`). A copy lies below a directory of root's that roles can pass
through and not list. Signals that come while it is made end the launcher as they would, and what was made goes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import shutil
import signal
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import msgspec

from codingagents.launcher.terminal import say, say_briefly
from codingagents.launcher.uids import ids_of
from codingagents.launcher.workspace import check_reachable, is_read_only
from codingagents.launcher.workspace_clone import make_clone
from codingagents.launcher.workspace_copy import TreeCopy
from codingagents.launcher.workspace_owner import GivingBack, unseen_sentence
from codingagents.launcher.workspace_record import Head
from codingagents.launcher.workspace_rights import repair, shared
from codingagents.launcher.workspace_rules import git_environment, place_name, returned_mode
from codingagents.rewrite import places
from codingagents.rewrite.specs import SessionSpec
from codingagents.trust.errors import ProcessError, UsageError

_RECORDS = "workspace-records"  # beside the copies: what trees were before a session got rights there
_PASSED_THROUGH = 0o711
_SHOWN_EVERY = 1000  # entries
_ENDING = (signal.SIGTERM, signal.SIGHUP)


@dataclasses.dataclass(slots=True)
class Placed:
    """A session's specification with the directory that it works in; `started` once anything may have run there."""

    spec: SessionSpec
    warning: str = ""  # what is to be said once the session is about to start
    started: bool = False


@contextlib.contextmanager
def workspace_of(spec: SessionSpec, base: Path = Path(places.WORKSPACES)) -> Iterator[Placed]:
    """Give the session a place as `spec.workspace` says, and clear up after it: what was not started leaves no trace.

    `spec.working_directory` is the tree that the user means. Copies lie below `base`. Raises `UsageError` and
    `ProcessError`.
    """
    repair(base.with_name(_RECORDS))
    tree = spec.working_directory
    owner = os.stat(tree)  # now: what is there later, a session may have put there
    if spec.workspace == "direct":
        yield from _direct(spec, owner, base.with_name(_RECORDS))
        return
    if spec.workspace == "clone":
        yield from _cloned(spec, owner, base)
        return
    if base.is_relative_to(os.path.realpath(tree)):
        raise UsageError(f"the workspace {tree} holds {base}, where copies are made; name a smaller one")
    made = _place(base, spec.session)
    copied = Placed(_working_in(spec, str(made / place_name(tree)), str(made / place_name(tree))))
    try:
        with _ended_by_signals():
            _copy(tree, copied.spec)
        yield copied
    finally:
        if copied.started:
            _hand_over(copied.spec.working_directory, spec, owner)
            copy = copied.spec.working_directory
            say_briefly(f"what the session made of {tree} is in {copy}; {tree} is as it was")
        else:
            shutil.rmtree(made, ignore_errors=True)


def _direct(spec: SessionSpec, owner: os.stat_result, records: Path) -> Iterator[Placed]:
    """Do what `workspace_of` does for the tree itself, which the session has rights in for as long as it lasts."""
    tree = spec.working_directory
    check_reachable(os.path.dirname(tree) if spec.workspace_acl else tree, spec.uids)
    placed = Placed(_working_in(spec, tree, _repository(tree)))
    with contextlib.ExitStack() as rights:
        if spec.workspace_acl:
            head = Head(session=spec.session, tree=tree, owner=owner.st_uid, group=owner.st_gid, uids=spec.uids)
            with _ended_by_signals():
                rights.enter_context(shared(head, records))
        elif is_read_only(tree, spec.uids):
            shared_too = ", or workspace_acl = true" if owner.st_uid else ""  # root's trees are never shared
            placed.warning = (
                f"the agent can only read {tree}, which belongs to UID {owner.st_uid}; for it to work there, "
                f'set workspace_mode = "copy" or "clone"{shared_too}'
            )
        try:
            yield placed
        finally:
            if placed.started and not spec.workspace_acl:
                _give_back(tree, spec, owner)


def _cloned(spec: SessionSpec, owner: os.stat_result, base: Path) -> Iterator[Placed]:
    """Do what `workspace_of` does for a clone: its commits go to the owner's repository, and all of it is kept."""
    tree = spec.working_directory
    made = _place(base, spec.session)
    placed = Placed(spec)
    try:
        with _ended_by_signals():
            clone = make_clone(tree, made, spec.uids, owner)
        placed.spec = _working_in(spec, clone.working_directory, clone.path)
        yield placed
    finally:
        if placed.started:
            clone.take_over(spec.session)
            _hand_over(clone.path, spec, owner)
            say_briefly(f"the session's clone, with what it did not commit, is in {clone.path}")
        else:
            shutil.rmtree(made, ignore_errors=True)


def _working_in(spec: SessionSpec, directory: str, repository: str) -> SessionSpec:
    environment = {**spec.environment, **git_environment(repository)}
    return msgspec.structs.replace(spec, working_directory=directory, environment=environment)


def _repository(tree: str) -> str:
    """Return the top of the git repository that `tree` lies in, as far as that can be told without git; else `tree`."""
    for directory in (tree, *map(str, Path(tree).parents)):
        if os.path.lexists(f"{directory}/.git"):
            return directory
    return tree


def _place(base: Path, session: str) -> Path:
    """Make and return the directory of `session` below `base`; every directory on the way is root's alone to change."""
    for directory in (base.parent, base, base / session):
        try:
            # That of the session must be new: it is deleted with all that is in it where the session does not start.
            with contextlib.suppress(*() if directory == base / session else (FileExistsError,)):
                os.mkdir(directory)
                os.chmod(directory, _PASSED_THROUGH)  # whatever the umask
            found = os.lstat(directory)
        except OSError as error:
            raise ProcessError(f"cannot make {directory} for the workspace: {error.strerror}") from None
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
            raise ProcessError(
                f"{directory} must be a directory that only root can change, for workspaces lie below it; "
                "move it away, and it will be made"
            )
    return base / session


def _copy(tree: str, spec: SessionSpec) -> None:
    """Copy `tree` to where the session works, ready for its roles."""
    target = spec.working_directory
    try:
        os.mkdir(target, 0o700)
    except OSError as error:
        raise ProcessError(f"cannot make {target} for the workspace: {error.strerror}") from None
    with _shown(f"copying {tree}") as show:
        copy = TreeCopy(source=tree, uid=spec.uids.agent, gid=spec.uids.workspace_gid, on_entry=show)
        copy.into(target)
    os.chmod(target, 0o2770)  # noqa: S103 -- the roles' group works here; others, who can reach it, may not enter
    for sentence in copy.left_out:
        say(f"warning: left out of the copy: {sentence}")
    if copy.more_left_out:
        say(f"warning: left out of the copy: {copy.more_left_out} more")


def _hand_over(copy: str, spec: SessionSpec, owner: os.stat_result) -> None:
    """Give the copy to the tree's owner."""
    _walk(
        GivingBack(
            path=copy,
            made_by=ids_of(spec.uids),
            uid=owner.st_uid,
            gid=owner.st_gid,
            mode_of=functools.partial(returned_mode, root_mode=owner.st_mode),
            directories=True,
        )
    )
    os.chmod(copy, stat.S_IMODE(owner.st_mode) & 0o777)


def _give_back(tree: str, spec: SessionSpec, owner: os.stat_result) -> None:
    """Give what the session made in the tree itself to the tree's owner."""
    _walk(
        GivingBack(
            path=tree,
            made_by=set(ids_of(spec.uids)) - {owner.st_uid},
            uid=owner.st_uid,
            gid=owner.st_gid,
        )
    )


def _walk(giving: GivingBack) -> None:
    try:
        giving.run()
    except OSError as error:
        say_briefly(f"warning: not all that the session made in {giving.path} has its owner: {error.strerror}")
    if giving.unseen:
        say_briefly(unseen_sentence(giving.path, giving.made_by))


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Have the signals that end a program end this block first, so that it can clear up."""
    former = {number: signal.getsignal(number) for number in _ENDING}
    for number, handler in former.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, _end)
    try:
        yield
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def _end(number: int, _frame: object) -> NoReturn:
    raise SystemExit(128 + number)


@contextlib.contextmanager
def _shown(what: str) -> Iterator[Callable[[int], None]]:
    """Give what shows a count on a terminal, and nothing in a pipe."""
    if not sys.stderr.isatty():
        yield lambda _count: None
        return
    from rich.console import Console  # noqa: PLC0415 -- slow to load, and for terminals only
    from rich.progress import Progress, TextColumn  # noqa: PLC0415 -- likewise

    columns = (TextColumn("{task.description}: {task.completed} entries", markup=False),)
    # Refreshed by us: a thread must not be there when the engine makes its child.
    with Progress(*columns, console=Console(stderr=True), auto_refresh=False, transient=True) as progress:
        task = progress.add_task(what, total=None)

        def show(count: int) -> None:
            if count % _SHOWN_EVERY == 0:
                progress.update(task, completed=count, refresh=True)

        yield show
