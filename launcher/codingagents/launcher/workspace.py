"""SHELL: the agent's working directory: which one it is, and what the agent's user can do there. Changes nothing."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from codingagents.rewrite.config import Config
from codingagents.rewrite.specs import UidPlan
from codingagents.trust.errors import UsageError


def choose_workspace(option: str | None, config: Config) -> str:
    """Return the directory's real path: the command line's, then the configuration's, then the current one.

    `UsageError` where it is no directory.
    """
    if option is not None:
        path = Path(option)
    elif config.session.workspace is not None:
        path = Path(config.file).parent / Path(config.session.workspace).expanduser()
    else:
        path = Path.cwd()
    real = os.path.realpath(path)
    if not os.path.isdir(real):
        raise UsageError(f"the workspace {path} is not a directory; name one with --workspace")
    return real


def check_reachable(workspace: str, uids: UidPlan) -> None:
    """Raise `UsageError` where a directory on the way to `workspace` keeps the agent's user out.

    The supervisor would find out too, but only once everything runs. Where a directory has a POSIX ACL, its mode does
    not tell: then the session is left to find out.
    """
    for directory in [workspace, *map(str, Path(workspace).parents)][::-1]:
        if not _rights(os.stat(directory), uids) & stat.S_IXOTH and not _has_acl(directory):
            raise UsageError(
                f"the agent's user cannot enter {directory}, and so not the workspace {workspace}; "
                "give it a copy that others can reach, with --workspace"
            )


def is_read_only(workspace: str, uids: UidPlan) -> bool:
    """Return whether the mode of `workspace` keeps the agent's user from making anything there; False if in doubt."""
    return not _rights(os.stat(workspace), uids) & stat.S_IWOTH and not _has_acl(workspace)


def _rights(found: os.stat_result, uids: UidPlan) -> int:
    """Return the three bits of a mode that count for the agent's user, as the others' bits."""
    if found.st_uid == uids.agent:
        return found.st_mode >> 6 & stat.S_IRWXO
    if found.st_gid in (uids.agent, uids.workspace_gid):
        return found.st_mode >> 3 & stat.S_IRWXO
    return found.st_mode & stat.S_IRWXO


def _has_acl(directory: str) -> bool:
    try:
        return "system.posix_acl_access" in os.listxattr(directory)
    except OSError:  # a file system without extended attributes has no ACLs either
        return False
