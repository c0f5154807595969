"""Whatever a wrapped program is called, its wrapper says the same of it as the rules do."""

import ast

from hypothesis import given
from hypothesis import strategies as st

from codingagents.supervisor import wrap_rules
from codingagents.supervisor.wrap_rules import Candidate, Owned

NAMES = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,30}", fullmatch=True)
TEXTS = st.text(max_size=40)
PATHS = st.lists(st.one_of(NAMES, TEXTS), min_size=1, max_size=4).map(lambda parts: "/" + "/".join(parts))


def candidate(path: str) -> Candidate:
    return Candidate(
        path=path,
        directories=(),
        program=Owned("/opt/program", 0, 0o100755),
        is_file=True,
        has_capabilities=False,
        known_shells=frozenset(),
        interpreter="/usr/bin/python3",
    )


@given(path=PATHS)
def test_what_may_be_wrapped_gets_a_script_that_holds_exactly_its_constants(path: str) -> None:
    """No name can be read as code."""
    if wrap_rules.why_not(candidate(path)):
        return
    text = wrap_rules.wrapper_text(path, interpreter="/usr/bin/python3", source='"""Source."""', python="/p")
    assert wrap_rules.is_wrapper(text[: wrap_rules.HEAD_BYTES])
    source, imported, call = ast.parse(text).body
    assert isinstance(source, ast.Expr)
    assert isinstance(imported, ast.Import)
    assert isinstance(call, ast.Expr)
    assert isinstance(call.value, ast.Call)
    (inner,) = call.value.args
    assert isinstance(inner, ast.Call)
    constants = {each.arg: ast.literal_eval(each.value) for each in inner.keywords}
    assert constants["vendor"] == wrap_rules.vendor_beside(path)
    assert constants["routed"] == wrap_rules.routed(path)


@given(path=PATHS.filter(lambda path: bool(path.rpartition("/")[2])))
def test_the_vendors_name_is_beside_and_no_wrappers(path: str) -> None:
    """Its directory and its extension are those that it had, and it is never wrapped itself."""
    vendor = wrap_rules.vendor_beside(path)
    assert vendor.rpartition("/")[0] == path.rpartition("/")[0]
    assert vendor.endswith(path.rpartition("/")[2])
    assert wrap_rules.why_not(candidate(vendor))
