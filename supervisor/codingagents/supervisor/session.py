"""SHELL: the way into a session: spawns early what starts slowly, then loads the supervisor's own half and runs it.

Signals are blocked all the while (`__main__` did that), so that a stop during start-up waits to be heard.
"""

from __future__ import annotations

import os

from codingagents.supervisor import kernel, namespaces, needs, processes, signals, terminal_handover
from codingagents.supervisor.early import StubProcess, ZygoteProcess
from codingagents.trust.errors import ProcessError


def main(session_dir: str, control_fd: int | None, command: list[str]) -> int:
    """Run the session that `session_dir`/session.json describes and return its exit code.

    `control_fd` brings the secrets (rewrite/specs.py, `SessionSecrets`); `command` replaces the specification's where
    it is not empty. Raises `AgentError` for what keeps a session from starting.
    """
    # The launcher blocks signals around our start; that is no inheritance for the session's own processes.
    signals.inherit_nothing()
    if unmet := needs.unmet_needs(os.geteuid(), kernel.effective_capabilities()):
        raise ProcessError(unmet)
    kernel.join_new_session_keyring()
    why_no_mounts = namespaces.enter_mount_namespace()
    why_shown = why_no_mounts or namespaces.hide_processes()
    children = processes.Children()
    if not processes.is_pid1():
        processes.set_subreaper()
    if (terminal := terminal_handover.find_terminal()) is not None:
        terminal_handover.release(terminal)
    stdio = {1: 1, 2: 2} if control_fd == 0 else {0: 0, 1: 1, 2: 2}
    stub = StubProcess(children, stdio=stdio)
    zygote = ZygoteProcess(children)

    from codingagents.supervisor import boot  # noqa: PLC0415 -- trio and the rest load while both children start

    return boot.run(boot.Parts(children, stub, zygote, why_no_mounts, why_shown), session_dir, control_fd, command)
