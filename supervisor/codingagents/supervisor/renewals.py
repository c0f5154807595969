"""SHELL: secrets that are renewed while the session runs: from the launcher to whoever must know them. No policy.

Who needs a secret is the keepers' business; the scrubber learns each value before anybody can have it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Protocol

from codingagents.supervisor.control import Control
from codingagents.trust.errors import WireError
from codingagents.trust.scrub import Scrubber
from codingagents.trust.vocabulary import Secret


class Renewable(Protocol):
    """Who may need new values; `helpers.HelperKeeper` is one."""

    def renew(self, secrets: Mapping[str, Secret]) -> None:
        """Take those that it needs."""


async def pass_on(
    control: Control,
    names: Collection[str],
    scrubber: Scrubber,
    keepers: Sequence[Renewable],
    complain: Callable[[str], object],
) -> None:
    """Pass on what comes until the launcher is gone; names that are not in `names` are refused, in a sentence."""
    while True:
        try:
            renewed = await control.next_renewal()
        except WireError as error:
            complain(f"the launcher sent what is no renewed secret, and it is ignored: {error}")
            continue
        if renewed is None:
            return
        known = {name: value for name, value in renewed.secrets.items() if name in names}
        if unknown := sorted(renewed.secrets.keys() - known.keys()):
            complain(f"secrets that this session does not have were not renewed: {', '.join(unknown)}")
        scrubber.learn(known)
        for keeper in keepers:
            keeper.renew(known)
