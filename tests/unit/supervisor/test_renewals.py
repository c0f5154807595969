"""Renewed secrets on their way: known names to every keeper, after the scrubber; all else to the operator."""

import socket
from collections.abc import Mapping

import trio

from codingagents.rewrite.specs import RenewedSecrets, SessionSecrets
from codingagents.supervisor import renewals
from codingagents.supervisor.control import Control
from codingagents.trust import wire
from codingagents.trust.scrub import Scrubber
from codingagents.trust.vocabulary import Secret


class Keeper:
    """Notes what it is given, and what the scrubber makes of it at that moment."""

    def __init__(self, scrubber: Scrubber) -> None:
        self.given: list[dict[str, str]] = []
        self.scrubbed: list[str] = []
        self._scrubber = scrubber

    def renew(self, secrets: Mapping[str, Secret]) -> None:
        self.given.append({name: secret.reveal() for name, secret in secrets.items()})
        self.scrubbed += [self._scrubber.scrub_text(secret.reveal()) for secret in secrets.values()]


def test_until_the_launcher_is_gone_each_renewal_is_passed_on() -> None:
    ours, theirs = socket.socketpair()
    control = Control(theirs.detach())
    scrubber = Scrubber({"TOKEN": Secret("old-value")})
    keepers = [Keeper(scrubber), Keeper(scrubber)]
    complaints: list[str] = []

    def line(**values: str) -> bytes:
        secrets = {name: Secret(value) for name, value in values.items()}
        return wire.encode(RenewedSecrets(secrets=secrets), reveal_secrets=True)

    with ours:
        ours.sendall(wire.encode(SessionSecrets(secrets={}, signing_key=Secret("k")), reveal_secrets=True))
        ours.sendall(line(TOKEN="new-value", FOREIGN="foreign-value") + b"nonsense\n" + line(TOKEN="newer-value"))

    async def scene() -> None:
        with trio.fail_after(10):
            await control.receive_secrets()
            await renewals.pass_on(control, {"TOKEN"}, scrubber, keepers, complaints.append)

    trio.run(scene)
    control.close()
    for keeper in keepers:
        assert keeper.given == [{"TOKEN": "new-value"}, {"TOKEN": "newer-value"}]
        assert keeper.scrubbed == ["[secret TOKEN]"] * 2
    assert complaints[0] == "secrets that this session does not have were not renewed: FOREIGN"
    assert complaints[1].startswith("the launcher sent what is no renewed secret, and it is ignored: malformed message")
    assert len(complaints) == 2
    assert not any("value" in complaint for complaint in complaints)
    assert scrubber.scrub_text("old-value foreign-value") == "[secret TOKEN] foreign-value"
