"""When the end of something is told: at 30, 7, 1 days and past it, once each; and what is watched."""

import datetime
import hashlib
from datetime import UTC, timedelta

import msgspec
import pytest
import trio
import trio.testing

import pki
from codingagents.rewrite.specs import OverrideSpec, RemoteSpec, TlsSpec
from codingagents.supervisor import expiry
from codingagents.supervisor.expiry import End
from codingagents.supervisor.expiry_watch import ExpiryWatch
from codingagents.supervisor.trust_seen import TrustSeen
from codingagents.trust import facts
from codingagents.trust.errors import WireError
from codingagents.trust.events import TrustExpiring

DAY = timedelta(days=1)
NOON = datetime.datetime(2027, 3, 1, 12, tzinfo=UTC)
PINS = expiry.end_of_pins("one", "2027-04-15")
TRUSTED = facts.UpstreamTrusted(
    address="192.0.2.1:443",
    tls_version="TLSv1.3",
    anchored_by="host",
    anchor_sha256="a" * 64,
    leaf_sha256="b" * 64,
    leaf_not_after="2027-03-05T00:00:00Z",
    pins=[],
    credential="none",
)


def test_pins_hold_through_their_last_day() -> None:
    """As `Pinning.expired` and `check_expiry` have it."""
    last = datetime.datetime(2027, 4, 15, tzinfo=UTC)
    found = [PINS.days_left(last + shift) for shift in (-DAY, timedelta(), DAY - timedelta(seconds=1), DAY)]
    assert found == [1, 0, 0, -1]


def test_each_threshold_is_told_once_over_the_whole_life() -> None:
    told: expiry.Told = {}
    heard = []
    for hour in range(80 * 24):
        events, told = expiry.due([PINS], told, NOON + timedelta(hours=hour))
        heard += [event.days_left for event in events]
    assert heard == [30, 7, 1, -1]


def test_who_starts_late_hears_of_the_nearest_only() -> None:
    events, told = expiry.due([PINS], {}, datetime.datetime(2027, 4, 11, 1, tzinfo=UTC))
    assert events == [TrustExpiring(server="one", what="pins", name="", expires="2027-04-15", days_left=4)]
    assert expiry.due([PINS], told, datetime.datetime(2027, 4, 11, 9, tzinfo=UTC))[0] == []


def test_one_that_comes_back_is_not_told_again_and_what_is_made_up_is_forgotten() -> None:
    def leaf(number: int) -> End:
        return End(server="one", what="leaf", name=str(number), moment=NOON + DAY, text="x")

    _, told = expiry.due([leaf(0)], {}, NOON)
    for number in range(1, 90):
        events, told = expiry.due([leaf(number)], told, NOON)
        assert len(events) == 1
    assert expiry.due([leaf(0)], told, NOON)[0] == []
    for number in range(90, 1000):
        _, told = expiry.due([leaf(number)], told, NOON)
    assert len(told) <= 101


def test_nothing_is_due_before_the_next_look() -> None:
    now, told = NOON, expiry.due([PINS], {}, NOON)[1]
    while now < PINS.moment + 3 * DAY:
        pause = expiry.next_look([PINS], now)
        assert timedelta() < pause <= DAY
        just_before = now + pause - timedelta(microseconds=1)
        events, told = expiry.due([PINS], told, just_before)
        assert events == []
        now += pause
        _, told = expiry.due([PINS], told, now)
    assert told[PINS] == -1
    assert expiry.next_look([], NOON) == DAY


def test_pins_and_added_cas_end_and_the_rest_of_a_store_does_not_matter() -> None:
    corp, other = pki.make_root("Corp"), pki.make_root("Other")
    digest = hashlib.sha256(corp.der).hexdigest()
    tls = TlsSpec(
        server_name="a.test",
        anchors_pem=other.pem + corp.pem,
        store="host",
        pins_expire="2027-04-15",
        overrides=[OverrideSpec(name="corp", anchors=[digest])],
    )
    pins, anchor = expiry.ends_of_trust("one", tls)
    assert pins == PINS
    assert (anchor.what, anchor.name) == ("anchor", digest)
    assert anchor.moment == corp.certificate.not_valid_after_utc
    assert expiry.ends_of_trust("one", msgspec.structs.replace(tls, pin_mode="off", overrides=[])) == []


