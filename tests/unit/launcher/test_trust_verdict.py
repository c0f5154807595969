"""What is said of a server's certificates, in each case: pins, dates, refusals; and how a report shows it."""

import dataclasses
import datetime
import json
import tomllib
from typing import Any

import pytest

import pki
from codingagents.launcher.trust_report import COLUMNS, Report, document, lines, row
from codingagents.launcher.trust_verdict import PinVerdict, Verdict, explain, remedies, verdict_on
from codingagents.rewrite.certificates import describe
from codingagents.rewrite.pin_proposal import SeenPath, seen_path
from codingagents.rewrite.specs import PinSpec, RemoteSpec, TlsSpec

ROOT, OTHER = pki.make_root(), pki.make_root("Other\x1b[31m Root")
ISSUER = ROOT.issue_ca("Issuer")
LEAF = ISSUER.issue(("a.test", "b.test"))
CHAIN = [LEAF.der, ISSUER.der, ROOT.der]
SEEN = seen_path(CHAIN)
FACTS = SEEN.facts
NOW = FACTS[0].not_after - datetime.timedelta(days=25, hours=1)  # of 60 days
TODAY = NOW.date()

ACTIVE = PinSpec(spki=ISSUER.pin, at="intermediate")
BACKUP = PinSpec(spki=OTHER.pin, backup=True)


def tls(*pins: PinSpec, days: int = 100, **changes: Any) -> TlsSpec:
    expires = (TODAY + datetime.timedelta(days)).isoformat()
    return TlsSpec(
        **{
            "server_name": "a.test",
            "anchors_pem": "",
            "store": "host",
            "pins": list(pins),
            "pins_expire": expires,
            **changes,
        }
    )


def verdict(spec: TlsSpec, *, bypass: str | None = None, days: int | None = None) -> Verdict:
    return verdict_on("srv", spec, SEEN, bypass=bypass, now=NOW, days=days)


@pytest.mark.parametrize(
    ("spec", "problems", "warnings"),
    [
        (tls(ACTIVE, BACKUP), [], []),
        (tls(ACTIVE, PinSpec(spki=ROOT.pin, backup=True)), [], ["no backup pin is outside"]),
        (tls(BACKUP, PinSpec(spki=pki.make_root().pin)), ["no pin is in the path"], []),
        (tls(PinSpec(spki=ISSUER.pin, at="root"), BACKUP), ["no pin is in the path"], []),
        (tls(BACKUP, PinSpec(spki=ROOT.pin, backup=True)), ["only a backup pin"], []),
        (tls(PinSpec(spki=LEAF.pin), PinSpec(spki=OTHER.pin, at="leaf", backup=True)), [], ["only leaf keys"]),
        (tls(ACTIVE, BACKUP, pin_mode="report"), [], ['mode = "report"']),
        (tls(BACKUP, BACKUP, pin_mode="report"), ["no pin is in the path"], ['mode = "report"']),
        (tls(pin_mode="off", pins_expire=None), [], ["no pins: any authority"]),
        (tls(BACKUP, pin_mode="off"), [], ["no pins: any authority"]),
        (tls(ACTIVE, BACKUP, credential_without_pin=True), [], ["credential_without_pin"]),
        (tls(ACTIVE, BACKUP, days=30), ["the pins expire in 30 days"], []),
        (tls(ACTIVE, BACKUP, days=31), [], []),
        (tls(ACTIVE, BACKUP, days=1), ["the pins expire in 1 day, on"], []),
        (tls(ACTIVE, BACKUP, days=0), ["the pins expire in 0 days"], []),
        (tls(ACTIVE, BACKUP, days=-1), ["the pins have expired on"], []),
        (tls(ACTIVE, BACKUP, days=-1, pin_mode="off"), [], ["no pins: any authority"]),
    ],
)
def test_pins_are_judged(spec: TlsSpec, problems: list[str], warnings: list[str]) -> None:
    """Each way in which pins are wrong, and no other sentence with it; every problem with pins has a remedy."""
    found = verdict(spec)
    for said, expected in ((found.problems, problems), (found.warnings, warnings)):
        assert len(said) == len(expected), said
        assert all(start in sentence for sentence, start in zip(said, expected, strict=True)), said
    assert found.holds == (not problems)
    assert len(found.remedies) == len(problems)
    assert all("coding-agents trust rotate srv" in each for each in found.remedies)


