from __future__ import annotations

import base64
from urllib.parse import quote

from hypothesis import given
from hypothesis import strategies as st

from codingagents.trust.events import unescape_bytes
from codingagents.trust.scrub import MAX_ARG, MAX_ARGS, MAX_ARGV, Scrubber
from codingagents.trust.vocabulary import Secret

values = st.text(st.characters(codec="utf-8", exclude_characters="\0[]"), min_size=4, max_size=30)
small_argv = st.lists(st.binary(max_size=12).map(lambda raw: raw.replace(b"\0", b"")), max_size=5)


@given(values, st.binary(max_size=40), st.binary(max_size=40))
def test_no_spelling_of_a_secret_survives_any_surroundings(value: str, before: bytes, after: bytes) -> None:
    scrubber = Scrubber({"N": Secret(value)})
    raw = value.encode()
    for spelled in (raw, quote(value, safe="").encode()):
        assert spelled not in scrubber.scrub_bytes(before + spelled + after).replace(b"[secret N]", b"\0")
    if len(raw) >= 5:
        assert b"[secret N]" in scrubber.scrub_bytes(base64.b64encode(before + raw * 2 + after))


@given(values, st.lists(st.sampled_from([b"x", b"ab", b"\xff"]), max_size=4), st.integers(1, 60))
def test_a_cut_anywhere_leaves_no_long_part_of_a_secret(value: str, pieces: list[bytes], cut: int) -> None:
    raw = value.encode()
    read = (b"".join(pieces) + raw + b"tail")[:cut]
    scrubbed = Scrubber({"N": Secret(value)}).scrub_bytes(read, truncated=True)
    start = min(len(b"".join(pieces)), cut)
    if cut > start:
        assert b"[secret N]" in scrubbed
        assert raw not in scrubbed.replace(b"[secret N]", b"\0")


@given(small_argv)
def test_an_argv_without_secrets_can_be_had_back(argv: list[bytes]) -> None:
    scrubbed = Scrubber({"N": Secret("not in there")}).scrub_argv(argv)
    assert [unescape_bytes(arg) for arg in scrubbed.args] == argv
    assert not scrubbed.truncated


@given(st.lists(st.tuples(st.integers(0, 2000), st.integers(1, 255)), max_size=90))
def test_what_is_recorded_is_bounded(shape: list[tuple[int, int]]) -> None:
    argv = [bytes([byte]) * length for length, byte in shape]
    args = [unescape_bytes(arg) for arg in Scrubber({}).scrub_argv(argv).args]
    assert len(args) <= MAX_ARGS
    assert sum(map(len, args)) <= MAX_ARGV
    assert all(len(arg) <= MAX_ARG and full.startswith(arg) for arg, full in zip(args, argv, strict=False))
