"""CORE: what a helper in the foreground says, to a person at a terminal or as JSON. No I/O; the time is an argument.

Neither secret nor local bearer is ever in it: a bearer is named by the file that holds it. What a server chose is shown
with its control characters escaped (`trust.terminal.printable`).
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec

from codingagents.rewrite.foreground_plan import ForegroundSpec
from codingagents.trust import facts
from codingagents.trust.answers import ANSWERS
from codingagents.trust.events import CredentialRule
from codingagents.trust.facts import AnyFact
from codingagents.trust.terminal import printable

_BEARER_VARIABLE = "HELPER_BEARER"
_RED, _YELLOW, _DIM, _BOLD, _PLAIN = "\x1b[31m", "\x1b[33m", "\x1b[2m", "\x1b[1m", "\x1b[0m"
_REFUSED_FROM = 400  # HTTP
_CREDENTIAL: Final[dict[CredentialRule, tuple[str, str]]] = {
    "pinned": ("", "; the credential is attached"),
    "without-pin": (_YELLOW, "; the credential is attached without a pin"),
    "withheld": (_YELLOW, "; the credential is withheld"),
    "none": ("", ""),
}


class Reached(NamedTuple):
    """How clients reach the helper. `socket_path` and `bearer_file` are "" where there is none."""

    url: str
    socket_path: str
    bearer_file: str


def introduction(spec: ForegroundSpec, reached: Reached, confinement: str, form: str, *, color: bool) -> list[str]:
    """Return the lines before everything else: where the helper is, who may call it, and what to paste."""
    remote = spec.helper.remote
    where = f"unix:{reached.socket_path}" if reached.socket_path else reached.url
    demanded = {"uid": f"UID {spec.helper.uid}", "bearer": "the local bearer"}
    callers = " and ".join(demanded[each] for each in remote.client_auth) or "anybody on this machine"
    rows = [("listens on", where), ("serves", callers)]
    if reached.bearer_file:
        rows.append(("bearer", reached.bearer_file))
    rows += [("confinement", confinement), ("modules", form), *_snippets(spec, reached)]
    bold, plain = (_BOLD, _PLAIN) if color else ("", "")
    host = f"[{remote.host}]" if ":" in remote.host else remote.host
    return [
        *(printable(f"note: {note}") for note in spec.notes),
        f"{bold}{remote.name}{plain}: {remote.scheme}://{host}:{remote.port}{remote.path}",
        *(f"  {name:<12} {printable(text)}" for name, text in rows),
        "Ctrl-C ends it.",
    ]


def _snippets(spec: ForegroundSpec, reached: Reached) -> list[tuple[str, str]]:
    name, url = spec.helper.remote.name, shlex.quote(reached.url)
    bearer = f"$(cat {shlex.quote(reached.bearer_file)})"
    header = f' --header "Authorization: Bearer {bearer}"' if reached.bearer_file else ""
    if reached.socket_path:
        return [("curl", f"curl --unix-socket {shlex.quote(reached.socket_path)}{header} {url}")]
    transport = spec.helper.remote.transport
    found = [("Claude Code", f"claude mcp add --transport {transport} {name} {url}{header}")]
    if transport == "http":
        variable = f" --bearer-token-env-var {_BEARER_VARIABLE}" if reached.bearer_file else ""
        started = f'; {_BEARER_VARIABLE}="{bearer}" codex' if reached.bearer_file else ""
        found.append(("Codex", f"codex mcp add {name} --url {url}{variable}{started}"))
    return found


def introduction_json(spec: ForegroundSpec, reached: Reached, confinement: str, form: str, time: str) -> bytes:
    """Return the same for a program, as the first JSON line."""
    remote = spec.helper.remote
    said = {
        "time": time,
        "server": remote.name,
        "fact": "listening",
        "url": reached.url,
        "socket_path": reached.socket_path or None,
        "bearer_file": reached.bearer_file or None,
        "client_auth": remote.client_auth,
        "user_id": spec.helper.uid,
        "confinement": confinement,
        "modules": form,
        "notes": spec.notes,
    }
    return msgspec.json.encode(said) + b"\n"


def fact_json(fact: AnyFact, server: str, time: str) -> bytes:
    """Return `fact` as one JSON line, `time` and `server` added."""
    return msgspec.json.encode({"time": time, "server": server, **msgspec.to_builtins(fact)}) + b"\n"


def fact_lines(fact: AnyFact, server: str, time: str, *, color: bool) -> list[str]:
    """Return `fact` for a person: a line, and for a pin mismatch one more for each pin; none for what is no news.

    `time` is RFC 3339; its time of day is shown.
    """
    tint, *text = _told(fact, server)
    if not text:
        return []
    at = time[11:19]
    first, *more = map(printable, text)
    if color:
        return [f"{_DIM}{at}{_PLAIN} {tint}{first}{_PLAIN if tint else ''}", *more]
    return [f"{at} {first}", *more]


def _told(fact: AnyFact, server: str) -> Sequence[str]:
    """Return the colour, then the lines."""
    match fact:
        case facts.Request():
            return _request(fact, server)
        case facts.Refused():
            who = "an unknown caller" if fact.peer_user_id is None else f"UID {fact.peer_user_id}"
            return _YELLOW, f"refused {who}: {_reason(fact.reason, server)}"
        case facts.UpstreamTrusted() | facts.TrustTaken() | facts.PinMismatch():
            return _trust(fact, server)
        case facts.UpstreamFailed():
            return _RED, f"{_reason(fact.error_type, server)} ({fact.detail})"
        case facts.UpstreamHealth(state="failing"):
            return _RED, f"the server keeps failing ({fact.error_type})"
        case facts.UpstreamHealth():
            return "", "the server works again"
        case facts.SecretsTaken():
            return _outcome(fact)
        case facts.Dropped():
            return _YELLOW, f"{fact.count} lines are missing here: they came too fast"
        case facts.Failed():
            return _RED, fact.reason
    return ("",)


def _request(fact: facts.Request, server: str) -> Sequence[str]:
    what = " ".join(filter(None, (fact.method, fact.mcp_method, fact.mcp_name)))
    traffic = f"{fact.request_bytes} B up, {fact.response_bytes} B down, {fact.duration_ms} ms"
    line = f"{what} {fact.status}, {traffic}"
    if fact.error_type is not None:
        return _RED, f"{line}: {_reason(fact.error_type, server)}"
    return _YELLOW if fact.status >= _REFUSED_FROM else "", line


def _trust(fact: facts.UpstreamTrusted | facts.TrustTaken | facts.PinMismatch, server: str) -> Sequence[str]:
    match fact:
        case facts.UpstreamTrusted():
            return _trusted(fact)
        case facts.TrustTaken():
            return _trust_taken(fact)
        case facts.PinMismatch():
            return _pin_mismatch(fact, server)


def _trusted(fact: facts.UpstreamTrusted) -> Sequence[str]:
    tint, credential = _CREDENTIAL[fact.credential]
    pins = " and ".join(fact.pins) or "no pin"
    until = fact.leaf_not_after[:10]
    why = f"{fact.anchored_by}, {pins}, its certificate until {until}"
    return tint, f"trusts {fact.address} over {fact.tls_version}: {why}{credential}"


def _trust_taken(fact: facts.TrustTaken) -> Sequence[str]:
    if fact.problem is not None:
        return _RED, f"the former anchors and pins stay: {fact.problem}"
    return "", f"anchors and pins are renewed: {fact.kept} connections in use live on, {fact.closed} were broken off"


def _pin_mismatch(fact: facts.PinMismatch, server: str) -> Sequence[str]:
    tint, outcome = (_RED, "nothing was sent") if fact.refused else (_YELLOW, "only reported")
    return (
        tint,
        f"pin mismatch at {fact.address}: {outcome}; none of these public keys is a pin:",
        *(f"           {pin}" for pin in fact.seen),
        f"         expected {' '.join(fact.expected)}",
        f"         if you know by another way that one is the server's, put it into [mcp_servers.{server}.tls.pins]",
    )


def _outcome(fact: facts.SecretsTaken) -> Sequence[str]:
    if not fact.names:
        return "", "no secret has another value than before"
    names = ", ".join(fact.names)
    if fact.problem is None:
        return "", f"{names}: the new value is attached from now on"
    return _RED, f"{names}: the former value stays: {fact.problem}"


def _reason(code: str, server: str) -> str:
    answer = ANSWERS.get(code)
    return code if answer is None else f"{answer.message}; {answer.remedy.replace('{server}', server)}"
