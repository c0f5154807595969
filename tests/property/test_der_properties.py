from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codingagents.trust.der import not_after, self_issued, spki_bytes, spki_pin
from codingagents.trust.errors import TrustError
from pki import make_root

DER = make_root("Fuzz").issue(["a.example", "192.0.2.1"]).der


@given(st.integers(0, len(DER) - 1), st.integers(0, 6), st.binary(max_size=6))
def test_a_mutated_certificate_gives_a_slice_of_itself_or_a_trust_error(at: int, drop: int, insert: bytes) -> None:
    mutated = DER[:at] + insert + DER[at + drop :]
    try:
        spki = spki_bytes(mutated)
    except TrustError:
        return
    assert spki in mutated
    assert spki[:1] == b"\x30"
    assert len(spki_pin(mutated)) == 51
    assert self_issued(mutated) in (True, False)
    with contextlib.suppress(TrustError):
        assert len(not_after(mutated)) == len("2026-11-24T00:00:00Z")


@given(st.binary(max_size=60))
def test_arbitrary_bytes_give_a_slice_of_themselves_or_a_trust_error(data: bytes) -> None:
    with contextlib.suppress(TrustError):
        assert spki_bytes(data) in data


@given(st.integers(0, len(DER) - 1))
def test_a_certificate_cut_anywhere_is_refused(length: int) -> None:
    with pytest.raises(TrustError):
        spki_bytes(DER[:length])
