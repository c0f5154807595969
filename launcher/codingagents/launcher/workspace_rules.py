"""CORE: what a session's copy of a workspace takes along, and which modes files have in it and after it. Pure.

Opens, makes and changes nothing: `workspace_copy` and `workspace_owner` do, entry by entry, on what fstat(2) told.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Mapping
from typing import Final, Protocol

MAX_ENTRIES: Final = 1_000_000  # of one tree
MAX_DEPTH: Final = 256  # directories below one another, each of which takes a descriptor

_SPECIAL_BITS: Final = stat.S_ISUID | stat.S_ISGID | stat.S_ISVTX
_GROUP_WORKS: Final = stat.S_IRGRP | stat.S_IWGRP


class Found(Protocol):
    """What is needed of an `os.stat_result`."""

    @property
    def st_mode(self) -> int:
        """Kind and mode."""

    @property
    def st_uid(self) -> int:
        """Its owner."""

    @property
    def st_dev(self) -> int:
        """Its file system."""


def why_left_out(found: Found, root: Found, depth: int) -> str:
    """Return why an entry of the tree whose top is `root` is not copied, "" where it is; in the top, `depth` is 1.

    We read as root, and the agent reads the copy: what neither the tree's owner nor everybody may read stays behind,
    as a hard link to another user's file would.
    """
    kind = stat.S_IFMT(found.st_mode)
    if kind not in (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK):
        return "neither file, directory nor symbolic link"
    if found.st_dev != root.st_dev:
        return "on another file system"
    if kind == stat.S_IFDIR and depth >= MAX_DEPTH:
        return f"more than {MAX_DEPTH} directories deep"
    needed = stat.S_IROTH | (stat.S_IXOTH if kind == stat.S_IFDIR else 0)
    if kind != stat.S_IFLNK and found.st_uid != root.st_uid and found.st_mode & needed != needed:
        return "another user's, and closed to others"
    return ""


def shared_mode(mode: int) -> int:
    """Return the mode that an entry gets for the session: its group works in it, directories pass their group on."""
    kept = (stat.S_IMODE(mode) & ~_SPECIAL_BITS) | _GROUP_WORKS | stat.S_IRUSR | stat.S_IWUSR
    if stat.S_ISDIR(mode):
        return kept | stat.S_ISGID | stat.S_IXGRP | stat.S_IXUSR
    return kept | (stat.S_IXGRP if mode & stat.S_IXUSR else 0)


def returned_mode(mode: int, root_mode: int) -> int:
    """Return the mode that an entry leaves a copy with; its group may write where it may in the original's top."""
    kept = stat.S_IMODE(mode) & ~_SPECIAL_BITS
    return kept if root_mode & stat.S_IWGRP else kept & ~stat.S_IWGRP


def without_privilege(mode: int) -> int:
    """Return the mode of a file that changes hands: neither setuid nor setgid."""
    return stat.S_IMODE(mode) & ~(stat.S_ISUID | stat.S_ISGID)


def place_name(workspace: str) -> str:
    """Return what the copy of `workspace` is called: the last part of its path, as far as that is plain."""
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", workspace.rpartition("/")[2])[:64].lstrip(".-")
    return plain or "workspace"


def git_environment(directory: str) -> Mapping[str, str]:
    """Return what lets git work for every role in a tree that belongs to one of them (git-config(1), GIT_CONFIG_COUNT).

    By the environment, so that no file is written in anybody's home.
    """
    return {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": directory}
