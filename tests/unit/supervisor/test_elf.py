"""Which loader an ELF file names, by headers made here and by this machine's own programs."""

from __future__ import annotations

import os
import struct
import subprocess
import sys

import pytest

from codingagents.supervisor.elf import HEAD, interpreter_at


def elf(*headers: tuple[int, int, int], magic: bytes = b"\x7fELF\x02\x01", size: int = 56, table: int = 64) -> bytes:
    """Return a file's head with program headers of (type, offset, size)."""
    head = (
        magic.ljust(32, b"\0")
        + struct.pack("<Q", table)
        + bytes(14)
        + struct.pack("<HHHHH", size, len(headers), 0, 0, 0)
    )
    return head + b"".join(struct.pack("<IIQQQQQQ", kind, 4, at, 0, 0, long, long, 1) for kind, at, long in headers)


def test_the_segment_that_names_the_loader_is_found() -> None:
    assert interpreter_at(elf((6, 64, 112), (3, 176, 28))) == (176, 28)


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"#!/bin/sh\n",
        elf(),
        elf((1, 0, 4096)),  # static
        elf((3, 176, 28), magic=b"\x7fELF\x01\x01"),  # 32 bit
        elf((3, 176, 28), magic=b"\x7fELF\x02\x02"),  # the other way round
        elf((3, 176, 28), size=32),
        elf((3, 176, 28), table=1 << 40),
        elf((3, 176, 28))[:100],
        elf((3, 176, 1)),
        elf((3, 176, 1 << 40)),
    ],
)
def test_what_names_none_has_none(head: bytes) -> None:
    assert interpreter_at(head) is None


def test_it_is_what_readelf_says_of_this_interpreter() -> None:
    with open(sys.executable, "rb") as file:
        at = interpreter_at(file.read(HEAD))
        assert at is not None
        file.seek(at[0])
        name = file.read(at[1]).rstrip(b"\0").decode()
    said = subprocess.run(
        ["readelf", "-l", os.path.realpath(sys.executable)], capture_output=True, text=True, check=True
    )
    assert f"[Requesting program interpreter: {name}]" in said.stdout
