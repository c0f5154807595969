"""Requests that two parsers read in two ways: each has one answer, and what goes upstream has one meaning."""

import pytest

from relay_bench import PORT, Bench, UpstreamRecorder
from smuggling import Request, agreed, requests

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
HOST = f"127.0.0.1:{PORT}"


def play(data: bytes, step: int) -> tuple[Bench, list[UpstreamRecorder]]:
    """Send `data` in segments of `step` through a relay whose upstream then answers each complete request."""
    upstreams = [UpstreamRecorder() for _ in range(4)]
    bench = Bench(at_hand=upstreams[::-1])
    for start in range(0, len(data), step):
        bench.relay.client_data(data[start : start + step])
    for upstream in upstreams:
        if upstream.state == "used" and agreed(bytes(upstream.written))[0]:
            bench.relay.upstream_data(OK)
    return bench, upstreams


@pytest.mark.parametrize("case", requests())
@pytest.mark.parametrize("step", [1, 7, 100_000])
def test_one_answer_and_one_meaning(case: Request, step: int) -> None:
    """Whatever the segmentation: the answers, and upstream just the requests that two other parsers find there."""
    bench, upstreams = play(case.data(HOST, "local"), step)
    case.check_answers(bench.client.take())
    arrived = []
    for upstream in upstreams:
        messages, unfinished = agreed(bytes(upstream.written))
        assert len(messages) + unfinished <= 1
        if unfinished and not case.unfinished:
            # Its head was on its way before its body went wrong: it never ends, and its connection is not used again.
            assert step < 100_000
            assert upstream.state == "closed"
        arrived += messages
    case.check_arrival(arrived)
    if case.answers and case.answers[-1][:1] == "4":
        assert bench.client.end == "eof"


@pytest.mark.parametrize("case", [param for param in requests() if not param.values[0].arrives])
def test_nothing_waits_for_a_connection_that_is_being_made(case: Request) -> None:
    """A body that goes wrong meanwhile: the connection is given up, and gets nothing."""
    bench = Bench()
    bench.relay.client_data(case.data(HOST, "local"))
    case.check_answers(bench.client.take())
    assert bench.asked - bench.cancelled == case.unfinished
