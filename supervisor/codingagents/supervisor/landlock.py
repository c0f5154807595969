"""SHELL: confines execution to file trees with Landlock. Decides nothing.

Only EXECUTE is restricted. REFER is handled and granted everywhere, because the kernel otherwise denies moving files
between directories under *any* rule set.
"""

from __future__ import annotations

from collections.abc import Sequence

from codingagents.trust.landlock import EXECUTE, REFER, Ruleset


def restrict_execution(trees: Sequence[str]) -> list[str]:
    """Let this thread and its descendants execute only files beneath `trees`; needs no_new_privs.

    Trees that do not exist, or cannot be reached, are left out. Returns the trees that hold; raises `OSError` where
    Landlock is absent.
    """
    with Ruleset(files=EXECUTE | REFER) as rules:
        if rules.files & REFER:
            rules.allow_beneath("/", REFER)
        held = []
        for tree in trees:
            try:
                rules.allow_beneath(tree, EXECUTE)
            except (FileNotFoundError, NotADirectoryError, PermissionError):
                continue
            held.append(tree)
        rules.restrict_self()
    return held
