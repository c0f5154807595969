"""The same contexts under the event loops that helpers use, over loopback sockets."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
import uvloop

from codingagents.trust.context import peer_trust, pinned_context
from codingagents.trust.pins import Pin, PinMismatchError, pinning
from codingagents.trust.vocabulary import MinVersion, PinPosition
from pki import Issued, make_root

ROOT = make_root()
INTERMEDIATE = ROOT.issue_ca("Test Intermediate")
LEAF = INTERMEDIATE.issue()
OTHER_ROOT = make_root("Other Root")
ROGUE = OTHER_ROOT.issue()
REQUEST = b"request"


class Recorder(asyncio.Protocol):
    """A server's connection: whether its handshake ended, and every application byte."""

    def __init__(self) -> None:
        self.established = False
        self.received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.established = True

    def data_received(self, data: bytes) -> None:
        self.received += data


def server_context(identity: Issued, version: MinVersion, directory: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.maximum_version = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}[version]
    file = directory / "identity.pem"
    file.write_text(identity.key_pem + identity.chain_pem)
    context.load_cert_chain(file)
    return context


async def talk(client: ssl.SSLContext, serving: ssl.SSLContext) -> tuple[Recorder, Exception | None, bool]:
    loop = asyncio.get_running_loop()
    recorder, matched, refusal = Recorder(), False, None
    async with await loop.create_server(lambda: recorder, "127.0.0.1", 0, ssl=serving) as server:
        port = server.sockets[0].getsockname()[1]
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client, server_hostname="localhost")
        except ssl.SSLError as error:
            refusal = error
        else:
            match = peer_trust(writer.get_extra_info("ssl_object")).match
            matched = match is not None and bool(match.pins)
            writer.write(REQUEST)
            await writer.drain()
            writer.close()
            await writer.wait_closed()
            del reader
        await asyncio.sleep(0.02)  # whatever the client may have sent arrives
    return recorder, refusal, matched


LOOPS: list[Callable[[], asyncio.AbstractEventLoop]] = [asyncio.new_event_loop, uvloop.new_event_loop]


@pytest.mark.parametrize("new_loop", LOOPS)
@pytest.mark.parametrize("version", ["1.2", "1.3"])
@pytest.mark.parametrize(("issued", "at"), [(LEAF, "leaf"), (INTERMEDIATE, "intermediate"), (ROOT, "any")])
def test_the_hook_holds_under_the_event_loop(
    issued: Issued,
    at: PinPosition,
    version: MinVersion,
    new_loop: Callable[[], asyncio.AbstractEventLoop],
    tmp_path: Path,
) -> None:
    context = pinned_context(ROOT.pem + OTHER_ROOT.pem, pinning("enforce", [Pin(issued.pin, at)]))
    with asyncio.Runner(loop_factory=new_loop) as runner:
        good, refusal, matched = runner.run(talk(context, server_context(LEAF, version, tmp_path)))
        assert (good.received, refusal, matched) == (REQUEST, None, True)
        rogue, refusal, matched = runner.run(talk(context, server_context(ROGUE, version, tmp_path)))
    assert isinstance(refusal, ssl.SSLCertVerificationError)
    assert isinstance(refusal.__cause__, PinMismatchError)
    assert (rogue.received, matched) == (b"", False)
    if version == "1.3":
        assert not rogue.established
