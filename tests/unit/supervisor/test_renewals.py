"""Renewals on their way: secrets to every keeper, after the scrubber, trust to its server's; all else is said."""

import socket
from collections.abc import Mapping

import trio

from codingagents.rewrite.specs import AnyControl, ControlTrust, RenewedSecrets, RenewedTrust, SessionSecrets, TlsSpec
from codingagents.supervisor import renewals
from codingagents.supervisor.control import Control
from codingagents.trust import wire
from codingagents.trust.scrub import Scrubber
from codingagents.trust.vocabulary import Secret


class Keeper:
    """Notes what it is given, and what the scrubber makes of it at that moment."""

    def __init__(self, server: str, scrubber: Scrubber) -> None:
        self.server = server
        self.trusts: list[TlsSpec] = []
        self.given: list[dict[str, str]] = []
        self.scrubbed: list[str] = []
        self._scrubber = scrubber

    def renew(self, secrets: Mapping[str, Secret]) -> None:
        self.given.append({name: secret.reveal() for name, secret in secrets.items()})
        self.scrubbed += [self._scrubber.scrub_text(secret.reveal()) for secret in secrets.values()]

    def renew_trust(self, tls: TlsSpec) -> None:
        self.trusts.append(tls)


def test_until_the_launcher_is_gone_each_renewal_is_passed_on() -> None:
    ours, theirs = socket.socketpair()
    control = Control(theirs.detach())
    scrubber = Scrubber({"TOKEN": Secret("old-value")})
    keepers = [Keeper("one", scrubber), Keeper("two", scrubber)]
    tls = TlsSpec(server_name="a.test", anchors_pem="x", store="host")
    complaints: list[str] = []

    def line(**values: str) -> bytes:
        secrets = {name: Secret(value) for name, value in values.items()}
        return wire.encode(RenewedSecrets(secrets=secrets), reveal_secrets=True)

    async def scene() -> None:
        with trio.fail_after(10):
            await control.receive_secrets()
            await renewals.pass_on(control, {"TOKEN"}, scrubber, keepers, complaints.append)

    with ours:
        ours.sendall(wire.encode(SessionSecrets(secrets={}, signing_key=Secret("k")), reveal_secrets=True))
        ours.sendall(wire.encode(RenewedTrust(servers={"two": tls, "other": tls})))
        ours.sendall(line(TOKEN="new-value", FOREIGN="foreign-value") + b"nonsense\n" + line(TOKEN="newer-value"))
        ours.shutdown(socket.SHUT_WR)
        trio.run(scene)
        answer: ControlTrust = wire.decode(AnyControl, ours.recv(4096))
    control.close()
    assert (answer.server, answer.problem) == ("other", "this session has no such server")
    assert [keeper.trusts for keeper in keepers] == [[], [tls]]
    for keeper in keepers:
        assert keeper.given == [{"TOKEN": "new-value"}, {"TOKEN": "newer-value"}]
        assert keeper.scrubbed == ["[secret TOKEN]"] * 2
    assert complaints[0] == "secrets that this session does not have were not renewed: FOREIGN"
    assert complaints[1].startswith("the launcher sent what is no renewal, and it is ignored: malformed message")
    assert len(complaints) == 2
    assert not any("value" in complaint for complaint in complaints)
    assert scrubber.scrub_text("old-value foreign-value") == "[secret TOKEN] foreign-value"
