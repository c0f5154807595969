"""SHELL: gives a session's roles rights in a tree by ACL entries, and takes them back: in time, or in a later run.

`workspace_acl` decides what an entry says. What is changed is remembered before, and found again, by file handle: the
session may rename it, link it or move it away meanwhile. What the session or the owner made there is found by a walk.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import stat
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import msgspec

from codingagents.launcher.file_handles import handle_of, open_by_handle
from codingagents.launcher.terminal import say, say_briefly
from codingagents.launcher.uids import ids_of, ids_of_processes
from codingagents.launcher.workspace_acl import (
    Acl,
    default_granted,
    default_without,
    granted,
    names,
    of_mode,
    parse,
    to_bytes,
    without,
)
from codingagents.launcher.workspace_owner import GivingBack, TreeWalk, opened, unseen_sentence
from codingagents.launcher.workspace_record import Former, Head, Record, left_records, new_record
from codingagents.launcher.workspace_rules import MAX_DEPTH, MAX_ENTRIES
from codingagents.trust.errors import AgentError, ProcessError, UsageError

_ACCESS, _DEFAULT = "system.posix_acl_access", "system.posix_acl_default"
_TOP = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_SHOWN = 20  # of what gets no entries, by name


@contextlib.contextmanager
def shared(head: Head, records: Path) -> Iterator[None]:
    """Give agent, task and workspace group of `head` its owner's rights in its tree, for as long as this lasts.

    The record of what was there before lies in `records`. To be left when no process of the session lives. Raises
    `AgentError`; then all is as it was.
    """
    if head.owner == 0:
        raise UsageError(f'the workspace {head.tree} is root\'s; chown it to a user, or set workspace_mode = "copy"')
    with contextlib.ExitStack() as stack:
        try:
            record = stack.enter_context(new_record(records, head, functools.partial(_remember, head)))
            stack.callback(take_back, record)
            _grant(record, head)
        except OSError as error:
            raise ProcessError(f"the workspace {head.tree} cannot be shared: {_cause(error)}") from None
        yield


def repair(records: Path) -> None:
    """Take back what launchers that were killed left, and say so."""
    for record in left_records(records):
        try:
            head = record.head()
        except msgspec.MsgspecError:
            say(f"warning: {record.path} is no record of a session's rights; look at it and delete it")
            continue
        if ids_of_processes() & set(ids_of(head.uids)):
            say(f"warning: {head.tree} is still shared with session {head.session}, of which processes live")
        elif take_back(record):
            say(f"session {head.session} was killed; {head.tree} has the rights and owners it had before")


def take_back(record: Record) -> bool:
    """Make the tree what it was, but for what the session made; that goes to the owner. Says what failed; whether all.

    Where it failed the record stays, and a later run tries again.
    """
    try:
        head = record.head()
        _restore(record, head)
        record.forget()
    except (OSError, AgentError, msgspec.MsgspecError) as error:
        cause = _cause(error) if isinstance(error, OSError) else error
        say_briefly(f"warning: not all rights of the session were taken back, as {record.path} says: {cause}")
        return False
    return True


def _remember(head: Head, write: Callable[[Former], None]) -> None:
    """Write what each inode that is to get entries has now, and say which get none."""
    left_out: list[str] = []
    more = 0
    with opened(head.tree, _TOP) as top:
        mount = handle_of(top)[1]
        os.close(open_by_handle(handle_of(top)[0], top, os.O_PATH))  # else nothing could be found again

    def visit(looked: int, found: os.stat_result) -> None:
        if not stat.S_ISREG(found.st_mode) and not stat.S_ISDIR(found.st_mode):
            return
        handle, on = handle_of(looked)
        why = "another user's" if found.st_uid != head.owner else ""
        if stat.S_ISREG(found.st_mode) and found.st_nlink > 1:
            why = why or "linked more than once, elsewhere perhaps"
        if why or on != mount:
            nonlocal more
            if len(left_out) < _SHOWN:
                left_out.append(f"{os.readlink(f'/proc/self/fd/{looked}')}: {why or 'on another mount'}")
            else:
                more += 1
            return
        inode = f"/proc/self/fd/{looked}"
        default = _get(inode, _DEFAULT) if stat.S_ISDIR(found.st_mode) else None
        write(Former(handle.kind, handle.data, found.st_mode, _get(inode, _ACCESS), default))

    walk = TreeWalk(head.tree, visit)
    walk.run()
    if walk.unseen:
        raise ProcessError(
            f"the workspace {head.tree} has more than {MAX_ENTRIES} entries or is more than {MAX_DEPTH} directories "
            "deep; name a smaller one"
        )
    for sentence in left_out:
        say(f"warning: not shared with the session: {sentence}")
    if more:
        say(f"warning: not shared with the session: {more} more")


def _grant(record: Record, head: Head) -> None:
    with opened(head.tree, _TOP) as top:
        for former in record.formers():
            with _found_again(former, top) as inode:
                if inode and _now(inode) == _then(former):  # else its owner works on it
                    access, default = _entries(former, head)
                    if default is not None:
                        os.setxattr(inode, _DEFAULT, to_bytes(default))
                    os.setxattr(inode, _ACCESS, to_bytes(access))


def _restore(record: Record, head: Head) -> None:
    ids = set(ids_of(head.uids))
    failed: OSError | None = None
    with opened(head.tree, _TOP) as top:
        handle = handle_of(top)[0]
        for number, former in enumerate(record.formers()):
            if number == 0 and former.inode != handle:
                raise ProcessError(f"{head.tree} is another directory now; put the former one back")
            try:
                with _found_again(former, top) as inode:
                    if inode:
                        _restore_one(inode, former, head, ids)
            except OSError as error:  # made immutable meanwhile: the others come first
                failed = error
    giving = GivingBack(path=head.tree, made_by=ids - {head.owner}, uid=head.owner, gid=head.group)

    def visit(looked: int, found: os.stat_result) -> None:
        if not stat.S_ISLNK(found.st_mode):
            _strip(f"/proc/self/fd/{looked}", ids, head.owner)
        giving.give(looked, os.fstat(looked))  # with the mode that it has without entries

    walk = TreeWalk(head.tree, visit)
    walk.run()
    if walk.unseen:
        say_briefly(unseen_sentence(head.tree, giving.made_by))
    if failed:
        raise failed


def _restore_one(inode: str, former: Former, head: Head, ids: Collection[int]) -> None:
    """Set what was there where nobody changed what we set; else take the session's entries only."""
    access, default = _now(inode)
    given, given_default = _entries(former, head)
    then, then_default = _then(former)
    _change(inode, _ACCESS, access, then if access == given else without(access, ids))
    if default is not None:
        _change(inode, _DEFAULT, default, then_default if default == given_default else default_without(default, ids))


