"""The wire of the runner's socket: what is sent reads back, and no bytes at all make more than a `RequestError`."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from codingagents.supervisor.task_wire import Request, RequestError, encode_request, parse_request

WITHOUT_NUL = st.binary(max_size=40).map(lambda raw: raw.replace(b"\0", b"x"))
NAMES = WITHOUT_NUL.map(lambda raw: raw.replace(b"=", b"_")).filter(bool)


@given(
    argv=st.lists(WITHOUT_NUL, min_size=1, max_size=5).filter(lambda argv: argv[0] != b""),
    cwd=WITHOUT_NUL.map(lambda raw: b"/" + raw),
    environment=st.lists(st.tuples(NAMES, WITHOUT_NUL), max_size=5),
    named=st.lists(st.tuples(NAMES, WITHOUT_NUL), max_size=5),
    terminal=st.booleans(),
)
def test_what_is_sent_reads_back(
    argv: list[bytes],
    cwd: bytes,
    environment: list[tuple[bytes, bytes]],
    named: list[tuple[bytes, bytes]],
    terminal: bool,
) -> None:
    sent = Request(
        argv=argv,
        cwd=cwd,
        environment=environment,
        named=named,
        terminal=terminal,
        rows=24,
        columns=80,
    )
    seen = parse_request(encode_request(sent).partition(b"\n")[2])
    assert all(getattr(seen, name) == getattr(sent, name) for name in Request.__slots__)


@given(st.binary(max_size=200) | st.lists(st.sampled_from([b"pipes", b"0", b"1", b"/", b"", b"a=b"])).map(b"\0".join))
def test_any_bytes_are_a_request_or_refused(body: bytes) -> None:
    try:
        seen = parse_request(body)
    except RequestError:
        return
    assert seen.argv
    assert encode_request(seen)
