"""A row says enforced where acts were refused, and by that layer; else it says what is lost and what would help."""

import pytest

from codingagents.proxies.layer_rows import LAYER_NAMES, Tried, rows, unmet
from codingagents.trust.events import Layer


def tried(outcome: str, *, wanted: str = "EPERM", control: str | None = "succeeded", layer: str = "seccomp") -> Tried:
    return Tried(layer=layer, act="act", outcome=outcome, wanted=wanted, control=control)


def row(*each: Tried, layer: str = "seccomp", absent: dict[str, str] | None = None) -> Layer:
    return next(row for row in rows(each, absent or {}) if row.layer == layer)


@pytest.mark.parametrize(
    ("each", "state", "why"),
    [
        ([tried("EPERM")], "enforced", ""),
        ([tried("2", wanted="2", control=None), tried("EPERM")], "enforced", ""),
        ([tried("EPERM"), tried("EPERM", control="EPERM")], "enforced", ""),  # one of them shows it
        ([tried("EPERM", control="EPERM")], "partial", "refused before"),
        ([tried("EPERM"), tried("succeeded")], "partial", "not as wanted: act"),
        ([tried("EACCES")], "unavailable", "nothing was refused"),  # refused, but not by this layer
        ([tried("succeeded")], "unavailable", "nothing was refused"),
        ([], "unavailable", "not tried"),
    ],
)
def test_what_was_tried_decides_the_state(each: list[Tried], state: str, why: str) -> None:
    found = row(*each)
    assert found.state == state
    assert why in found.why
    assert bool(found.why) is bool(found.consequence) is bool(found.remedy) is (state != "enforced")
    assert found.observed_by == "self-reported"


def test_every_layer_has_a_row_in_one_order() -> None:
    assert tuple(row.layer for row in rows([], {})) == LAYER_NAMES
    assert all(row.mechanism and row.consequence and row.remedy for row in rows([], {}))


def test_an_absent_layer_says_why() -> None:
    found = row(layer="landlock_net", absent={"landlock_net": "Landlock's ABI is 3 here, and this needs 4"})
    assert (found.state, found.why) == ("unavailable", "Landlock's ABI is 3 here, and this needs 4")


def test_the_row_shows_what_was_seen_and_what_was_seen_before() -> None:
    assert row(tried("2", wanted="2", control=None), tried("EPERM")).probe == "act: 2; act: EPERM (before: succeeded)"


def test_only_what_a_helper_must_have_is_unmet() -> None:
    """An old kernel without Landlock serves; without seccomp, none does."""
    report = rows([tried("EPERM"), tried("1", wanted="1", control=None, layer="no_new_privs")], {})
    assert {each.layer for each in unmet(report)} == {
        "descriptors", "uid_drop", "capabilities", "non_dumpable", "environment",
    }  # fmt: skip
    assert "landlock_fs" in {each.layer for each in report if each.state == "unavailable"}
