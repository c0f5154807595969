"""A classic BPF machine, as seccomp has it (linux/filter.h), to run filters without installing them."""

from __future__ import annotations

import struct

_OPERANDS = {0x15: lambda a, k: a == k, 0x25: lambda a, k: a > k, 0x35: lambda a, k: a >= k, 0x45: lambda a, k: a & k}


def seccomp_data(arch: int, nr: int, args: tuple[int, ...] = ()) -> bytes:
    """Return a `struct seccomp_data`."""
    return struct.pack("<iIQ6Q", nr - (1 << 32) if nr >> 31 else nr, arch, 0, *args, *[0] * (6 - len(args)))


def run(program: bytes, data: bytes) -> int:
    """Return what `program` (an array of `struct sock_filter`) returns for `data`; an unknown instruction raises."""
    code = list(struct.iter_unpack("<HBBI", program))
    memory = [0] * 16
    accumulator = at = 0
    while True:
        operation, when_true, when_false, k = code[at]
        at += 1
        match operation:
            case 0x20:  # LD W ABS
                accumulator = struct.unpack_from("<I", data, k)[0]
            case 0x54:  # ALU AND K
                accumulator &= k
            case 0x02:  # ST
                memory[k] = accumulator
            case 0x60:  # LD MEM
                accumulator = memory[k]
            case 0x05:  # JA
                at += k
            case 0x06:  # RET K
                return int(k)
            case _:
                at += when_true if _OPERANDS[operation](accumulator, k) else when_false
