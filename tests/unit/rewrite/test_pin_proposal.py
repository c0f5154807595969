"""Which pins are proposed for a path, and what becomes of those that a server has: tables over real certificates."""

import datetime

import pytest

import pki
from codingagents.rewrite.pin_proposal import SeenPath, carries, propose, renew, seen_path
from codingagents.rewrite.specs import PinSpec
from codingagents.trust.vocabulary import PinPosition

TODAY = datetime.date(2026, 11, 24)
FORMER = "in use until 2026-11-24"

ROOT = pki.make_root("Test Root, of \\ tests")
FIRST, SECOND = ROOT.issue_ca("First"), ROOT.issue_ca("Second")
LEAF, NEXT = FIRST.issue(), SECOND.issue()
DIRECT = ROOT.issue()
OTHER = pki.make_root("Other")

FIRST_PATH = seen_path([LEAF.der, FIRST.der, ROOT.der])
SECOND_PATH = seen_path([NEXT.der, SECOND.der, ROOT.der])
SHORT_PATH = seen_path([DIRECT.der, ROOT.der])
ALONE = seen_path([OTHER.der])
ENDS_BELOW = seen_path([LEAF.der, FIRST.der])  # the intermediate is the anchor

ROOT_NOTE = "Test Root\\, of \\\\ tests"  # RFC 4514 escapes it

FIRST_PIN = PinSpec(spki=FIRST.pin, at="intermediate", note="First")
SECOND_PIN = PinSpec(spki=SECOND.pin, at="intermediate", note="Second")
ROOT_BACKUP = PinSpec(spki=ROOT.pin, backup=True, note=ROOT_NOTE)
OTHER_BACKUP = PinSpec(spki=OTHER.pin, backup=True, note="mine")
LEAF_PIN = PinSpec(spki=LEAF.pin, at="leaf")


def former(issued: pki.Issued, at: PinPosition, note: str = "") -> PinSpec:
    return PinSpec(spki=issued.pin, at=at, backup=True, note=f"{note}, {FORMER}".removeprefix(", "))


@pytest.mark.parametrize(
    ("path", "pins", "told"),
    [
        (FIRST_PATH, [FIRST_PIN, ROOT_BACKUP], "the backup is the root above"),
        (
            SHORT_PATH,
            [
                PinSpec(spki=ROOT.pin, at="root", note=ROOT_NOTE),
                PinSpec(spki=DIRECT.pin, backup=True, note="localhost"),
            ],
            "the backup is the server's own key",
        ),
        (ENDS_BELOW, [FIRST_PIN, PinSpec(spki=LEAF.pin, backup=True, note="localhost")], "the server's own key"),
        (ALONE, [PinSpec(spki=OTHER.pin, at="leaf", note="Other")], "a second one is needed"),
    ],
)
def test_proposed_are_the_issuer_and_the_root(path: SeenPath, pins: list[PinSpec], told: str) -> None:
    """The narrow and the lasting; where there is less, less, and it is said what is missing."""
    proposal = propose(path)
    assert list(proposal.pins) == pins
    assert proposal.complete == (len(pins) > 1)
    assert told in proposal.advice[0]


def test_a_key_that_stands_twice_is_pinned_anywhere() -> None:
    """A cross-signed root: the next path may end one certificate earlier."""
    cross = OTHER.issue_ca("Cross", key=ROOT.key)
    proposal = propose(seen_path([DIRECT.der, cross.der, ROOT.der]))
    assert [(pin.spki, pin.at, pin.backup) for pin in proposal.pins] == [
        (ROOT.pin, "any", False),
        (DIRECT.pin, "any", True),
    ]
    assert propose(seen_path([OTHER.der, OTHER.der])).complete is False


