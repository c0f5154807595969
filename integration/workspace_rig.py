"""Whose workspace it is in tests, and a session's plan for it; each kind of workspace has a rig of its own beside."""

from __future__ import annotations

from codingagents.rewrite.specs import SessionSpec, UidPlan

OWNER = 58900  # of the tree
UIDS = UidPlan(agent=58901, task=58902, workspace_gid=58903, servers={"server": 58904})
SPEC = SessionSpec(
    session="test",
    agent="claude",
    engine="local",
    config_sha256="0" * 64,
    uids=UIDS,
    remotes=[],
    command=["true"],
    working_directory="/",
    environment={"PATH": "/usr/bin:/bin"},
    public_key="",
)
