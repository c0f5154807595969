"""Which interpreter a first line names; tests/property compares with what the kernel runs."""

import pytest

from codingagents.supervisor.interpreters import HEAD, interpreter_of


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (b"#!/bin/sh\n", b"/bin/sh"),
        (b"#!/bin/sh", b"/bin/sh"),
        (b"#! \t /bin/sh \t\nexit", b"/bin/sh"),
        (b"#!/usr/bin/env python3 -I\n", b"/usr/bin/env"),
        (b"#!/bin/sh\r\n", b"/bin/sh\r"),
        (b"#!bin/sh\n", b"bin/sh"),
        (b"#!/bin/\xff\n", b"/bin/\xff"),
        (b"#!/bin/sh\0\n", b"/bin/sh"),
        (b"#!/bin/\0sh\n", b"/bin/"),
        (b"#!\0\n", b""),
        (b"#!\n/bin/sh\n", None),
        (b"#!  \t\n", None),
        (b"#!", b""),
        (b"#", None),
        (b"", None),
        (b" #!/bin/sh\n", None),
        (b"\x7fELF", None),
        (b"#!/" + b"x" * 252 + b"\n", b"/" + b"x" * 252),
        (b"#!/" + b"x" * 253 + b"\n", None),  # its end is not in the buffer
        (b"#!/" + b"x" * 300, None),
        (b"#!/" + b"x" * 252 + b" y", b"/" + b"x" * 252),
        (b"#!/bin/sh " + b"x" * 300 + b"\n", b"/bin/sh"),
        (b"#!" + b" " * 300 + b"/bin/sh\n", None),
    ],
)
def test_a_first_line_names_its_interpreter(head: bytes, expected: bytes | None) -> None:
    assert interpreter_of(head) == interpreter_of(head[:HEAD]) == expected
