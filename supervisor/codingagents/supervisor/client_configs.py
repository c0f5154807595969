"""SHELL: writes the clients' configurations of a session. What is in them is `rewrite.clients`' to say.

Starts no client, and does not decide which of them the agent is.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence

from codingagents.rewrite import places
from codingagents.rewrite.clients.base import ClientFile, Endpoint, Settings, Switches
from codingagents.rewrite.clients.known import CLIENTS
from codingagents.rewrite.files import install_client_files
from codingagents.rewrite.specs import SessionSpec
from codingagents.supervisor import identities
from codingagents.supervisor.slots import Slot


def install_clients(
    spec: SessionSpec,
    slots: Sequence[Slot],
    root: str,
    command: Sequence[str],
    *,
    routed: str = "",
    settings: Sequence[Settings] = (),
) -> Switches:
    """Write every client's configuration below `root`; return what makes clients read it.

    The environment is that of all clients. A client that is told by arguments gets them where `command` is that client
    and not a program around it. `routed` is the client whose commands are tasks, `settings` are its own files below
    `root`. Raises `ConfigError` where a file cannot be written.
    """
    endpoints = [
        Endpoint(name=slot.remote.name, url=slot.url, bearer=slot.bearer, transport=slot.remote.transport)
        for slot in slots
        if slot.remote.listen != "unix"  # no client can be told of it: see `known.left_out`
    ]
    session_ca = places.SESSION_CA if any(slot.remote.listen == "https" for slot in slots) else None
    environment: dict[str, str] = {}
    arguments: tuple[str, ...] = ()
    for client in CLIENTS.values():
        with identities.member_of(spec.uids.agent):
            files = client.render(endpoints, spec.codex_toml, routed=routed == client.NAME)
            files += map(_settings_file, settings) if routed == client.NAME else ()
            install_client_files(root, files, spec.uids.agent)
        switches = client.switches(root, session_ca)
        environment |= switches.environment
        if spec.agent == client.NAME and os.path.basename(command[0]) == client.NAME:
            arguments = (*switches.arguments, *(word for each in settings for word in each.arguments))
    return Switches(arguments=arguments, environment=environment)


def _settings_file(settings: Settings) -> ClientFile:
    return ClientFile(path=settings.path, content=json.dumps(settings.content, indent=2).encode() + b"\n")
