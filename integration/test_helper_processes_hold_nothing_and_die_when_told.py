"""Zygote and helpers as processes: whose child a helper is, what it holds, what it dropped, and how it ends."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import pki
from codingagents.proxies.helper import DRAIN_SECONDS
from codingagents.rewrite.specs import HeaderTemplate, PinSpec, RemoteSpec
from codingagents.trust import facts
from codingagents.trust.vocabulary import Secret
from helper_rig import HELPER_UID, PATIENCE, TOKEN, Helper, Zygote, closing_children, read_all
from scripted_upstream import OK, Exchange, Upstream

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="helpers take UIDs of their own: needs root")

REMOTE = RemoteSpec(name="quiet", scheme="http", host="127.0.0.1", port=9, path="/mcp")


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    with closing_children(), Zygote() as started:
        yield started


def status_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def test_a_helper_is_our_child_and_not_the_zygotes(zygote: Zygote) -> None:
    """CLONE_PARENT: the exact exit code arrives here, and the pidfd is that of the same process."""
    with Helper(zygote, REMOTE) as helper:
        assert status_of(helper.pid)["PPid"] == str(os.getpid())
        pid_line = next(
            line
            for line in Path(f"/proc/self/fdinfo/{helper.pidfd}").read_text().splitlines()
            if line.startswith("Pid:")
        )
        assert pid_line.split() == ["Pid:", str(helper.pid)]
        helper.signal(signal.SIGKILL)
        assert helper.wait() == -signal.SIGKILL


def test_a_helper_has_dropped_everything(zygote: Zygote) -> None:
    """UID, GID, groups, capabilities, new privileges, as the kernel tells it from outside."""
    with Helper(zygote, REMOTE) as helper:
        status = status_of(helper.pid)
        assert status["Uid"].split() == status["Gid"].split() == [str(HELPER_UID)] * 4
        assert status["Groups"] == ""
        assert status["NoNewPrivs"] == "1"
        assert status["Seccomp"] == "2"
        assert {status[name] for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {"0" * 16}
        assert status["Umask"] == "0077"
        assert status["Threads"] == "1"
        assert status["Name"] == "helper quiet"
        assert os.readlink(f"/proc/{helper.pid}/cwd") == "/"
        assert Path(f"/proc/{helper.pid}/mem").stat().st_uid == 0  # not dumpable: proc(5) gives its files to root
        limits = Path(f"/proc/{helper.pid}/limits").read_text()
        assert "Max core file size        0                    0" in limits


def test_a_helper_holds_no_descriptor_but_its_own(zygote: Zygote) -> None:
    """The listing from outside is what the helper reported: its channel, its listener, and what its loop needs."""
    with Helper(zygote, REMOTE) as first, Helper(zygote, REMOTE) as helper:
        folder = Path(f"/proc/{helper.pid}/fd")
        outside = {name: os.readlink(folder / name) for name in os.listdir(folder)}
        reported = dict(line.split(" ", 1) for line in helper.ready.open_fds)
        assert outside == reported
        ours = {os.readlink(f"/proc/self/fd/{number}") for number in (first.channel.fileno(), first.listener.fileno())}
        assert not ours & set(outside.values())
        assert [outside[number] for number in ("0", "1", "2")] == ["/dev/null"] * 3
        assert outside["4"] == os.readlink(f"/proc/self/fd/{helper.listener.fileno()}")
        files = {target for target in outside.values() if target.startswith("/")}
        assert files == {"/dev/null"}


def test_the_secret_is_in_no_argument_and_no_environment(zygote: Zygote) -> None:
    """The spec travelled over the channel only."""
    with Helper(zygote, REMOTE) as helper:
        for name in ("cmdline", "environ"):
            content = Path(f"/proc/{helper.pid}/{name}").read_bytes()
            assert TOKEN.encode() not in content
        assert Path(f"/proc/{helper.pid}/environ").read_bytes().strip(b"\0") == b""


def test_end_of_the_channel_ends_the_helper_at_once(zygote: Zygote) -> None:
    """EOF means die, a stream in flight or not."""

    async def answering(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n")
        await exchange.reader.read(1)

    with Upstream(answering) as upstream, Helper(zygote, upstream.remote()) as helper, helper.connect() as client:
        client.sendall(helper.head("GET /mcp HTTP/1.1"))
        assert client.recv(4096)
        begin = time.monotonic()
        helper.channel.close()
        assert helper.wait() == 0
        assert time.monotonic() - begin < DRAIN_SECONDS / 2
        with contextlib.suppress(ConnectionResetError):
            assert not read_all(client).endswith(b"0\r\n\r\n")


def test_a_helper_whose_spec_never_comes_ends_with_the_channel(zygote: Zygote) -> None:
    """Half a spec is no spec."""
    helper = Helper(zygote, REMOTE, start=False)
    helper.channel.sendall(b'{"version":1,')
    with helper:
        assert not select.select([helper.pidfd], [], [], 0.05)[0]
    assert helper.status == 0


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (b"{}\n", "malformed message"),
        (b'{"version":2}\n', "malformed message"),
    ],
)
def test_a_helper_refuses_a_spec_it_does_not_understand(zygote: Zygote, sent: bytes, reason: str) -> None:
    """The reason goes up the channel, and the exit code is not 0."""
    with Helper(zygote, REMOTE, start=False) as helper:
        helper.channel.sendall(sent)
        data = read_all(helper.channel)
        assert b'"fact":"failed"' in data
        assert reason.encode() in data
        assert helper.wait() == 1


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"uid": 0, "gid": 0}, "never runs as root"),
        ({"secrets": {}}, "TOKEN"),
        ({"secrets": {"TOKEN": Secret("a\nb")}}, "Authorization"),
    ],
)
def test_a_helper_that_cannot_do_its_job_says_why_and_ends(
    zygote: Zygote, changes: dict[str, object], reason: str
) -> None:
    """Nothing is served: the first fact is the failure."""
    headers = [HeaderTemplate(name="Authorization", template="Bearer ${TOKEN}")]
    remote = RemoteSpec(name="quiet", scheme="http", host="127.0.0.1", port=9, path="/mcp", headers=headers)
    with Helper(zygote, remote, start=False) as helper:
        helper.send_spec(remote, **changes)
        data = read_all(helper.channel)
        assert data.startswith(b'{"fact":"failed"')
        assert reason.encode() in data
        assert helper.wait() == 1


def test_a_helper_without_a_usable_trust_anchor_does_not_serve(zygote: Zygote) -> None:
    """Pins at the root that no anchor carries can never match: refused at the start, and told."""
    with Upstream() as upstream:
        remote = upstream.remote(tls_pins=[PinSpec(spki=pki.make_root().pin, at="root")])
    with Helper(zygote, remote, start=False) as helper:
        helper.send_spec(remote)
        assert b"no trust anchor is left" in read_all(helper.channel)
        assert helper.wait() == 1


def test_the_keys_of_a_terminal_are_not_for_helpers(zygote: Zygote) -> None:
    """Ctrl-C reaches a whole process group; ending helpers in order is the supervisor's job."""
    with Upstream() as upstream, Helper(zygote, upstream.remote()) as helper:
        for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
            helper.signal(number)
        with helper.connect() as client:
            client.sendall(helper.head(length=0))
            assert client.recv(4096).startswith(b"HTTP/1.1 200 ")