def _strip(inode: str, ids: Collection[int], owner: int) -> None:
    """Take the session's entries from what was made meanwhile; and that for the owner, if it came with them."""
    access, default = _now(inode)
    if names(access, ids):
        _change(inode, _ACCESS, access, without(access, {*ids, owner}))
    if default is not None and names(default, ids):
        _change(inode, _DEFAULT, default, default_without(default, {*ids, owner}))


def _entries(former: Former, head: Head) -> tuple[Acl, Acl | None]:
    """Return the access ACL for the session, and the default one of a directory, where the owner too works along."""
    access, default = _then(former)
    roles, groups = (head.uids.agent, head.uids.task), (head.uids.workspace_gid,)
    made = default_granted(default, access, {*roles, head.owner}, groups) if stat.S_ISDIR(former.mode) else None
    return granted(access, roles, groups), made


def _then(former: Former) -> tuple[Acl, Acl | None]:
    return (
        of_mode(former.mode) if former.access is None else parse(former.access),
        None if former.default is None else parse(former.default),
    )


def _now(inode: str) -> tuple[Acl, Acl | None]:
    found = os.stat(inode).st_mode
    access = _get(inode, _ACCESS)
    default = _get(inode, _DEFAULT) if stat.S_ISDIR(found) else None
    return of_mode(found) if access is None else parse(access), None if default is None else parse(default)


@contextlib.contextmanager
def _found_again(former: Former, top: int) -> Iterator[str]:
    """Give the path that leads to the inode and no further, "" where it is gone."""
    try:
        descriptor = open_by_handle(former.inode, top, os.O_PATH)
    except OSError as error:
        if error.errno != errno.ESTALE:
            raise
        yield ""
        return
    try:
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def _get(inode: str, name: str) -> bytes | None:
    try:
        return os.getxattr(inode, name)
    except OSError as error:
        if error.errno != errno.ENODATA:
            raise
        return None


def _change(inode: str, name: str, now: Acl, then: Acl | None) -> None:
    """Set an ACL; one that a mode says too, the kernel keeps as a mode (acl(5))."""
    if then is None:
        os.removexattr(inode, name)
    elif then != now:
        os.setxattr(inode, name, to_bytes(then))


def _cause(error: OSError) -> str:
    if error.errno == errno.EOPNOTSUPP:
        return 'its file system has no ACLs or no file handles; set workspace_mode = "copy"'
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{error.strerror}; make room there and in /var/lib"
    return f'{error.strerror}; look at it, or set workspace_mode = "copy"'
