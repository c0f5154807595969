"""The one home of Hypothesis strategies."""

from __future__ import annotations

import types
from datetime import datetime
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec
from hypothesis import strategies as st

from codingagents.rewrite.specs import ExecRule, ExecSpec
from codingagents.supervisor.exec_routes import OwnProgram, Routes
from codingagents.trust import events
from codingagents.trust.events import AnyEvent
from codingagents.trust.vocabulary import Role, SessionId

# Any text that UTF-8 can carry, and what log lines fear most: escapes, quotes, newlines, separators, terminal codes.
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20) | st.sampled_from(
    ['"', "\\", "\n", "\u2028", "\x7f", "\x1b[2J", "\b\f\t\r\x01", "\U0001f600\ue000", "é", "</script>"]
)
ascii_keys = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=8)
counts = st.integers(min_value=-1, max_value=2**53 - 1)


def of_hint(hint: Any) -> st.SearchStrategy[Any]:
    """Values of a field's annotation, for the shapes that events are made of."""
    if hint is str:
        return texts
    if hint is int:
        return counts
    if hint is bool:
        return st.booleans()
    if hint is types.NoneType:
        return st.none()
    origin, args = get_origin(hint), get_args(hint)
    if origin is Annotated:
        assert args[0] is int
        return st.integers(min_value=args[1].ge, max_value=args[1].le)
    if origin is Literal:
        return st.sampled_from(args)
    if origin in (Union, types.UnionType):
        return st.one_of(*map(of_hint, args))
    if origin is list:
        return st.lists(of_hint(args[0]), max_size=3)
    if origin is dict:
        return st.dictionaries(ascii_keys, of_hint(args[1]), max_size=3)
    if isinstance(hint, type) and issubclass(hint, msgspec.Struct):
        return of_struct(hint)
    raise AssertionError(f"events have no fields of type {hint}")


def of_struct(kind: type) -> st.SearchStrategy[Any]:
    """Values of a message class, every field drawn."""
    hints = get_type_hints(kind, include_extras=True)
    fields = {name: of_hint(hints[name]) for name in kind.__struct_fields__}  # type: ignore[attr-defined]  # msgspec's own
    return st.builds(kind, **fields)


any_event: st.SearchStrategy[AnyEvent] = st.one_of(*map(of_struct, get_args(AnyEvent)))
log_events: st.SearchStrategy[AnyEvent] = st.one_of(
    *(of_struct(kind) for kind in get_args(AnyEvent) if kind is not events.Checkpoint)
)
session_ids = st.from_regex(r"[a-z0-9-]{1,64}", fullmatch=True).map(SessionId)
moments = st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1), timezones=st.timezones())

# How a stream may be cut: see `cut`.
cuts = st.lists(st.integers(min_value=1, max_value=40), min_size=1, max_size=12)


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    """Cut `data` into pieces of `sizes`, over and over."""
    found: list[bytes] = []
    start = 0
    while start < len(data):
        size = sizes[len(found) % len(sizes)]
        found.append(data[start : start + size])
        start += size
    return found


# What parsers of lines stumble over.
scraps = st.sampled_from(
    [
        *(b"\r\n", b"\n", b"\r", b"\r\n ", b" ", b"\t", b"\x00", b"\x0b", b"\xff"),
        *(b":", b";", b",", b"_", b"-", b"#", b"0", b"a"),
    ]
)


@st.composite
def mutated(draw: st.DrawFn, messages: st.SearchStrategy[bytes]) -> bytes:
    """Messages as they are, or with a few bytes put in, taken out, or told twice."""
    data = draw(messages)
    for _ in range(draw(st.integers(min_value=0, max_value=2))):
        start = draw(st.integers(min_value=0, max_value=len(data)))
        end = min(len(data), start + draw(st.integers(min_value=0, max_value=3)))
        data = data[:start] + draw(scraps | st.just(data[start:end] * 2) | st.just(b"")) + data[end:]
    return data


# -- execs, and rules about them

# Few letters, so that wildcards have many ways to match and to fail.
exec_globs = st.lists(st.sampled_from(["**", "*", "?", "/", "a", "b", "ab", "."]), max_size=9).map("".join)
exec_names = st.text(alphabet="/ab.", max_size=12).map(str.encode)
exec_paths = st.binary(max_size=30).map(lambda raw: b"/" + raw.replace(b"\0", b""))
exec_rules = st.builds(
    ExecRule,
    action=st.sampled_from(["allow", "deny"]),
    path=exec_globs.map(lambda glob: "/" + glob),
    role=st.sampled_from([None, "agent", "task"]),
    argv=st.lists(st.sampled_from(["a", "b"]), max_size=2),
)
exec_specs = st.builds(
    ExecSpec,
    mode=st.sampled_from(["observe", "enforce"]),
    rules=st.lists(exec_rules, max_size=4),
    trees=st.just(["/a"]),
)
exec_routes = st.builds(
    Routes,
    client=st.sampled_from(["", "claude"]),
    own=st.lists(
        st.builds(
            OwnProgram,
            path=exec_globs.map(lambda glob: "/" + glob),
            why=st.sampled_from(["itself", "the task shell"]),
            argv=st.lists(st.sampled_from(["a", "b"]), max_size=1),
        ),
        max_size=3,
    ),
    interpreters=st.lists(exec_names.map(lambda name: "/" + name.decode()), max_size=2),
    files=st.lists(st.sampled_from(["/a/b", "/b", "/ab"]), max_size=2),
    mounted=st.lists(st.sampled_from(["/a/a", "/ba"]), max_size=1),
)
exec_calls = st.tuples(
    st.sampled_from([Role.AGENT, Role.TASK]),
    (exec_names.map(lambda name: b"/" + name) | exec_paths),
    st.none() | exec_names.map(lambda name: b"/" + name),
    st.lists(st.sampled_from([b"a", b"b", b"\xff"]), max_size=3),
)
