"""CORE: what is to be said of a server's certificates: pin by pin, certificate by certificate, and what is wrong.

Judges what `tls_look` saw; whether a path is trusted was OpenSSL's word and `trust.pins`', and is not decided again. A
problem makes a check fail, a warning does not. No I/O; the time is an argument.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from codingagents.rewrite.certificates import CertificateFacts
from codingagents.rewrite.pin_proposal import SeenPath, carries, digest
from codingagents.rewrite.specs import PinSpec, RemoteSpec, TlsSpec
from codingagents.trust.terminal import printable

DEFAULT_DAYS = 30

# X509_V_ERR_*, as `ssl.SSLCertVerificationError.verify_code` has them.
NO_ISSUER = frozenset({2, 20, 21})  # UNABLE_TO_GET_ISSUER_CERT(_LOCALLY), UNABLE_TO_VERIFY_LEAF_SIGNATURE
SELF_SIGNED = frozenset({18, 19})  # DEPTH_ZERO_SELF_SIGNED_CERT, SELF_SIGNED_CERT_IN_CHAIN
DATES = frozenset({9, 10})  # CERT_NOT_YET_VALID, CERT_HAS_EXPIRED
NAME = frozenset({62, 64})  # HOSTNAME_MISMATCH, IP_ADDRESS_MISMATCH


@dataclass(frozen=True, slots=True, kw_only=True)
class PinVerdict:
    """One configured pin, and where in the path its key or certificate stands; `matched`: where it may."""

    pin: PinSpec
    places: tuple[str, ...]
    matched: bool

    @property
    def text(self) -> str:
        """What became of it, for a person."""
        if self.matched:
            return f"matched, {' and '.join(self.places)}" + (", though a backup" if self.pin.backup else "")
        if self.places:
            return f"not matched: it is the {' and '.join(self.places)}, and only counts as {self.pin.at}"
        return "backup, not in the path" if self.pin.backup else "not matched"


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What there is to say of one server's trust; sentences without an end, for a person."""

    pins: tuple[PinVerdict, ...] = ()
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    remedies: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        """Whether the check passes."""
        return not self.problems


def verdict_on(
    server: str, tls: TlsSpec, seen: SeenPath, *, bypass: str | None, now: datetime.datetime, days: int | None
) -> Verdict:
    """Return the verdict on a path that was verified; `bypass` is the override that let it pass without a pin.

    What ends within `days` is a problem. Without a number these are 30, and for a certificate no more than a third of
    its life: that is when short-lived ones are renewed.
    """
    pins = tuple(PinVerdict(pin=pin, places=_places(seen, pin), matched=carries(seen, pin)) for pin in tls.pins)
    problems = [*_expiring(seen.facts, now, days)]
    warnings = [*_warnings(tls, pins, bypass)]
    rotate = f"coding-agents trust rotate {server}"
    remedies = []
    if ending := _pins_ending(tls, now.date(), days):
        problems.append(ending)
        remedies.append(f"if the pins are still right: {rotate}")
    matched = [each for each in pins if each.matched]
    if tls.pin_mode == "off":
        pass
    elif not matched and bypass is None:
        problems.append("no pin is in the path")
        remedies.append(f"only if its owner confirms the keys that it shows now: {rotate} --from-unpinned")
    elif matched and all(each.pin.backup for each in matched):
        problems.append("only a backup pin is in the path: the key that it stands behind is gone")
        remedies.append(rotate)
    elif matched and all(each.matched for each in pins if each.pin.backup):
        warnings.append("no backup pin is outside of the path: all of them are lost with it; add a key of another CA")
    return Verdict(pins=pins, problems=tuple(problems), warnings=tuple(warnings), remedies=tuple(remedies))


