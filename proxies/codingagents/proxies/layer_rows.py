"""CORE: what a helper tried on itself, as rows of the layer report marked *self-reported*. Tries nothing itself.

One row is not of confinement: whether pins hold the server to its keys, which the configuration decides.

A layer is *enforced* where each forbidden act was refused, and at least one of them had been possible before the layer
was on: otherwise something refuses, and it was not shown to be the layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from codingagents.trust.events import Layer, LayerState
from codingagents.trust.pins import Pinning
from codingagents.trust.vocabulary import LayerWish, PinMode


class Tried(NamedTuple):
    """One act or one look: what came of it, and what had to come of it."""

    layer: str
    act: str
    outcome: str  # an errno's name, "succeeded", or the value that was read
    wanted: str
    control: str | None = None  # the outcome before the layer was on; None where a value was only read

    @property
    def held(self) -> bool:
        """Say whether the outcome was the wanted one."""
        return self.outcome == self.wanted

    @property
    def shown(self) -> bool:
        """Say whether the layer made the difference."""
        return self.held and self.control != self.outcome

    def __str__(self) -> str:
        return f"{self.act}: {self.outcome}" + ("" if self.control is None else f" (before: {self.control})")


@dataclass(frozen=True, slots=True)
class _Kind:
    name: str
    wanted: LayerWish  # "require": the helper does not serve without it
    mechanism: str
    consequence: str  # of its absence
    remedy: str


_REPORT: Final = "a bug of ours, or a kernel that we do not know: report it with doctor --json"
_LANDLOCK: Final = "CONFIG_SECURITY_LANDLOCK, lsm=landlock,..., and an engine profile that allows landlock_* calls"
_KINDS: Final = (
    _Kind("descriptors", "require", "close_range(2)", "it holds what belongs to others", _REPORT),
    _Kind(
        "uid_drop",
        "require",
        "setresuid(2) to a UID of its own",
        "it could read what the supervisor and other helpers own",
        "--cap-add SETUID --cap-add SETGID",
    ),
    _Kind("capabilities", "require", "capset(2) to none", "it could do some of what root can", _REPORT),
    _Kind(
        "no_new_privs",
        "require",
        "prctl(2) PR_SET_NO_NEW_PRIVS",
        "set-user-ID programs would raise privileges",
        _REPORT,
    ),
    _Kind(
        "non_dumpable",
        "require",
        "prctl(2) PR_SET_DUMPABLE 0",
        "another process of its UID could read its memory",
        _REPORT,
    ),
    _Kind("environment", "require", "emptied", "it holds what others set", _REPORT),
    _Kind(
        "rlimits",
        "prefer",
        "setrlimit(2)",
        "it can serve fewer connections than limits.connections says",
        "--ulimit nofile=N:N, N being the number that was wanted",
    ),
    _Kind(
        "landlock_fs",
        "prefer",
        "Landlock on files: no more than name resolution reads",
        "taken over, it could read what all can read; seccomp still keeps it from writing",
        f"Linux 5.13 with {_LANDLOCK}",
    ),
    _Kind(
        "landlock_net",
        "prefer",
        "Landlock on TCP: connect to its own ports only, bind none",
        "taken over, it could connect to any TCP port; seccomp still keeps it from binding",
        f"Linux 6.7 with {_LANDLOCK}",
    ),
    _Kind(
        "landlock_scope",
        "prefer",
        "Landlock's scopes: no abstract unix socket and no signal beyond itself",
        "seccomp alone keeps it from local sockets and signals",
        f"Linux 6.12 with {_LANDLOCK}",
    ),
    _Kind(
        "seccomp",
        "require",
        "seccomp filter: only the system calls that serving takes",
        "it could run programs that nobody sees",
        "an engine profile that allows seccomp(2)",
    ),
)
LAYER_NAMES: Final = tuple(kind.name for kind in _KINDS)
PINS_LAYER: Final = "tls_pins"  # no confinement, and only where the server is reached over TLS
# By mode: whether it is wanted, who gets through without a pin, and what would change that.
_PINS: Final[dict[PinMode, tuple[LayerWish, str, str]]] = {
    "enforce": (
        "require",
        "a server below {overrides}",
        "ca_overrides in [mcp_servers.{server}.tls] without {overrides}, or added anew without --override-pins",
    ),
    "report": ("prefer", "a server without a pin", 'mode = "enforce" in [mcp_servers.{server}.tls.pins]'),
    "off": (
        "off",
        "any server that ca vouches for",
        "[mcp_servers.{server}.tls.pins], as coding-agents trust check {server} prints it",
    ),
}


def rows(tried: Sequence[Tried], absent: dict[str, str]) -> list[Layer]:
    """Return one row for each layer, in a fixed order; `absent` says of a layer that was not tried why."""
    return [
        _row(kind, [each for each in tried if each.layer == kind.name], absent.get(kind.name, "not tried"))
        for kind in _KINDS
    ]


def unmet(report: Sequence[Layer]) -> list[Layer]:
    """Return the rows without which a helper must not serve."""
    return [row for row in report if row.wanted == "require" and row.state != "enforced"]


def _row(kind: _Kind, tried: Sequence[Tried], absent: str) -> Layer:
    state, why = _judge(tried, absent)
    missing = state != "enforced"
    return Layer(
        layer=kind.name,
        wanted=kind.wanted,
        state=state,
        mechanism=kind.mechanism,
        probe="; ".join(map(str, tried)) or "not tried",
        observed_by="self-reported",
        why=why,
        consequence=kind.consequence if missing else "",
        remedy=kind.remedy if missing else "",
    )


def _judge(tried: Sequence[Tried], absent: str) -> tuple[LayerState, str]:
    if not tried:
        return "unavailable", absent
    failed = [each.act for each in tried if not each.held]
    if len(failed) == len(tried):
        return "unavailable", "nothing was refused"
    if failed:
        return "partial", f"not as wanted: {', '.join(failed)}"
    if not any(each.shown for each in tried):
        return "partial", "refused before too: it was not shown to be this layer"
    return "enforced", ""


def pins_row(pinning: Pinning, server: str, probe: str) -> Layer:
    """Return the row of the pins; `probe` says what was tried, and what came of it."""
    overrides = ", ".join(sorted(set(pinning.bypasses.values())))
    wanted, peer, remedy = _PINS[pinning.mode]
    state, why = _pins_state(pinning, overrides)
    missing = state != "enforced"
    credential = " and the credential" if pinning.credential_without_pin else ", without the credential"
    return Layer(
        layer=PINS_LAYER,
        wanted=wanted,
        state=state,
        mechanism="pins, asked for the verified path within the TLS handshake",
        probe=probe,
        observed_by="self-reported",
        why=why,
        consequence=f"{peer.format(overrides=overrides)} is sent the requests{credential}" if missing else "",
        remedy=remedy.format(server=server, overrides=overrides) if missing else "",
    )


def _pins_state(pinning: Pinning, overrides: str) -> tuple[LayerState, str]:
    if pinning.refuses:
        return ("partial", f"override_pins of {overrides}") if overrides else ("enforced", "")
    why = f'mode = "{pinning.mode}"'
    if pinning.credential_without_pin:
        return "disabled", f"{why} and credential_without_pin = true"
    return ("disabled" if pinning.mode == "off" else "partial"), why
