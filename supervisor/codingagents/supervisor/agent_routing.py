"""SHELL: has a session's agent routed: looks for what its table names, writes what it is told by, asks `routing`.

Mounts nothing and decides nothing; the exec policy is what stands behind it.
"""

from __future__ import annotations

from collections.abc import Sequence

from codingagents.rewrite import places
from codingagents.rewrite.clients.base import Settings
from codingagents.rewrite.specs import SessionSpec
from codingagents.supervisor import account_lines, client_programs, routing
from codingagents.supervisor.accounts import AccountFiles
from codingagents.supervisor.client_programs import Finder
from codingagents.supervisor.managed_settings import ManagedSettings
from codingagents.supervisor.routing import Found, Routing


class AgentRouting:
    """The routing of one session, from its command to what the log is told."""

    def __init__(self, spec: SessionSpec, command: Sequence[str]) -> None:
        """Look up the client's table, by `command` as it was given."""
        self._spec = spec
        self._command = list(command)
        self._table = routing.table_for(spec, command)
        self._shell = routing.choose_shell(client_programs.shell_names())
        self.managed = ManagedSettings()

    @property
    def client(self) -> str:
        """The client whose commands are tasks, "" where they are not or it is none that we know."""
        return "" if self._table is None else self._table.client

    @property
    def account_shell(self) -> str:
        """The shell that the agent's account is to have."""
        by_account = self._table is not None and self._table.shelling.account_shell
        return self._shell if by_account else account_lines.SHELL

    @property
    def settings(self) -> list[Settings]:
        """The client's settings files that are the session's own."""
        return [settings for settings in self._settings() if not settings.path.startswith("/")]

    def plan(self, accounts: AccountFiles | None) -> Routing | None:
        """Return the routing, None where there is none. The task shells and the session's settings are written.

        `accounts` is None where no accounts are made; then an administrator's settings are not touched either. May
        block on the disk.
        """
        if self._table is None:
            return None
        held = [f"{places.CLIENTS}/{settings.path}" for settings in self.settings if self._is_told_of(settings)]
        if accounts is not None:
            administrators = [settings for settings in self._settings() if settings.path.startswith("/")]
            held += [settings.path for settings in administrators if self.managed.put(settings)]
        finder = Finder(self._spec)
        shells = client_programs.task_shells()
        program = finder.command(self._command[0])
        return routing.plan(
            self._spec,
            self._table,
            self._shell,
            Found(
                program=program,
                needs=list(finder.needs(self._table, program[-1])) if program else [],
                allowed=finder.all(routing.literal_paths(self._spec.exec.rules)),
                shells=finder.all(shells),
                trees=client_programs.links_resolved(self._spec.exec.trees),
                account_shell=(accounts or AccountFiles()).shell_of(self._spec.uids.agent),
                settings=held,
                over=client_programs.shells_of_the_system(shells),
            ),
        )

    def _is_told_of(self, settings: Settings) -> bool:
        """Say whether its arguments make the client use a file: the user's own, of the same name, would win over them.

        A program around the client is given none.
        """
        own = {word.partition("=")[0] for word in self._command[1:]}
        return (
            routing.name_of(self._command) == self.client
            and bool(settings.arguments)
            and not own & {*settings.arguments}
        )

    def _settings(self) -> list[Settings]:
        return [] if self._table is None else self._table.settings(places.CLIENTS, self._shell)