def test_sigterm_lets_requests_in_flight_finish(zygote: Zygote) -> None:
    """An idle connection is closed, a request gets its answer with Connection: close, and the exit code is 0."""
    requests: list[Exchange] = []

    async def answering(exchange: Exchange) -> None:
        requests.append(exchange)
        await exchange.reader.read(1)

    with Upstream(answering) as upstream, Helper(zygote, upstream.remote()) as helper:
        with helper.connect() as idle, helper.connect() as busy:
            busy.sendall(helper.head(length=0))
            deadline = time.monotonic() + PATIENCE
            while not requests:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            helper.signal(signal.SIGTERM)
            assert idle.recv(10) == b""
            upstream.call(lambda: requests[0].writer.write(OK))
            answer = read_all(busy)
            assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
            assert b"\r\nConnection: close\r\n" in answer
            assert helper.fact(facts.Request).status == 200
        assert helper.wait() == 0


def test_a_helper_killed_in_a_request_breaks_the_clients_connection(zygote: Zygote) -> None:
    """The client cannot take what it got for a complete answer; the listener outlives the helper."""

    async def answering(exchange: Exchange) -> None:
        await exchange.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        await exchange.reader.read(1)

    with Upstream(answering) as upstream, Helper(zygote, upstream.remote()) as helper, helper.connect() as client:
        client.sendall(helper.head("GET /mcp HTTP/1.1"))
        data = client.recv(4096)
        helper.signal(signal.SIGKILL)
        with contextlib.suppress(ConnectionResetError):
            data += read_all(client)
        assert data.endswith(b"\r\n\r\nhalf")
        assert helper.wait() == -signal.SIGKILL
        helper.connect().close()  # waits in the backlog for the next helper


def test_the_zygote_refuses_nonsense_and_goes_on(zygote: Zygote) -> None:
    """A bad message, missing or surplus descriptors: an error each, and no descriptor stays open."""
    folder = f"/proc/{zygote.process.pid}/fd"
    before = set(os.listdir(folder))
    with socket.socket() as spare:
        zygote.socket.send(b"nonsense")
        assert "malformed" in zygote.answer()[0].error
        cloned, _ = zygote.clone("few", spare.fileno())
        assert cloned.pid is None
        assert "not 1" in cloned.error
        cloned, _ = zygote.clone("many", *[spare.fileno()] * 9)
        assert cloned.pid is None
        zygote.socket.send(b"x" * 5000)
        assert zygote.answer()[0].pid is None
    assert set(os.listdir(folder)) == before
    with Helper(zygote, REMOTE):
        pass
    assert set(os.listdir(folder)) == before


def test_the_zygote_and_its_helpers_end_when_their_parent_does() -> None:
    """EOF ends the zygote; a helper outlives it, and ends with its own channel."""
    with Zygote() as zygote:
        helper = Helper(zygote, REMOTE)
    with helper:
        assert not select.select([helper.pidfd], [], [], 0.1)[0]
    assert helper.status == 0
