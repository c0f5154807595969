"""TLS of an upstream connection, byte for byte: what is an end, what is data, and when either is told."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import ssl
from collections.abc import Awaitable, Callable

import pytest

from codingagents.proxies.tls_connection import TlsConnection
from codingagents.trust.context import checked_io
from codingagents.trust.pins import Pin, PinMismatchError, pinning
from pki import make_root
from tls_bench import LEAF, SERVING, VERSIONS, Bench, Version, serving, trusting

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def in_a_loop(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    @functools.wraps(test)
    def run(**arguments: object) -> None:
        async def limited() -> None:
            async with asyncio.timeout(10):
                await test(**arguments)

        asyncio.run(limited())

    return run


def made(version: Version = "1.3") -> Bench:
    return Bench(trusting(), SERVING[version])


@pytest.mark.parametrize("version", VERSIONS)
@in_a_loop
async def test_what_is_written_on_one_side_is_read_on_the_other(version: Version) -> None:
    bench = made(version)
    connection = bench.stand()
    assert bench.server.version() == f"TLSv{version}"
    connection.write(b"request")
    assert bench.from_client() == b"request"
    bench.arrive(bench.sealed(ANSWER))
    assert bench.owner.pieces == [ANSWER]
    assert bench.home.happened == ["opened"]


@pytest.mark.parametrize("version", VERSIONS)
@in_a_loop
async def test_only_the_close_alert_is_a_clean_end(version: Version) -> None:
    """Also in one segment with data, which comes first."""
    bench = made(version)
    bench.stand()
    bench.arrive(bench.sealed(ANSWER) + bench.close_alert())
    assert bench.owner.pieces == [ANSWER]
    assert bench.owner.ends == [True]
    assert bench.pipe.closed
    bench.pipe.lose()
    assert bench.owner.ends == [True]
    assert bench.home.happened == ["opened", "lost"]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("ending", ["eof", "reset", "alert", "corrupt", "no TLS"])
@in_a_loop
async def test_every_other_end_is_not_clean(version: Version, ending: str) -> None:
    """What was whole before it is passed on; what comes behind it is not."""
    bench = made(version)
    bench.stand()
    good = bench.sealed(ANSWER)
    if ending == "eof":
        bench.arrive(good)
        assert isinstance(bench.pipe.protocol, TlsConnection)
        bench.pipe.protocol.eof_received()
    elif ending == "reset":
        bench.arrive(good)
        bench.pipe.lose(ConnectionResetError())
    elif ending == "alert":
        bench.arrive(good + bench.fatal_alert())
    elif ending == "corrupt":
        bad = bytearray(bench.sealed(b"bad"))
        bad[-1] ^= 1
        bench.arrive(good + bytes(bad) + bench.sealed(b"behind"))
    else:
        bench.arrive(good + b"HTTP/1.1 400 Bad Request\r\n\r\n")
    assert bench.owner.pieces == [ANSWER]
    assert bench.owner.ends == [False]
    assert bench.connection.ended


@pytest.mark.parametrize("version", VERSIONS)
@in_a_loop
async def test_who_speaks_before_being_asked_gets_no_request(version: Version) -> None:
    """Data at once with the end of the handshake, of which only the fact is known to whoever dialed."""
    bench = made(version)
    bench.shake(lambda: bench.sealed(b"220 mail.example ESMTP\r\n"))
    assert bench.connection.ended
    assert bench.pipe.closed


@in_a_loop
async def test_session_tickets_are_no_data() -> None:
    """A TLS 1.3 server sends them when the handshake is over for us, or later."""
    bench = made()
    bench.shake()
    assert not bench.connection.ended  # they came without an owner
    late = made()
    late.to_server.write(late.pipe.written)
    with pytest.raises(ssl.SSLWantReadError):
        late.server.do_handshake()
    late.pipe.written = b""
    late.arrive(late.from_server.read())
    late.connection.owner = late.owner
    late.to_server.write(late.pipe.written)
    late.server.do_handshake()
    tickets = late.from_server.read()
    assert len(tickets) > 200
    late.arrive(tickets + late.sealed(ANSWER))
    assert late.owner.pieces == [ANSWER]


@pytest.mark.parametrize("size", [1, 16 * 1024, 16 * 1024 + 1, 300_000])
@in_a_loop
async def test_what_is_large_passes_in_bounded_pieces(size: int) -> None:
    """In both directions, whatever is read from a socket at once."""
    data = bytes(range(251)) * (size // 251) + bytes(size % 251)
    bench = made()
    bench.stand().write(data)
    assert bench.from_client() == data
    bench.arrive(bench.sealed(data))
    assert bench.owner.data == data
    assert max(map(len, bench.owner.pieces)) <= 16 * 1024


@in_a_loop
async def test_while_it_is_paused_nothing_is_delivered() -> None:
    """Not even what came in the same read, nor its end; afterwards all of it, and only then is more read."""
    bench = made()
    connection = bench.stand()
    bench.owner.then = connection.pause_reading
    data = bytes(100_000)
    bench.arrive(bench.sealed(data) + bench.close_alert())
    delivered = 1
    while len(bench.owner.data) < len(data):
        assert len(bench.owner.pieces) == delivered
        assert bench.pipe.paused
        connection.resume_reading()
        assert len(bench.owner.pieces) == delivered, "delivered in the call that resumes"
        await asyncio.sleep(0)
        delivered += 1
    assert bench.owner.ends == []
    connection.resume_reading()
    await asyncio.sleep(0)
    assert bench.owner.ends == [True]
    assert bench.owner.data == data


@in_a_loop
async def test_it_is_read_again_once_nothing_is_held() -> None:
    bench = made()
    connection = bench.stand()
    connection.pause_reading()
    assert bench.pipe.paused
    connection.resume_reading()
    connection.pause_reading()
    await asyncio.sleep(0)
    assert bench.pipe.paused
    connection.resume_reading()
    await asyncio.sleep(0)
    assert not bench.pipe.paused
    bench.arrive(bench.sealed(ANSWER))
    assert bench.owner.pieces == [ANSWER]


@in_a_loop
async def test_after_the_end_everything_is_harmless() -> None:
    """Whoever writes, pauses, resumes or closes then has not heard yet."""
    bench = made()
    connection = bench.stand()
    connection.pause_reading()
    connection.resume_reading()
    connection.close()
    connection.write(b"late")
    connection.pause_reading()
    connection.resume_reading()
    await asyncio.sleep(0)
    connection.close()
    bench.pipe.lose()
    assert bench.pipe.written == b""
    assert bench.owner.ends == []


@in_a_loop
async def test_an_owner_may_close_in_the_middle_of_what_came() -> None:
    bench = made()
    connection = bench.stand()
    bench.owner.then = connection.close
    bench.arrive(bench.sealed(bytes(100_000)) + bench.close_alert())
    assert len(bench.owner.pieces) == 1
    assert bench.owner.ends == []
    assert bench.pipe.closed


@pytest.mark.parametrize("rest", ["data", "half", "alert"])
@in_a_loop
async def test_what_follows_an_answer_ends_an_idle_connection(rest: str) -> None:
    """Whoever takes it in the middle of what came finds it spoiled; so does everybody later."""
    bench = made()
    connection = bench.stand()
    usable = []

    def release() -> None:
        connection.release(None)
        usable.append(connection.usable())

    bench.owner.then = release
    answer = bench.sealed(ANSWER)
    behind = bench.close_alert() if rest == "alert" else bench.sealed(b"surplus")
    if rest == "half":
        behind = behind[:-3]
    bench.arrive(answer + behind)
    assert bench.owner.pieces == [ANSWER]
    assert usable == [False]
    assert connection.ended
    assert not connection.usable()


@in_a_loop
async def test_back_pressure_passes_to_the_owner() -> None:
    bench = made()
    connection = bench.stand()
    connection.pause_writing()
    connection.resume_writing()
    assert bench.owner.full == [True, False]


@pytest.mark.parametrize("version", VERSIONS)
@in_a_loop
async def test_nothing_goes_to_a_server_whose_path_is_refused(version: Version) -> None:
    """There never is a connection, nor a read or a write that could pass the check by."""
    bench = Bench(trusting(pinning("enforce", (Pin(make_root("Pinned").pin),))), SERVING[version])
    for _ in bench.turns():
        bench.to_server.write(bench.pipe.written)
        bench.pipe.written = b""
        with contextlib.suppress(ssl.SSLWantReadError):
            bench.server.do_handshake()
        bench.arrive(bench.from_server.read())
    error = bench.secured.exception()
    assert isinstance(error, ssl.SSLCertVerificationError)
    assert isinstance(error.__cause__, PinMismatchError)
    assert LEAF.pin in str(error.__cause__.seen)
    assert bench.pipe.written == b""
    assert bench.pipe.closed
    assert bench.home.happened == []


@in_a_loop
async def test_no_connection_is_made_of_what_was_not_checked() -> None:
    bench = made()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    unchecked = trusting().wrap_bio(incoming, outgoing, server_hostname="localhost")
    with pytest.raises(ssl.SSLCertVerificationError, match="not checked"):
        TlsConnection(bench.home, unchecked, incoming, outgoing)
    with pytest.raises(ssl.SSLCertVerificationError, match="not checked"):
        checked_io(unchecked)
    checked_io(bench.stand().tls)


@pytest.mark.parametrize(
    ("ending", "error"),
    [
        ("lost", ConnectionResetError),
        ("reset", ConnectionAbortedError),
        ("no TLS", ssl.SSLError),
        ("untrusted", ssl.SSLCertVerificationError),
    ],
)
@in_a_loop
async def test_a_handshake_that_fails_says_why(ending: str, error: type[Exception]) -> None:
    """Once; what comes later, such as the loss of the connection, changes nothing."""
    bench = Bench(trusting(), serving(make_root("Nobody's").issue()))
    if ending == "lost":
        bench.pipe.lose()
    elif ending == "reset":
        bench.pipe.lose(ConnectionAbortedError())
    elif ending == "no TLS":
        bench.arrive(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        bench.arrive(b"more")
    else:
        bench.to_server.write(bench.pipe.written)
        with pytest.raises(ssl.SSLWantReadError):
            bench.server.do_handshake()
        bench.arrive(bench.from_server.read())
    bench.pipe.lose()
    assert isinstance(bench.secured.exception(), error)
    assert bench.home.happened == []


@in_a_loop
async def test_whoever_waited_may_have_gone() -> None:
    """A dial that was cancelled, or outdated, aborts the transport; nothing more is sent to the server."""
    gone = made()
    gone.secured.cancel()
    gone.pipe.lose()
    for outdated in (False, True):
        late = made()
        late.to_server.write(late.pipe.written)
        late.pipe.written = b""
        with pytest.raises(ssl.SSLWantReadError):
            late.server.do_handshake()
        if outdated:
            late.secured.set_result(None)
        else:
            late.secured.cancel()
        late.arrive(late.from_server.read())
        late.pipe.lose()
        assert late.pipe.written == b""
        assert late.home.happened == []
