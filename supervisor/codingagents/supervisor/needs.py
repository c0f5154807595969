"""CORE: what a session cannot do without, and the sentence that says so before anything is made. Pure.

Docker's default Linux capabilities hold both. What a session can do without is the layer report's matter.
"""

from __future__ import annotations

from typing import Final

# Numbers of linux/capability.h. Whoever may be anybody needs no CHOWN and no KILL: see `identities`.
_SESSION: Final = {"SETGID": 6, "SETUID": 7}


def unmet_needs(uid: int, effective: int) -> str:
    """Return why a supervisor of `uid` with the `effective` Linux capabilities cannot run a session, or ""."""
    if uid != 0:
        return "a session must start as root, to give each role a UID of its own; run the container without --user"
    missing = [name for name, number in _SESSION.items() if not effective >> number & 1]
    if not missing:
        return ""
    flags = " ".join(f"--cap-add {name}" for name in missing)
    return f"a session needs the Linux capabilities {', '.join(_SESSION)}; what is missing comes by {flags}"
