"""What a wrapper is, what may be wrapped, and what has become of it: by examples."""

import dataclasses
from collections.abc import Sequence

import pytest

from codingagents.rewrite import places
from codingagents.rewrite.clients.known import CLIENTS
from codingagents.supervisor import wrap_rules
from codingagents.supervisor.wrap_rules import Candidate, Found, Owned, Wrapped

DIRECTORIES = (Owned("/usr/bin", 0, 0o040755), Owned("/usr", 0, 0o040755), Owned("/", 0, 0o040755))
CLAUDE = Candidate(
    path="/usr/bin/claude",
    directories=DIRECTORIES,
    program=Owned("/usr/lib/node_modules/claude/cli.js", 0, 0o100755),
    is_file=True,
    has_capabilities=False,
    known_shells=frozenset({"/usr/bin/rc"}),
    interpreter="/usr/bin/python3.11",
)
RECORD = Wrapped(path="/usr/bin/claude", wrapper_sha256="w", vendor_sha256="v", vendor_bytes=1, vendor_mtime=1)


@pytest.mark.parametrize(
    ("path", "vendor"),
    [
        ("/usr/bin/claude", "/usr/bin/coding-agents-vendor-claude"),
        ("/opt/x/cli.mjs", "/opt/x/coding-agents-vendor-cli.mjs"),  # Node.js goes by the extension
        ("/init", "/coding-agents-vendor-init"),
    ],
)
def test_the_vendors_program_stays_in_its_directory_with_its_extension(path: str, vendor: str) -> None:
    assert wrap_rules.vendor_beside(path) == vendor


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/usr/bin/claude", ["exec", "run", "shell"]),
        ("/usr/bin/codex", ["run", "shell"]),
        ("/opt/codex.js", ["run", "shell"]),
        ("/usr/bin/opencode", ["exec", "shell"]),
        ("/usr/bin/codex-helper", ["exec", "run", "shell"]),
    ],
)
def test_a_clients_own_subcommands_stay_its_own(path: str, words: Sequence[str]) -> None:
    assert wrap_rules.routed(path) == words


def test_what_is_said_of_a_clients_subcommands_is_of_words_that_are_routed() -> None:
    """A word that is none of ours has nothing to yield."""
    assert all(words <= set(wrap_rules.ROUTED) for words in wrap_rules.VENDOR_COMMANDS.values())
    assert "codex" in wrap_rules.VENDOR_COMMANDS.keys() & CLIENTS.keys()


def test_a_wrapper_is_known_by_its_head() -> None:
    text = wrap_rules.wrapper_text("/usr/bin/claude", interpreter="/usr/bin/python3", source="", python="/venv/python")
    assert wrap_rules.is_wrapper(text[: wrap_rules.HEAD_BYTES])
    assert text.startswith(b"#!/usr/bin/python3 -IS\n")
    assert f"home={places.AGENT_HOME!r}, shells={places.SHELLS!r}".encode() in text
    for other in (b"", b"#!/bin/sh\n", text[1:], text.replace(b"wrapper", b"shell"), b"\n" + text):
        assert not wrap_rules.is_wrapper(other)


def test_an_ordinary_client_may_be_wrapped() -> None:
    assert wrap_rules.why_not(CLAUDE) == ""


def program(path: str, mode: int = 0o100755, uid: int = 0) -> Candidate:
    return dataclasses.replace(CLAUDE, program=Owned(path, uid, mode))


@pytest.mark.parametrize(
    ("seen", "why"),
    [
        (dataclasses.replace(CLAUDE, path="/usr/bin/cla\nude"), "characters"),
        (dataclasses.replace(CLAUDE, path="/usr/b\nin/claude"), "characters"),
        (dataclasses.replace(CLAUDE, path="/usr/bin/-claude"), "characters"),
        (dataclasses.replace(CLAUDE, path="/usr/bin/coding-agents"), "one of ours"),
        (dataclasses.replace(CLAUDE, path="/usr/bin/coding-agents-vendor-claude"), "one of ours"),
        (program(f"{places.SHELLS}/bash"), "one of ours"),
        (dataclasses.replace(CLAUDE, path="/usr/bin/sh"), "it is a shell"),
        (program("/usr/bin/dash"), "it is a shell"),
        (program("/usr/bin/rc"), "it is a shell"),
        (program("/usr/bin/python3.11"), "wrappers themselves"),
        (dataclasses.replace(CLAUDE, interpreter="/a b/python"), "first line"),
        (dataclasses.replace(CLAUDE, interpreter="/" + 130 * "p"), "first line"),
        (dataclasses.replace(CLAUDE, is_file=False), "no regular file"),
        (program("/usr/bin/x", 0o104755), "privileges"),
        (program("/usr/bin/x", 0o102755), "privileges"),
        (dataclasses.replace(CLAUDE, has_capabilities=True), "privileges"),
        (program("/usr/bin/x", 0o100644), "not executable"),
        (program("/usr/bin/x", uid=1000), "/usr/bin/x is not root's"),
        (program("/usr/bin/x", 0o100775), "/usr/bin/x may be written by others"),
        (program("/usr/bin/x", 0o101757), "/usr/bin/x may be written by others"),  # sticky means nothing on a file
        (dataclasses.replace(CLAUDE, directories=(Owned("/opt", 7, 0o040755),)), "/opt is not root's"),
        (dataclasses.replace(CLAUDE, directories=(Owned("/opt", 0, 0o040775),)), "/opt may be written by others"),
    ],
)
def test_what_must_not_be_wrapped_is_refused(seen: Candidate, why: str) -> None:
    assert why in wrap_rules.why_not(seen)


def test_others_cannot_replace_a_file_in_a_sticky_directory() -> None:
    assert wrap_rules.why_not(dataclasses.replace(CLAUDE, directories=(Owned("/tmp", 0, 0o041777),))) == ""


@pytest.mark.parametrize(("mode", "wrappers"), [(0o755, 0o755), (0o700, 0o700), (0o750, 0o750), (0o711, 0o755)])
def test_whom_the_program_is_for_the_wrapper_is_for(mode: int, wrappers: int) -> None:
    """A script must be readable to be executed."""
    assert wrap_rules.wrapper_mode(0o100000 | mode) == wrappers


@pytest.mark.parametrize(
    ("found", "state"),
    [
        (Found(is_wrapper=True, there=True, wrapper_sha256="w", vendor_sha256="v"), "wrapped"),
        (Found(is_wrapper=True, there=True, wrapper_sha256="x", vendor_sha256="v"), "wrapper changed"),
        (Found(is_wrapper=True, there=True, wrapper_sha256="w", vendor_sha256="x"), "vendor changed"),
        (Found(is_wrapper=True, there=True, wrapper_sha256="w", vendor_sha256=""), "vendor missing"),
        (Found(is_wrapper=False, there=True, wrapper_sha256="", vendor_sha256="v"), "not wrapped"),
        (Found(is_wrapper=False, there=False, wrapper_sha256="", vendor_sha256="v"), "missing"),
    ],
)
def test_what_became_of_a_wrapped_program_is_said_with_what_to_do(found: Found, state: wrap_rules.State) -> None:
    assert wrap_rules.state(RECORD, found) == state
    sentence = wrap_rules.sentence(RECORD.path, state)
    assert sentence.startswith(RECORD.path)
    assert ("coding-agents wrap" in sentence) == (state != "wrapped")