def test_a_bypass_needs_no_pin_and_is_said() -> None:
    """An override that overrides pins."""
    found = verdict(tls(BACKUP, BACKUP), bypass="corp")
    assert found.holds
    assert "the override corp lets the path pass without a pin" in found.warnings[0]


@pytest.mark.parametrize(("days", "count"), [(None, 0), (24, 0), (25, 3), (30, 3)])
def test_certificates_that_end_are_a_problem(days: int | None, count: int) -> None:
    """All of the path: 25 days of 60 are left, so that by default the last 20 count."""
    found = verdict(tls(ACTIVE, BACKUP), days=days)
    assert len(found.problems) == count
    assert all("expires in 25 days" in each for each in found.problems)


def test_a_certificate_of_a_long_life_has_30_days() -> None:
    """And not a third of ten years."""
    life = datetime.timedelta(3650)
    long, *above = [dataclasses.replace(each, not_before=NOW - life, not_after=NOW + life) for each in FACTS]
    for left, count in ((31, 0), (30, 1)):
        first = dataclasses.replace(long, not_after=NOW + datetime.timedelta(left))
        seen = SeenPath(SEEN.path, (first, *above))
        assert len(verdict_on("srv", tls(ACTIVE, BACKUP), seen, bypass=None, now=NOW, days=None).problems) == count


@pytest.mark.parametrize(
    ("pin", "places", "matched", "text"),
    [
        (ACTIVE, ("intermediate",), True, "matched, intermediate"),
        (BACKUP, ("root",), True, "matched, root, though a backup"),
        (BACKUP, (), False, "backup, not in the path"),
        (ACTIVE, (), False, "not matched"),
        (ACTIVE, ("root",), False, "not matched: it is the root, and only counts as intermediate"),
    ],
)
def test_each_pin_is_told(pin: PinSpec, places: tuple[str, ...], matched: bool, text: str) -> None:
    """In a few words."""
    assert PinVerdict(pin=pin, places=places, matched=matched).text == text


ALONE = pki.make_root("a.test")
EXPIRED = ISSUER.issue(("a.test",), expired=True)


@pytest.mark.parametrize(
    ("code", "sent", "sentence"),
    [
        (62, [LEAF], "the certificate is not for c.test: it says DNS:a.test, DNS:b.test"),
        (64, [ROOT], "the certificate is not for c.test: it says no name"),
        (
            10,
            [EXPIRED, ISSUER],
            f"the certificate of CN=a.test has expired on {describe(EXPIRED.der).not_after:%Y-%m-%d}",
        ),
        (9, [LEAF], "the certificate is not trusted: words of OpenSSL"),
        (18, [ALONE], "the server's certificate is its own root, and is not in the trust store (host)"),
        (19, [LEAF, ISSUER, ROOT], "the root CN=Test Root is not in the trust store (host)"),
        (20, [LEAF], "the issuer of CN=a.test, which is CN=Issuer, is neither among the 1 certificate that the server"),
        (
            20,
            [LEAF, OTHER, ISSUER],
            "the issuer of CN=Issuer, which is CN=Test Root, is neither among the 3 certificates",
        ),
        (20, [], "the certificate is not trusted: words of OpenSSL"),
        (26, [LEAF], "the certificate is not trusted: words of OpenSSL"),
    ],
)
def test_a_refusal_is_explained(code: int, sent: list[pki.Issued], sentence: str) -> None:
    """By what was sent; in OpenSSL's words where that tells nothing."""
    facts = [describe(each.der) for each in sent]
    now = datetime.datetime.now(datetime.UTC)
    said = explain(code, "words of OpenSSL", facts, server_name="c.test", store="host", now=now)
    assert said.startswith(sentence)


