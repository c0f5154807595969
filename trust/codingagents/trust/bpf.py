"""CORE: classic BPF for seccomp(2): the blocks that our filters are made of, and their encoding. No system call.

A block is a list of instructions that leaves through a return on every path, or else falls through to the next block;
each function says which. Every block but `prologue` expects the call's number in the accumulator, and one that falls
through keeps it there. linux/filter.h, linux/bpf_common.h, linux/seccomp.h.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Final

# code, instructions to skip where a comparison holds, and where it does not, operand
Instruction = tuple[int, int, int, int]
Block = list[Instruction]

_LD_W_ABS: Final = 0x20
_JEQ: Final = 0x15
_JGE: Final = 0x35
_JSET: Final = 0x45
_RET: Final = 0x06

KILL_PROCESS: Final = 0x80000000
USER_NOTIF: Final = 0x7FC00000
_ERRNO: Final = 0x00050000
ALLOW: Final = 0x7FFF0000

_NR, _ARCH, _ARGS = 0, 4, 16  # offsets in struct seccomp_data; the arguments are of 8 bytes, little-endian
_X32_BIT: Final = 0x40000000


def errno_action(code: int) -> int:
    """Return the action that makes the call fail with errno `code`."""
    return _ERRNO | code


def prologue(audit_arch: int, x32: int | None) -> Block:
    """Kill calls of a foreign architecture, answer those of x32 with the action `x32` (None: there is none), go on."""
    load = [(_LD_W_ABS, 0, 0, _ARCH), (_JEQ, 1, 0, audit_arch), (_RET, 0, 0, KILL_PROCESS), (_LD_W_ABS, 0, 0, _NR)]
    return load if x32 is None else [*load, (_JGE, 0, 1, _X32_BIT), (_RET, 0, 0, x32)]


def give(action: int) -> Block:
    """Leave with `action`."""
    return [(_RET, 0, 0, action)]


def on_call(number: int, block: Block) -> Block:
    """Run `block`, which must leave, for the call `number`; go on for others."""
    return [(_JEQ, 0, len(block), number), *block]


def on_calls_from(number: int, block: Block) -> Block:
    """Run `block`, which must leave, for `number` and all above; go on for others."""
    return [(_JGE, 0, len(block), number), *block]


def by_number(blocks: Mapping[int, Block], other: Block) -> Block:
    """Leave by the block of the call's number, or by `other`; all must leave. A search by halves: six steps for fifty.

    Kernels before 5.11 run a filter on every call, so that what it does not know should cost as little as what it does.
    Raises `struct.error` on assembly where a half is longer than a jump reaches, which is 255 instructions.
    """
    numbers = sorted(blocks)
    if not numbers:
        return other
    if len(numbers) == 1:
        return [*on_call(numbers[0], blocks[numbers[0]]), *other]
    middle = len(numbers) // 2
    below, above = (
        by_number({number: blocks[number] for number in half}, other) for half in (numbers[:middle], numbers[middle:])
    )
    return [(_JGE, len(below), 0, numbers[middle]), *below, *above]


def if_argument_in(index: int, values: Sequence[int], yes: Block, no: Block) -> Block:
    """Leave by `yes` where the low 32 bits of argument `index` are one of `values`, else by `no`.

    For arguments that the kernel takes as an int: it does not look at the high half either.
    """
    last = len(values) - 1
    tests = [(_JEQ, last - at, 0 if at < last else len(yes), value) for at, value in enumerate(values)]
    return [(_LD_W_ABS, 0, 0, _ARGS + 8 * index), *tests, *yes, *no]


def if_argument_has(index: int, bits: int, yes: Block, no: Block) -> Block:
    """Leave by `yes` where any of `bits` (of the low 32) is set in argument `index`, else by `no`."""
    return [(_LD_W_ABS, 0, 0, _ARGS + 8 * index), (_JSET, 0, len(yes), bits), *yes, *no]


def if_argument_is_null(index: int, yes: Block, no: Block) -> Block:
    """Leave by `yes` where all 64 bits of argument `index` are 0, else by `no`."""
    low, high = _ARGS + 8 * index, _ARGS + 8 * index + 4
    return [
        *[(_LD_W_ABS, 0, 0, low), (_JEQ, 0, 2 + len(yes), 0)],
        *[(_LD_W_ABS, 0, 0, high), (_JEQ, 0, len(yes), 0)],
        *yes,
        *no,
    ]


def assemble(*blocks: Block) -> bytes:
    """Return the blocks as one array of `struct sock_filter` (8 bytes each)."""
    return b"".join(struct.pack("<HBBI", *instruction) for block in blocks for instruction in block)
