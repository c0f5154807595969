"""CORE: the clients that sessions are rewritten for, by name, and which servers each of them cannot be given."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from codingagents.rewrite import places
from codingagents.rewrite.clients import claude, codex, copilot
from codingagents.rewrite.clients.base import Client, Need, Shelling
from codingagents.rewrite.config import Config
from codingagents.rewrite.tables import Table

CLIENTS: Mapping[str, Client] = {client.NAME: client for client in (claude, codex, copilot)}
# What is said of a program that we do not know, where it is routed all the same.
ANY = Shelling(
    measured="",
    environment={"SHELL": "{shell}"},
    account_shell=True,
    needs=(Need(path="", why="the agent itself"),),
    task_environment=(),
    degrades=("whatever else it starts is refused",),
    open=("the agent's program can be run again as the agent, with any arguments",),
)


def left_out(config: Config, clients: Mapping[str, Client] = CLIENTS) -> Iterator[str]:
    """Yield a warning for each active server that is in none, or not in each, of the `clients`' configurations."""
    for server in config.remotes:
        table = Table({}, config.file, f"mcp_servers.{server.name}")
        if server.spec.listen == "unix":
            yield table.sentence(
                f'listen = "unix" is for programs of your own, at {places.socket_path(server.name)}; '
                "no MCP client that we know speaks HTTP over a unix socket, so no client is told of it"
            )
            continue
        deaf = sorted(client.NAME for client in clients.values() if server.spec.transport not in client.TRANSPORTS)
        if deaf:
            yield table.sentence(f'transport = "sse" is not spoken by {" and ".join(deaf)}, which is not told of it')
