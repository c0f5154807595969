"""SHELL: secrets and trust that are renewed while the session runs: from the launcher to whoever must know. No policy.

Who needs a secret is the keepers' business; the scrubber learns each value before anybody can have it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol

from codingagents.rewrite.specs import ControlTrust, RenewedSecrets, RenewedTrust, TlsSpec
from codingagents.supervisor.control import Control
from codingagents.trust.errors import WireError
from codingagents.trust.scrub import Scrubber
from codingagents.trust.vocabulary import Secret


class Renewable(Protocol):
    """Who may need what is new; `helpers.HelperKeeper` is one."""

    @property
    def server(self) -> str:
        """The name of the server that it is for."""

    def renew(self, secrets: Mapping[str, Secret]) -> None:
        """Take those that it needs."""

    def renew_trust(self, tls: TlsSpec) -> None:
        """Trust the server so from now on, and have the launcher told what became of it."""


async def pass_on(
    control: Control,
    names: Collection[str],
    scrubber: Scrubber,
    keepers: Sequence[Renewable],
    complain: Callable[[str], object],
) -> None:
    """Pass on what comes until the launcher is gone; secrets that are not in `names` are refused, in a sentence."""
    while True:
        try:
            renewed = await control.next_renewal()
        except WireError as error:
            complain(f"the launcher sent what is no renewal, and it is ignored: {error}")
            continue
        match renewed:
            case None:
                return
            case RenewedSecrets(secrets=secrets):
                known = {name: value for name, value in secrets.items() if name in names}
                if unknown := sorted(secrets.keys() - known.keys()):
                    complain(f"secrets that this session does not have were not renewed: {', '.join(unknown)}")
                scrubber.learn(known)
                for keeper in keepers:
                    keeper.renew(known)
            case RenewedTrust(servers=servers):
                by_name = {keeper.server: keeper for keeper in keepers}
                for server, tls in servers.items():
                    if server in by_name:
                        by_name[server].renew_trust(tls)
                    else:
                        control.send(
                            ControlTrust(server=server, store_sha256="", problem="this session has no such server")
                        )