def explain(
    code: int, message: str, sent: Sequence[CertificateFacts], *, server_name: str, store: str, now: datetime.datetime
) -> str:
    """Return why a server is refused, in a sentence: OpenSSL's `verify_code` and `message`, and what was sent."""
    if code in NAME and sent:
        names = ", ".join(sent[0].sans) or "no name"
        return printable(f"the certificate is not for {server_name}: it says {names}")
    if code in DATES:
        for each in sent:
            if each.not_after <= now:
                return printable(f"the certificate of {_subject(each)} has expired on {each.not_after:%Y-%m-%d}")
            if each.not_before > now:
                return printable(f"the certificate of {_subject(each)} is not valid before {each.not_before:%Y-%m-%d}")
    if code in SELF_SIGNED and sent:
        top = next((each for each in sent if each.self_signed), sent[-1])
        whose = "the server's certificate is its own root, and" if len(sent) == 1 else f"the root {_subject(top)}"
        return printable(f"{whose} is not in the trust store ({store})")
    if code in NO_ISSUER and sent:
        top = _last_in_order(sent)
        count = f"{len(sent)} certificate{'' if len(sent) == 1 else 's'}"
        return printable(
            f"the issuer of {_subject(top)}, which is {top.issuer or '(none)'}, is neither among the {count} that the "
            f"server sends nor in the trust store ({store}); either the server leaves out an intermediate, or this "
            "authority is not trusted"
        )
    return printable(f"the certificate is not trusted: {message}")


def remedies(code: int, remote: RemoteSpec, sent: Sequence[CertificateFacts], *, known: bool) -> tuple[str, ...]:
    """Return the commands that may help where OpenSSL refused a server with that `verify_code`, for what it sent.

    `known`: whether it is in a configuration.
    """
    if code not in NO_ISSUER | SELF_SIGNED:
        return ()
    name = f"{remote.name.lstrip('_-').lower() or 'my'}-ca"
    host = f"[{remote.host}]" if ":" in remote.host else remote.host
    source = f"--server {remote.name}" if known else f"--from https://{host}:{remote.port}"
    if code in SELF_SIGNED and len(sent) == 1 and not sent[0].is_ca:
        return (f"if this certificate is yours: coding-agents trust add {name} {source} --leaf",)
    return (f"if this authority is yours: coding-agents trust add {name} {source}",)


def place_names(seen: SeenPath) -> list[str]:
    """Return how the place of each certificate of the path is called."""
    return ["+".join(places) for places in seen.path.places]


def days_left(end: datetime.datetime, now: datetime.datetime) -> int:
    """Return whole days, rounded down, negative once it is past."""
    return (end - now).days


def _places(seen: SeenPath, pin: PinSpec) -> tuple[str, ...]:
    keys = zip(seen.path.keys, seen.path.certificates, place_names(seen), strict=True)
    return tuple(place for key, certificate, place in keys if digest(pin) in (key, certificate))


def _expiring(facts: Sequence[CertificateFacts], now: datetime.datetime, days: int | None) -> Iterator[str]:
    for each in facts:
        life = (each.not_after - each.not_before).days
        left = days_left(each.not_after, now)
        if left <= (min(DEFAULT_DAYS, life // 3) if days is None else days):
            yield printable(
                f"the certificate of {_subject(each)} expires in {_days(left)}, on {each.not_after:%Y-%m-%d}"
            )


def _pins_ending(tls: TlsSpec, today: datetime.date, days: int | None) -> str | None:
    if tls.pins_expire is None or tls.pin_mode == "off":
        return None
    left = (datetime.date.fromisoformat(tls.pins_expire) - today).days
    if left < 0:
        return f"the pins have expired on {tls.pins_expire}, and the server is refused"
    if left <= (DEFAULT_DAYS if days is None else days):
        return f"the pins expire in {_days(left)}, on {tls.pins_expire}"
    return None


def _warnings(tls: TlsSpec, pins: Sequence[PinVerdict], bypass: str | None) -> Iterator[str]:
    if tls.pin_mode == "off":
        yield "no pins: any authority of the trust store can vouch for another server in its place"
    elif tls.pin_mode == "report":
        yield 'mode = "report": a server without a pin is reported, and not refused'
    if tls.credential_without_pin:
        yield "credential_without_pin: the credential is sent to a server without a pin too"
    if bypass is not None:
        yield f"the override {bypass} lets the path pass without a pin; no credential is sent"
    if pins and all(each.pin.at == "leaf" or each.places == ("leaf",) for each in pins):
        yield "only leaf keys are pinned, which change with each renewal; pin an intermediate or root"


def _last_in_order(sent: Sequence[CertificateFacts]) -> CertificateFacts:
    """Return the certificate that the first one leads to by names, however the server ordered the rest."""
    current, left = sent[0], list(sent[1:])
    while (issuer := next((each for each in left if each.subject == current.issuer), None)) is not None:
        left.remove(issuer)
        current = issuer
    return current


def _subject(facts: CertificateFacts) -> str:
    return facts.subject or facts.sha256[:16]


def _days(count: int) -> str:
    return f"{count} day{'' if count == 1 else 's'}"