@pytest.mark.parametrize(
    ("old", "path", "new"),
    [
        ([], FIRST_PATH, [FIRST_PIN, ROOT_BACKUP]),
        # The pinned CA is still there: only the date is new.
        ([FIRST_PIN, ROOT_BACKUP], FIRST_PATH, [FIRST_PIN, ROOT_BACKUP]),
        ([OTHER_BACKUP, FIRST_PIN], FIRST_PATH, [OTHER_BACKUP, FIRST_PIN]),
        # The issuer changed, and the backup held: the former issuer stays until the next time.
        ([FIRST_PIN, ROOT_BACKUP], SECOND_PATH, [SECOND_PIN, former(FIRST, "intermediate", "First"), ROOT_BACKUP]),
        ([SECOND_PIN, former(FIRST, "intermediate"), ROOT_BACKUP], SECOND_PATH, [SECOND_PIN, ROOT_BACKUP]),
        # It came back: in use again.
        (
            [SECOND_PIN, former(FIRST, "intermediate"), ROOT_BACKUP],
            FIRST_PATH,
            [FIRST_PIN, former(SECOND, "intermediate", "Second"), ROOT_BACKUP],
        ),
        # Leaves change with each renewal: a CA takes their place.
        ([LEAF_PIN, OTHER_BACKUP], FIRST_PATH, [FIRST_PIN, former(LEAF, "leaf"), OTHER_BACKUP]),
        # A root that somebody chose to pin is not narrowed.
        (
            [PinSpec(spki=ROOT.pin, at="root"), OTHER_BACKUP],
            FIRST_PATH,
            [PinSpec(spki=ROOT.pin, at="root"), OTHER_BACKUP],
        ),
        # The backup is in use now, and another one is needed.
        (
            [OTHER_BACKUP, PinSpec(spki=FIRST.pin, backup=True)],
            FIRST_PATH,
            [FIRST_PIN, OTHER_BACKUP],
        ),
        ([former(OTHER, "any"), PinSpec(spki=FIRST.pin)], FIRST_PATH, [FIRST_PIN, ROOT_BACKUP]),
        # A key that was said twice.
        (
            [PinSpec(spki=FIRST.pin, backup=True), OTHER_BACKUP, PinSpec(spki=FIRST.pin)],
            FIRST_PATH,
            [PinSpec(spki=FIRST.pin), OTHER_BACKUP],
        ),
        # Pins of certificates are pins.
        (
            [PinSpec(cert_sha256=FIRST_PATH.facts[1].sha256), ROOT_BACKUP],
            FIRST_PATH,
            [PinSpec(cert_sha256=FIRST_PATH.facts[1].sha256), ROOT_BACKUP],
        ),
        # A server that is its own root.
        (
            [PinSpec(spki=OTHER.pin, at="leaf"), ROOT_BACKUP],
            ALONE,
            [PinSpec(spki=OTHER.pin, at="leaf", note="Other"), ROOT_BACKUP],
        ),
    ],
)
def test_pins_in_use_become_backups(old: list[PinSpec], path: SeenPath, new: list[PinSpec]) -> None:
    """What a server had, what it shows, what is written."""
    assert list(renew(old, path, TODAY)) == new


def test_a_backup_may_be_given() -> None:
    """For a server with one key only there is no other way."""
    assert renew([], ALONE, TODAY, [OTHER_BACKUP]) == propose(ALONE).pins
    assert renew([], ALONE, TODAY, [ROOT_BACKUP]) == (*propose(ALONE).pins, ROOT_BACKUP)
    assert renew([FIRST_PIN, ROOT_BACKUP], FIRST_PATH, TODAY, [OTHER_BACKUP]) == (FIRST_PIN, ROOT_BACKUP, OTHER_BACKUP)


def test_a_pin_counts_only_where_it_may_stand() -> None:
    """Position by position, of keys and of certificates."""
    assert carries(FIRST_PATH, FIRST_PIN)
    assert carries(ENDS_BELOW, PinSpec(spki=FIRST.pin, at="root"))
    assert not carries(FIRST_PATH, PinSpec(spki=FIRST.pin, at="root"))
    assert carries(FIRST_PATH, PinSpec(cert_sha256=FIRST_PATH.facts[0].sha256, at="leaf"))
    assert not carries(FIRST_PATH, PinSpec(cert_sha256=FIRST_PATH.facts[0].sha256, at="intermediate"))
