"""Each block is run in an interpreter against what it is said to do."""

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from classic_bpf import run, seccomp_data
from codingagents.trust import bpf

ARCH, OTHER = 0xC000003E, 0x40000003
NO, YES, END, X32 = (bpf.errno_action(code) for code in (errno.EPERM, errno.EACCES, errno.EIO, errno.ENOSYS))
words = st.sampled_from([0, 1, 2, 3, 4, 1 << 32, 1 << 40, 2**64 - 1]) | st.integers(0, 2**64 - 1)


def outcome(block: bpf.Block, nr: int, *args: int, arch: int = ARCH, x32: int | None = X32) -> int:
    return run(bpf.assemble(bpf.prologue(arch, x32), block, bpf.give(END)), seccomp_data(ARCH, nr, args))


def test_a_foreign_architecture_is_killed_and_x32_answered() -> None:
    assert outcome([], 5, arch=OTHER) == bpf.KILL_PROCESS
    assert outcome([], 5) == END
    assert outcome([], 0x40000005) == X32
    assert outcome([], 0x40000005, x32=None) == END


@given(st.integers(0, 9), st.integers(0, 9))
def test_a_block_of_a_call_is_run_for_that_call_only(nr: int, wanted: int) -> None:
    assert outcome(bpf.on_call(wanted, bpf.give(YES)), nr) == (YES if nr == wanted else END)
    assert outcome(bpf.on_calls_from(wanted, bpf.give(YES)), nr) == (YES if nr >= wanted else END)
    # The number is still there for the block after one that was passed over.
    both = bpf.on_call(10, bpf.if_argument_is_null(0, bpf.give(NO), bpf.give(NO))) + bpf.on_call(nr, bpf.give(YES))
    assert outcome(both, nr) == YES


@given(st.integers(0, 5), words, st.lists(st.integers(0, 4), min_size=1, max_size=4, unique=True))
def test_an_argument_is_compared_as_the_kernel_reads_an_int(index: int, word: int, values: list[int]) -> None:
    args = [0xFFFFFFFF] * 6
    args[index] = word
    block = bpf.on_call(7, bpf.if_argument_in(index, values, bpf.give(YES), bpf.give(NO)))
    assert outcome(block, 7, *args) == (YES if word & 0xFFFFFFFF in values else NO)


@given(st.integers(0, 5), words, st.integers(1, 7))
def test_any_of_the_bits_counts(index: int, word: int, bits: int) -> None:
    args = [0] * 6
    args[index] = word
    block = bpf.on_call(7, bpf.if_argument_has(index, bits, bpf.give(YES), bpf.give(NO)))
    assert outcome(block, 7, *args) == (YES if word & bits else NO)


@given(st.integers(0, 5), words)
def test_null_is_null_in_both_halves(index: int, word: int) -> None:
    args = [1] * 6
    args[index] = word
    block = bpf.on_call(7, bpf.if_argument_is_null(index, bpf.give(YES), bpf.give(NO)))
    assert outcome(block, 7, *args) == (NO if word else YES)


@pytest.mark.parametrize("action", [bpf.ALLOW, bpf.KILL_PROCESS, bpf.USER_NOTIF, NO])
def test_an_action_is_returned_as_it_is(action: int) -> None:
    assert run(bpf.assemble(bpf.give(action)), seccomp_data(ARCH, 1)) == action


@given(st.sets(st.integers(0, 40), max_size=40), st.integers(0, 45))
def test_a_search_by_number_finds_what_is_there_and_nothing_else(known: set[int], nr: int) -> None:
    blocks = {number: bpf.give(bpf.errno_action(number + 1)) for number in known}
    block = bpf.by_number(blocks, bpf.give(YES))
    assert outcome(block, nr) == (bpf.errno_action(nr + 1) if nr in known else YES)


def test_a_block_of_a_search_may_look_at_arguments() -> None:
    looks = bpf.if_argument_in(1, [5], bpf.give(NO), bpf.give(X32))
    block = bpf.by_number(dict.fromkeys(range(9), looks), bpf.give(YES))
    assert [outcome(block, nr, 0, 5) for nr in (0, 4, 8, 9)] == [NO, NO, NO, YES]
    assert outcome(block, 4, 5, 0) == X32
