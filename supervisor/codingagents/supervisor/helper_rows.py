"""CORE: what the kernel says of a helper from outside, as rows of the layer report marked *observed*.

The helper reports its own attempts beside these (`codingagents.proxies.confinement`). What proc(5) does not show to the
supervisor has no row here: a row is what was seen, never what was meant. Reads nothing itself, and ends nobody.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from codingagents.trust.events import Layer
from codingagents.trust.facts import Ready

_NO_CAPABILITIES: Final = frozenset({"CapInh", "CapPrm", "CapEff", "CapAmb"})
_LIMITS_OF_NOTHING: Final = ("Max core file size", "Max file size", "Max locked memory")
# Without these it must not serve. Once on they stay, so that no look comes at a bad moment; descriptors come and go.
_FOR_GOOD: Final = frozenset({"uid_drop", "capabilities", "no_new_privs", "seccomp", "non_dumpable"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One look at /proc/PID."""

    status: Mapping[str, str]  # fields of /proc/PID/status
    limits: Mapping[str, str]  # soft limits by their names in /proc/PID/limits
    memory_owner: int  # of /proc/PID/mem: root's where the process is not dumpable
    descriptors: Sequence[str] | None  # "NUMBER TARGET", by number; None without CAP_SYS_PTRACE


def report(ready: Ready, seen: Seen | None, uid: int) -> list[Layer]:
    """Return the rows of one helper's `LayerReport`: its own, marked self-reported whatever they say, then ours."""
    own = told(ready.layers)
    return own if seen is None else own + observed_rows(seen, uid, ready.open_fds)


def told(layers: Sequence[Layer]) -> list[Layer]:
    """Return what a helper says of itself, marked so whatever it says."""
    return [msgspec.structs.replace(row, observed_by="self-reported") for row in layers]


def contradicted(rows: Sequence[Layer]) -> list[str]:
    """Return the names of the layers without which a helper must not serve, and that were seen not to hold."""
    return [
        row.layer
        for row in rows
        if (row.observed_by, row.wanted) == ("observed", "require") and row.state != "enforced"
    ]


def observed_rows(seen: Seen, uid: int, reported_descriptors: Sequence[str]) -> list[Layer]:
    """Return a row for each layer that can be seen from outside, for a helper that is to run as `uid`."""
    status = seen.status
    ids = {name: status.get(name, "?").split() for name in ("Uid", "Gid")}
    dropped = all(found == [str(uid)] * 4 for found in ids.values()) and not status.get("Groups", "?").strip()
    capabilities = {name: status.get(name, "?") for name in sorted(_NO_CAPABILITIES | {"CapBnd"})}
    held = [name for name in _NO_CAPABILITIES if capabilities[name].strip("0")]
    limits = {name: seen.limits.get(name, "?") for name in _LIMITS_OF_NOTHING}
    rows = [
        _row("uid_drop", dropped, "/proc/PID/status", _only(status, "Uid", "Gid", "Groups")),
        _row("capabilities", not held, "/proc/PID/status", capabilities),
        _row("no_new_privs", status.get("NoNewPrivs") == "1", "/proc/PID/status", _only(status, "NoNewPrivs")),
        _row("seccomp", status.get("Seccomp") == "2", "/proc/PID/status", _only(status, "Seccomp", "Seccomp_filters")),
        _row("non_dumpable", seen.memory_owner == 0, "stat /proc/PID/mem", {"owner": str(seen.memory_owner)}),
        _row("rlimits", set(limits.values()) == {"0"}, "/proc/PID/limits", limits),
    ]
    if seen.descriptors is not None:
        rows.append(_descriptors_row(seen.descriptors, reported_descriptors))
    return rows


def _descriptors_row(found: Sequence[str], reported: Sequence[str]) -> Layer:
    """Judge the listing: all that was reported is still that, and what came since (its first clients) is no file."""
    targets = {line.split(" ", 1)[1] for line in found}
    foreign = sorted({target for target in targets if target.startswith("/")} - {"/dev/null"})
    changed = sorted(set(reported) - set(found))
    detail = {
        "open": str(len(found)),
        "files": " ".join(foreign) or "none",
        "not as reported": " ".join(changed) or "none",
    }
    return _row("descriptors", not foreign and not changed, "list /proc/PID/fd", detail)


def _only(status: Mapping[str, str], *names: str) -> dict[str, str]:
    return {name: status[name] for name in names if name in status}


def _row(layer: str, holds: bool, where: str, found: Mapping[str, str]) -> Layer:
    values = ", ".join(f"{name} {' '.join(value.split())}".rstrip() for name, value in found.items())
    return Layer(
        layer=layer,
        wanted="require" if layer in _FOR_GOOD else "prefer",
        state="enforced" if holds else "unavailable",
        mechanism="as the kernel tells it from outside",
        probe=f"{where}: {values}",
        observed_by="observed",
        why="" if holds else "not what a helper must be",
        consequence="" if holds else "the helper is not confined as it says; treat it as taken over",
        remedy="" if holds else "end the session, keep the log and report it",
    )
