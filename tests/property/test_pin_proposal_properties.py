"""Proposed pins: whatever a verified path looks like, they load, accept it, and outlive the next certificate."""

import datetime

from hypothesis import given
from hypothesis import strategies as st

import pki
from codingagents.launcher.config_edit import pins_table, with_pins
from codingagents.rewrite.parse import parse_config
from codingagents.rewrite.pin_proposal import carries, digest, propose, renew, seen_path
from codingagents.rewrite.pin_rules import rules_of
from codingagents.rewrite.specs import PinSpec
from codingagents.trust.pins import Pinning, verified_path

TODAY = datetime.date(2026, 11, 24)
EXPIRES = datetime.date(2027, 5, 25)
KEYS = [pki.make_key() for _ in range(4)]  # few: keys that meet again are what could go wrong
OTHER, THIRD = pki.make_root("Other"), pki.make_root("Third")
NAMES = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=20)


@st.composite
def authorities(draw: st.DrawFn) -> list[pki.Issued]:
    """A root and up to three CAs below it, the last one first; keys may come twice."""
    path = [pki.make_root(draw(NAMES), key=draw(st.sampled_from(KEYS)))]
    for _ in range(draw(st.integers(0, 3))):
        path.insert(0, path[0].issue_ca(draw(NAMES), key=draw(st.sampled_from(KEYS))))
    return path


def leaf_of(above: list[pki.Issued]) -> pki.Issued:
    return above[0].issue(("a.test",))


def loaded(text: str) -> Pinning:
    (server,) = parse_config(text, "config.toml").remotes
    assert server.spec.tls is not None
    return rules_of(server.spec.tls)


BARE = '[mcp_servers.x]\nurl = "https://a.test/"\n'


@given(authorities(), st.data())
def test_what_is_proposed_loads_and_accepts_the_path_and_the_next_one(
    above: list[pki.Issued], data: st.DataObject
) -> None:
    """The very path, another leaf of the same issuer, and another issuer below the same root."""
    leaf, root = leaf_of(above), above[-1]
    seen = seen_path([leaf.der, *(each.der for each in above)])
    proposal = propose(seen)
    assert proposal.complete
    rules = loaded(BARE + pins_table("x", proposal.pins, EXPIRES))
    assert rules.check(seen.path).pins
    assert rules.check(verified_path([leaf_of(above).der, *(each.der for each in above)])).pins
    between = root.issue_ca("new", key=data.draw(st.sampled_from(KEYS)))
    assert rules.check(verified_path([leaf_of([between]).der, between.der, root.der])).pins
    # The leaf's own key does not hold up anything: a path of other authorities is refused.
    stranger = pki.make_root()
    assert not any(carries(seen_path([leaf_of([stranger]).der, stranger.der]), pin) for pin in proposal.pins)


@st.composite
def old_pins(draw: st.DrawFn, path: list[pki.Issued]) -> list[PinSpec]:
    known = [each.pin for each in (*path, OTHER, THIRD)]
    notes = st.sampled_from(["", "mine", "in use until 2026-01-01", "x, in use until 2026-01-01"])
    return draw(
        st.lists(
            st.builds(
                PinSpec,
                spki=st.sampled_from(known),
                at=st.sampled_from(["any", "leaf", "intermediate", "root"]),
                backup=st.booleans(),
                note=notes,
            ),
            max_size=4,
        )
    )


@given(st.data())
def test_renewed_pins_load_accept_the_path_and_settle(data: st.DataObject) -> None:
    """Whatever a server had; a pin that was in use stays, no key comes twice, and doing it again changes nothing."""
    above = data.draw(authorities())
    path = [leaf_of(above), *above]
    seen = seen_path([each.der for each in path])
    old = data.draw(old_pins(path))
    new = renew(old, seen, TODAY)
    digests = [digest(pin) for pin in new]
    assert len(set(digests)) == len(digests)
    assert {digest(pin) for pin in old if carries(seen, pin)} <= set(digests)
    assert any(carries(seen, pin) and not pin.backup for pin in new)
    again = renew(new, seen, TODAY)
    assert renew(again, seen, TODAY) == again
    text = with_pins(BARE, "config.toml", "x", new, EXPIRES)
    assert loaded(text).check(seen.path).pins
