"""A row says enforced where acts were refused, and by that layer; else it says what is lost and what would help."""

import pytest

from codingagents.proxies.layer_rows import LAYER_NAMES, PINS_LAYER, Tried, pins_row, rows, unmet
from codingagents.trust.events import Layer
from codingagents.trust.pins import Pinning, parse_pin, pinning
from codingagents.trust.vocabulary import PinMode


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


def rules(mode: PinMode, *, without_pin: bool = False, overrides: tuple[str, ...] = ()) -> Pinning:
    pins = [] if mode == "off" else [parse_pin("sha256/" + "A" * 43 + "=")]
    bypasses = {f"{number:064}": name for number, name in enumerate(overrides)}
    return pinning(mode, pins, credential_without_pin=without_pin, bypasses=bypasses)


@pytest.mark.parametrize(
    ("by", "wanted", "state", "consequence", "remedy"),
    [
        (rules("enforce"), "require", "enforced", "", ""),
        (rules("enforce", without_pin=True), "require", "enforced", "", ""),  # no path without a pin gets so far
        (
            rules("enforce", overrides=("corp", "b", "corp")),
            *("require", "partial"),
            "a server below b, corp is sent the requests, without the credential",
            "ca_overrides in [mcp_servers.srv.tls] without b, corp, or added anew without --override-pins",
        ),
        (
            rules("enforce", without_pin=True, overrides=("corp",)),
            *("require", "partial"),
            "a server below corp is sent the requests and the credential",
            "ca_overrides in [mcp_servers.srv.tls] without corp, or added anew without --override-pins",
        ),
        (
            rules("report"),
            *("prefer", "partial"),
            "a server without a pin is sent the requests, without the credential",
            'mode = "enforce" in [mcp_servers.srv.tls.pins]',
        ),
        (
            rules("report", without_pin=True),
            *("prefer", "disabled"),
            "a server without a pin is sent the requests and the credential",
            'mode = "enforce" in [mcp_servers.srv.tls.pins]',
        ),
        (
            rules("off"),
            *("off", "disabled"),
            "any server that ca vouches for is sent the requests, without the credential",
            "[mcp_servers.srv.tls.pins], as coding-agents trust check srv prints it",
        ),
        (
            rules("off", without_pin=True),
            *("off", "disabled"),
            "any server that ca vouches for is sent the requests and the credential",
            "[mcp_servers.srv.tls.pins], as coding-agents trust check srv prints it",
        ),
    ],
)
def test_the_row_of_pins_says_who_gets_through_and_with_what(
    by: Pinning, wanted: str, state: str, consequence: str, remedy: str
) -> None:
    found = pins_row(by, "srv", "what was tried")
    assert (found.layer, found.wanted, found.state) == (PINS_LAYER, wanted, state)
    assert (found.consequence, found.remedy) == (consequence, remedy)
    assert bool(found.why) is (state != "enforced")
    assert (found.probe, found.observed_by) == ("what was tried", "self-reported")
