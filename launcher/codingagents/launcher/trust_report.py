"""CORE: what a check found, for a person, for a table and for programs. Decides nothing; no I/O, no clock.

What certificates and servers say is escaped here.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from codingagents.launcher.config_edit import pins_table
from codingagents.launcher.trust_verdict import Verdict, days_left, place_names
from codingagents.rewrite.certificates import CertificateFacts
from codingagents.rewrite.pin_proposal import VALID_DAYS, SeenPath, digest, propose
from codingagents.rewrite.specs import PinSpec, TlsSpec
from codingagents.trust.terminal import printable

COLUMNS = ("server", "check", "trusted by", "pins", "days left", "what")

_COMPARE = (
    "compare these hashes by another way (the server's owner, another network, another machine) before you trust them"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What came of one server. Without `seen` its path was not verified; `sent` is then what it shows, if anything."""

    server: str
    url: str
    now: datetime.datetime  # UTC
    verdict: Verdict
    tls: TlsSpec | None = None
    seen: SeenPath | None = None
    sent: tuple[CertificateFacts, ...] = ()
    tls_version: str | None = None
    trusted_by: str | None = None  # the store in which the path ends, as `PeerTrust.anchored_by`
    bypassed: bool = False  # an override of pins let the path pass: its keys may be anybody's

    @property
    def days_left(self) -> int | None:
        """Days until the first of pins and certificates of the path ends."""
        ends = [] if self.seen is None else [days_left(each.not_after, self.now) for each in self.seen.facts]
        if self.tls is not None and self.tls.pins_expire is not None and self.tls.pin_mode != "off":
            ends.append((datetime.date.fromisoformat(self.tls.pins_expire) - self.now.date()).days)
        return min(ends, default=None)

    @property
    def proposal(self) -> str | None:
        """A table of pins to paste, with what a person should know as comments; None for a path not to be pinned."""
        if self.seen is None or self.bypassed:
            return None
        proposal = propose(self.seen)
        comments = [_COMPARE, *proposal.advice]
        if not proposal.complete:
            comments.append("this table does not load before a backup is in it")
        expires = self.now.date() + datetime.timedelta(VALID_DAYS)
        return "".join(f"# {line}\n" for line in comments) + pins_table(self.server, proposal.pins, expires)


def lines(report: Report) -> Iterator[str]:
    """Yield the report for a person, a line each."""
    yield printable(f"{report.server}  {report.url}" + (f"  {report.tls_version}" if report.tls_version else ""))
    if report.seen is not None:
        yield f"  trusted by {report.trusted_by}, its path as it was verified:"
        yield from certificate_lines(report.seen.facts, place_names(report.seen), report.now)
    elif report.sent:
        yield "  NOT TRUSTED; what it sends, none of it verified:"
        yield from certificate_lines(
            report.sent, [str(number) for number in range(1, len(report.sent) + 1)], report.now
        )
    if report.verdict.pins and report.tls is not None:
        yield f"  pins, {report.tls.pin_mode}, until {report.tls.pins_expire}:"
        for each in report.verdict.pins:
            yield printable(f"    {pin_text(each.pin)}: {each.text}")
    for what, sentences in (
        ("problem", report.verdict.problems),
        ("warning", report.verdict.warnings),
        ("remedy", report.verdict.remedies),
    ):
        for sentence in sentences:
            yield printable(f"  {what}: {sentence}")
    if report.proposal is not None:
        yield ""
        yield from report.proposal.splitlines()


def row(report: Report) -> tuple[str, ...]:
    """Return the report as cells under `COLUMNS`."""
    left = report.days_left
    verdict = report.verdict
    mode = "-" if report.tls is None else report.tls.pin_mode
    matched = [each for each in verdict.pins if each.matched]
    what = (*verdict.problems, *verdict.warnings)
    return (
        report.server,
        "ok" if verdict.holds else "FAILED",
        report.trusted_by or "-",
        f"{mode}, {len(matched)} of {len(verdict.pins)} matched" if verdict.pins else mode,
        "-" if left is None else str(left),
        printable("; ".join(what)) or "-",
    )


def document(report: Report) -> dict[str, object]:
    """Return the report for JSON."""
    seen = report.seen
    return {
        "server": report.server,
        "url": report.url,
        "ok": report.verdict.holds,
        "verified": seen is not None,
        "tls_version": report.tls_version,
        "trusted_by": report.trusted_by,
        "path": [] if seen is None else _documents(seen.facts, place_names(seen), report.now),
        "sent": _documents(report.sent, [None] * len(report.sent), report.now),
        "pin_mode": None if report.tls is None else report.tls.pin_mode,
        "pins_expire": None if report.tls is None else report.tls.pins_expire,
        "pins": [
            {
                "spki": each.pin.spki or None,
                "cert_sha256": each.pin.cert_sha256 or None,
                "at": each.pin.at,
                "backup": each.pin.backup,
                "note": each.pin.note,
                "places": list(each.places),
                "matched": each.matched,
            }
            for each in report.verdict.pins
        ],
        "days_left": report.days_left,
        "problems": list(report.verdict.problems),
        "warnings": list(report.verdict.warnings),
        "remedies": list(report.verdict.remedies),
        "proposal": report.proposal,
    }


def pin_text(pin: PinSpec) -> str:
    """Return a pin in a few words."""
    parts = (digest(pin), f"at {pin.at}" if pin.at != "any" else "", f"({pin.note})" if pin.note else "")
    return " ".join(filter(None, parts))


def certificate_lines(
    facts: Sequence[CertificateFacts], places: Sequence[str], now: datetime.datetime
) -> Iterator[str]:
    """Yield what each certificate says, and how its place is called."""
    for place, each in zip(places, facts, strict=True):
        days = days_left(each.not_after, now)
        yield printable(f"    {place}: {each.subject or '(no subject)'}")
        yield printable(f"      issuer  {'itself' if each.self_signed else each.issuer or '(none)'}")
        if each.sans:
            yield printable(f"      names   {', '.join(each.sans)}")
        yield f"      until   {each.not_after:%Y-%m-%d}, {days} day{'' if days == 1 else 's'} left"
        yield f"      sha256  {each.fingerprint}"
        yield f"      spki    {each.spki}"


def _documents(
    facts: Sequence[CertificateFacts], places: Sequence[str | None], now: datetime.datetime
) -> list[dict[str, object]]:
    return [
        {
            "place": place,
            "subject": each.subject,
            "issuer": each.issuer,
            "names": list(each.sans),
            "not_after": each.not_after.isoformat(),
            "days_left": days_left(each.not_after, now),
            "sha256": each.sha256,
            "spki": each.spki,
        }
        for place, each in zip(places, facts, strict=True)
    ]
