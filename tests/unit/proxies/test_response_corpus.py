"""What a hostile or broken upstream answers: an error of ours, a broken connection, or one whole right answer."""

import pytest

from relay_bench import Bench, UpstreamRecorder, request
from smuggling import Response, responses

NEXT = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnext"


@pytest.mark.parametrize("case", responses())
@pytest.mark.parametrize("step", [1, 7, 100_000])
def test_the_client_is_told_nothing_wrong(case: Response, step: int) -> None:
    """Whatever the segmentation; and the next request on this connection, if there is one, gets its own answer."""
    upstreams = [UpstreamRecorder(), UpstreamRecorder()]
    bench = Bench(at_hand=upstreams[::-1])
    bench.relay.client_data(request(f"{case.ask} /mcp HTTP/1.1", length=False))
    data = case.data
    for start in range(0, len(data), step):
        if upstreams[0].state == "used":
            bench.relay.upstream_data(data[start : start + step])
    if case.then != "open" and upstreams[0].state == "used":
        bench.relay.upstream_closed(clean=case.then == "close")
    case.check(bench.client.take())
    assert not bench.relay.busy
    if case.client == "aborted" and bench.client.end == "abort":
        return
    assert bench.client.end is None
    bench.relay.client_data(request())
    assert upstreams[0].state in ("closed", "released")
    assert upstreams[1].written
    bench.relay.upstream_data(NEXT)
    assert bench.client.take().endswith(b"\r\n\r\nnext")
