r"""CORE: events for a person at a terminal: one line each, with nothing in it that could steer the terminal.

What an untrusted process chose (paths, arguments, a server's words) is shown with control, format and
direction-changing characters written as `\xNN` or `\uNNNN`. It is for reading, not for reading back: that is what
the log's own lines are for. No I/O.
"""

from __future__ import annotations

import shlex
from typing import assert_never

from codingagents.trust import events
from codingagents.trust.encoding import Record, event_kind
from codingagents.trust.events import AnyEvent

MAX_WIDTH = 400  # characters of one rendered event; `events tail --json` shows all


def printable(text: str) -> str:
    r"""Return `text` with every character that is not printable written as `\xNN`, `\uNNNN` or `\UNNNNNNNN`."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def render(record: Record) -> str:
    """Return one line (no newline) for `record`: its time of day, number, kind and what tells most."""
    line = printable(f"{record.time[11:23]} {record.seq:>5} {event_kind(record.event):<20} {_summary(record.event)}")
    return line if len(line) <= MAX_WIDTH else line[: MAX_WIDTH - 1] + "…"


def _summary(event: AnyEvent) -> str:  # noqa: C901, PLR0912 -- one flat table over a closed union
    match event:
        case events.SessionStarted():
            servers = ", ".join(event.servers) or "no servers"
            return f"{event.agent} on {event.engine}, {servers}, exec {event.exec_mode}"
        case events.LayerReport():
            return f"{event.server or event.role}: " + ", ".join(f"{row.layer} {row.state}" for row in event.layers)
        case events.AgentStarted():
            return f"pid {event.process_pid} uid {event.user_id}: {shlex.join(event.command)}"
        case events.SessionEnded():
            return f"exit {event.exit_code}: {event.reason}"
        case events.HelperStarting():
            return f"{event.server} uid {event.user_id}, attempt {event.attempt}"
        case events.HelperReady():
            return f"{event.server} pid {event.process_pid} uid {event.user_id} on {event.listen}"
        case events.HelperStopped():
            again = "not restarted" if event.restart_in_ms is None else f"back in {event.restart_in_ms} ms"
            return f"{event.server} pid {event.process_pid} exit {event.exit_code}, {again}: {event.reason}"
        case events.HelperFailed():
            return f"{event.server}: {event.reason}"
        case events.HelperDegraded():
            return f"{event.server}: {event.reason}"
        case events.HelperRecovered():
            return event.server
        case events.HelperDraining():
            return f"{event.server} has {event.deadline_ms} ms for what is in flight"
        case events.HelperSecrets():
            return f"{event.server}: {', '.join(event.names)} {event.problem or 'in effect'}"
        case events.ZygoteReplaced():
            return f"pid {event.process_pid}, the former one {event.reason}"
        case events.HelperRefused():
            who = "unknown caller" if event.peer_user_id is None else f"uid {event.peer_user_id}"
            return f"{event.server} refused {who}: {event.reason}"
        case events.HelperRequest():
            outcome = f"{event.http_response_status_code} {event.error_type or ''}".rstrip()
            traffic = f"{event.request_bytes} B up, {event.response_bytes} B down, {event.duration_ms} ms"
            what = " ".join(filter(None, (event.http_request_method, event.mcp_method_name, event.mcp_name)))
            return f"{event.server} {what} {outcome}, {traffic}"
        case events.TrustSnapshot():
            added = f", with {', '.join(event.overrides)}" if event.overrides else ""
            return f"{event.server}: {event.anchors} anchors of {event.store}{added}"
        case events.TrustReloaded():
            return f"{event.server}: {event.problem or f'taken, {event.kept} connections kept, {event.closed} closed'}"
        case events.TrustExpiring():
            return f"{event.server}: {event.what} {event.name[:16]} ends {event.expires}, {event.days_left} days left"
        case events.UpstreamTrusted():
            pins = ", ".join(event.pins) or "no pin"
            return (
                f"{event.server} at {event.server_address}: {event.anchored_by}, {pins}, credential {event.credential}"
            )
        case events.PinMismatch():
            seen, expected = ", ".join(event.seen), ", ".join(event.expected)
            return f"{event.server} at {event.server_address}: expected {expected}; seen {seen}"
        case events.UpstreamFailed():
            return f"{event.server} {event.error_type}: {event.detail}"
        case events.FactsDropped():
            return f"{event.server}: {event.dropped} facts over its quota"
        case events.ExecAllowed():
            return f"{_exec(event)} [{event.rule}]"
        case events.ExecDenied():
            return f"{event.errno} ({event.firmness}) {_exec(event)} [{event.rule}] {event.reason}"
        case events.ExecDigest():
            return f"{event.role} {event.resolved_path}: {event.problem or event.executable_sha256}"
        case events.ExecPolicyLoaded():
            marked = ", ".join(f"{rule.rule} ({rule.firmness})" for rule in event.rules)
            return f"{event.role} {event.mode}: {marked or 'no rules'}"
        case events.SessionRouting():
            return _routing(event)
        case events.TaskStarted():
            return _task(event)
        case events.TaskEnded():
            left = f", {event.left} processes run on" if event.left else ""
            return f"{event.task} exit {event.exit_code} after {event.duration_ms} ms: {event.reason}{left}"
        case events.TaskGone():
            return f"{event.task} after {event.duration_ms} ms"
        case events.TaskRefused():
            return f"pid {event.requester_pid} uid {event.requester_user_id}: {event.reason}"
        case events.TasksUnavailable():
            return f"{event.reason}; {'another is started' if event.again else 'no task runs from here on'}"
        case events.EventsGap():
            return f"{event.lost} events lost since {event.since}: {event.reason}"
        case events.Checkpoint():
            return "signed, " + " ".join(event.note.splitlines()[1:2]) + " lines"
        case _:
            assert_never(event)


def _routing(event: events.SessionRouting) -> str:
    if not event.routed:
        return "off"
    others = "denied" if event.enforced else "recorded"
    return f"{event.client or 'any program'} by {', '.join(event.means) or 'nothing'}; other spawns are {others}"


def _task(event: events.TaskStarted) -> str:
    more = " …" if event.args_truncated else ""
    what = "terminal" if event.terminal else "pipes"
    return f"{event.task} pid {event.process_pid} uid {event.user_id} {what}: {shlex.join(event.command_args)}{more}"


def _exec(event: events.ExecDecided) -> str:
    more = " …" if event.args_truncated else ""
    path = event.resolved_path or event.executable_path
    return f"{event.role} pid {event.process_pid} uid {event.user_id} {path}: {shlex.join(event.command_args)}{more}"