def test_a_certificate_of_the_future_is_told_as_one() -> None:
    """A clock that is behind."""
    early = FACTS[0].not_before - datetime.timedelta(days=1)
    said = explain(9, "", FACTS, server_name="a.test", store="host", now=early)
    assert said == f"the certificate of CN=a.test is not valid before {FACTS[0].not_before:%Y-%m-%d}"


def test_the_command_that_helps_is_named() -> None:
    """For a server of the configuration, and for a URL; not where another authority would be no help."""
    remote = RemoteSpec(name="_Lab", scheme="https", host="::1", port=8443, path="/")
    assert remedies(20, remote, FACTS, known=True) == (
        "if this authority is yours: coding-agents trust add lab-ca --server _Lab",
    )
    assert remedies(18, remote, FACTS[-1:], known=False)[0].endswith("trust add lab-ca --from https://[::1]:8443")
    assert remedies(18, remote, FACTS[:1], known=True) == (
        "if this certificate is yours: coding-agents trust add lab-ca --server _Lab --leaf",
    )
    assert remedies(62, remote, FACTS, known=True) == ()


def report(**changes: Any) -> Report:
    spec = tls(ACTIVE, BACKUP)
    return Report(
        **{
            "server": "srv",
            "url": "https://a.test:443",
            "now": NOW,
            "tls": spec,
            "verdict": verdict(spec),
            "seen": SEEN,
            "trusted_by": "host",
            "tls_version": "TLSv1.3",
            **changes,
        }
    )


def test_a_report_shows_all_of_a_path() -> None:
    """For a person, a table and programs."""
    text = "\n".join(lines(report()))
    for each in (*FACTS, *FACTS):
        assert each.fingerprint in text
        assert each.spki in text
    assert "srv  https://a.test:443  TLSv1.3\n  trusted by host" in text
    assert "names   DNS:a.test, DNS:b.test" in text
    assert f"{ISSUER.pin} at intermediate: matched, intermediate" in text
    assert row(report()) == ("srv", "ok", "host", "enforce, 1 of 2 matched", "25", "-")
    assert len(COLUMNS) == len(row(report()))
    found = json.loads(json.dumps(document(report())))
    assert [each["place"] for each in found["path"]] == ["leaf", "intermediate", "root"]
    assert (found["ok"], found["days_left"], found["pins"][0]["matched"]) == (True, 25, True)
    table = tomllib.loads(text[text.index("# compare") :])["mcp_servers"]["srv"]["tls"]["pins"]
    assert [pin["spki"] for pin in table["pin"]] == [ISSUER.pin, ROOT.pin]
    assert table["expires"] == TODAY + datetime.timedelta(182)


def test_a_report_of_a_refusal_shows_what_was_sent_and_proposes_nothing() -> None:
    """Escaped: a certificate may say anything."""
    refused = Verdict(problems=("no",), remedies=("do",))
    sent = (describe(OTHER.der),)
    shown = report(verdict=refused, seen=None, sent=sent, trusted_by=None, tls_version=None)
    text = "\n".join(lines(shown))
    assert "NOT TRUSTED" in text
    assert "\x1b" not in text
    assert text.endswith("  problem: no\n  remedy: do")
    assert shown.proposal is None
    assert row(shown) == ("srv", "FAILED", "-", "enforce", "100", "no")
    found = document(shown)
    assert (found["verified"], found["proposal"], found["path"]) == (False, None, [])


def test_a_report_of_nothing_is_short() -> None:
    """Nobody was there."""
    shown = report(verdict=Verdict(problems=("nobody",)), seen=None, tls=None, trusted_by=None, tls_version=None)
    assert list(lines(shown)) == ["srv  https://a.test:443", "  problem: nobody"]
    assert row(shown) == ("srv", "FAILED", "-", "-", "-", "nobody")
    assert document(shown)["pin_mode"] is None


def test_a_table_that_does_not_load_says_so() -> None:
    """One key is no set."""
    seen = seen_path([ALONE.der])
    shown = report(seen=seen)
    assert shown.proposal is not None
    assert "# this table does not load before a backup is in it" in shown.proposal
    assert "(note)" in "\n".join(lines(report(verdict=verdict(tls(PinSpec(spki=ROOT.pin, note="note"))))))