@pytest.mark.parametrize("pem", ["?", "-----BEGIN CERTIFICATE-----\nA\n-----END CERTIFICATE-----\n"])
def test_what_cannot_be_read_has_no_end(pem: str) -> None:
    tls = TlsSpec(
        server_name="a", anchors_pem=pem, store="host", overrides=[OverrideSpec(name="x", anchors=["0" * 64])]
    )
    assert expiry.ends_of_trust("one", tls) == []


@pytest.mark.parametrize(
    "changed",
    [
        {"leaf_not_after": "tomorrow"},
        {"leaf_not_after": "0001-01-01T00:00:00Z"},  # nothing can be reckoned back from there
        {"leaf_not_after": "2027-03-05T00:00:00+00:00"},
        {"leaf_sha256": "B" * 64},
        {"leaf_sha256": "b" * 63},
    ],
)
def test_a_certificate_that_cannot_be_is_refused(changed: dict[str, str]) -> None:
    seen = TrustSeen("one")
    with pytest.raises(WireError):
        seen.note(msgspec.structs.replace(TRUSTED, **changed), 1000.0)
    assert (seen.newest, seen.leaf) == (None, None)


def test_only_so_many_certificates_are_watched_however_many_are_shown() -> None:
    seen = TrustSeen("one")
    assert seen.note(TRUSTED, 1000.0)
    assert not seen.note(TRUSTED, 1000.0)
    others = [msgspec.structs.replace(TRUSTED, leaf_sha256=f"{number:064x}") for number in range(1000)]
    assert sum(seen.note(other, 1000.0) for other in others) == 9
    assert seen.newest == others[-1]
    assert seen.note(others[0], 1100.0)


def test_a_row_says_what_holds_and_what_was_seen() -> None:
    remote = RemoteSpec(name="one", scheme="https", host="a.test", port=443, path="/")
    tls = TlsSpec(server_name="a.test", anchors_pem="x", store="host", pins_expire="2027-04-15")
    seen = TrustSeen("one")
    before = seen.row(remote, tls, NOON)
    assert (before.pins_days_left, before.anchored_by, before.leaf_days_left) == (45, None, None)
    seen.note(TRUSTED, 1000.0)
    after = seen.row(remote, tls, NOON)
    assert (after.anchored_by, after.leaf_not_after, after.leaf_days_left) == ("host", TRUSTED.leaf_not_after, 3)
    assert (after.pin_mode, after.credential, after.store) == ("enforce", "none", "host")
    off = seen.row(remote, msgspec.structs.replace(tls, pin_mode="off"), NOON)
    assert (off.pins_expire, off.pins_days_left) == (None, None)


def test_the_watch_tells_at_once_when_something_new_comes_and_in_time_otherwise() -> None:
    """A clock that the test moves; the pauses are those of trio's own test clock."""
    ends: list[End] = []
    heard: list[tuple[str, int]] = []

    async def scene() -> None:
        begun = trio.current_time()

        def now() -> datetime.datetime:
            return NOON + timedelta(seconds=trio.current_time() - begun)

        watch = ExpiryWatch(lambda: ends, lambda event: heard.append((event.what, event.days_left)), now)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch.run)
            await trio.testing.wait_all_tasks_blocked()
            assert heard == []
            ends.append(expiry.end_of_leaf("one", TRUSTED))
            watch.changed()
            await trio.testing.wait_all_tasks_blocked()
            assert heard == [("leaf", 3)]
            await trio.sleep(10 * 86400)
            assert heard == [("leaf", 3), ("leaf", 1), ("leaf", -1)]
            nursery.cancel_scope.cancel()

    trio.run(scene, clock=trio.testing.MockClock(autojump_threshold=0))
