"""CORE: the closed union of events. What is not listed here cannot be logged.

Each class is the `data` of one CloudEvents type, `dev.codingagents.<tag>`. Field names follow OpenTelemetry where
it has one, with `.` written `_` (`process_pid` for `process.pid`). Values are str, int, bool, None and
lists or objects of these, so that sorted compact JSON is RFC 8785 canonical. Bytes from an untrusted role are
`escape_bytes` text. No I/O, no clock.
"""

from __future__ import annotations

import re
from typing import Literal

import msgspec

from codingagents.trust.vocabulary import LayerWish
from codingagents.trust.wire import Message

TYPE_PREFIX = "dev.codingagents."

_ESCAPE = re.compile(rb"\\(?:\\|x([0-9a-f]{2}))")


class Event(Message, frozen=True, kw_only=True, tag_field="kind"):
    """Base of all events; the tag is the CloudEvents type without its prefix."""


# What a connection, or a server by its configuration, does with the credential: a pin matched, no pin was asked for
# (`credential_without_pin`), no pin matched and nothing is attached, or there is no credential.
CredentialRule = Literal["pinned", "without-pin", "withheld", "none"]
LayerState = Literal["enforced", "partial", "unavailable", "disabled"]


class Layer(Message, frozen=True, kw_only=True):
    """One row of the layer report (one confinement mechanism, wanted and actual)."""

    layer: str
    wanted: LayerWish
    state: LayerState
    mechanism: str  # what enforces it
    probe: str  # what was tried, and the errno or value that was seen
    observed_by: Literal["observed", "self-reported"]
    why: str = ""  # cause, where it is not enforced
    consequence: str = ""  # one sentence of effect
    remedy: str = ""  # the exact flag that would enable it
    detail: dict[str, str] = msgspec.field(default_factory=dict)


class SessionStarted(Event, frozen=True, kw_only=True, tag="session.started"):
    """A supervisor took up its session."""

    agent: str
    engine: str
    servers: list[str]
    config_sha256: str
    exec_mode: str
    uids: dict[str, int]
    accounts: str  # `created`, `there`, or `numeric: …`: whether the IDs have names in the container's /etc, or why not
    supervisor_version: str


class LayerReport(Event, frozen=True, kw_only=True, tag="session.layers"):
    """Which layers hold for a role, each as it was tried from that role's own process."""

    role: str
    layers: list[Layer]
    server: str | None = None  # whose helper, where the role is "helper"


class AgentStarted(Event, frozen=True, kw_only=True, tag="agent.started"):
    """The agent's process was confined and let go."""

    process_pid: int
    user_id: int
    command: list[str]


class SessionEnded(Event, frozen=True, kw_only=True, tag="session.ended"):
    """The last event before the closing checkpoint."""

    exit_code: int
    reason: str


class HelperStarting(Event, frozen=True, kw_only=True, tag="helper.starting"):
    """A helper process is being made."""

    server: str
    user_id: int
    attempt: int
    pin_mode: str = "off"
    credential: CredentialRule = "none"  # what its configuration makes of it where all goes well
    overrides_pins: list[str] = msgspec.field(default_factory=list)  # CAs that were added, below which no pin is asked


class HelperReady(Event, frozen=True, kw_only=True, tag="helper.ready"):
    """A helper serves its socket."""

    server: str
    user_id: int
    process_pid: int
    listen: str
    open_fds: list[str]  # self-reported listing, after everything foreign was closed


class HelperStopped(Event, frozen=True, kw_only=True, tag="helper.stopped"):
    """A helper ended; `restart_in_ms` is None where it will not come back."""

    server: str
    user_id: int
    process_pid: int
    exit_code: int  # 128 + N for a signal
    reason: str
    restart_in_ms: int | None


class HelperFailed(Event, frozen=True, kw_only=True, tag="helper.failed"):
    """A helper used up its restart budget, or could not be made."""

    server: str
    reason: str


class HelperDegraded(Event, frozen=True, kw_only=True, tag="helper.degraded"):
    """A helper serves, but its upstream failed several times in a row, or it answers its probe late."""

    server: str
    reason: str


class HelperRecovered(Event, frozen=True, kw_only=True, tag="helper.recovered"):
    """What had degraded a helper is over."""

    server: str


class HelperDraining(Event, frozen=True, kw_only=True, tag="helper.draining"):
    """A helper takes no new connections and finishes what is in flight."""

    server: str
    deadline_ms: int


class HelperSecrets(Event, frozen=True, kw_only=True, tag="helper.secrets-renewed"):
    """New values of secrets took effect in a helper; or did not, for `problem`, and the former ones stay."""

    server: str
    names: list[str]
    problem: str | None


class ZygoteReplaced(Event, frozen=True, kw_only=True, tag="zygote.replaced"):
    """The process that makes helpers ended and a new one was started; the running helpers are not touched."""

    reason: str
    process_pid: int


class HelperRefused(Event, frozen=True, kw_only=True, tag="helper.refused"):
    """A helper's local gate turned a caller away before any upstream contact."""

    server: str
    reason: str
    peer_user_id: int | None


class HelperRequest(Event, frozen=True, kw_only=True, tag="helper.request"):
    """A request was relayed (or failed); never its body."""

    server: str
    http_request_method: str
    http_response_status_code: int
    error_type: str | None
    request_bytes: int
    response_bytes: int
    duration_ms: int
    response_start_ms: int | None = None  # to the upstream's final response head; None where there was none
    mcp_method_name: str | None = None  # as the body and, where there is one, the Mcp-Method header say it
    mcp_name: str | None = None  # the tool, prompt or resource, likewise


class TrustSnapshot(Event, frozen=True, kw_only=True, tag="trust.snapshot"):
    """The trust anchors that a helper is given, as they were put together on the host."""

    server: str
    store: str  # host, certifi, custom or pinned-only
    store_sha256: str  # of the PEM text
    anchors: int
    overrides: list[str]  # names of the CAs that `trust add` put in
    overrides_pins: list[str]  # of these, those below which no pin is asked
    file: str | None  # the copy in the session


class TrustReloaded(Event, frozen=True, kw_only=True, tag="trust.reloaded"):
    """A helper took new anchors and pins, or refused them for `problem` and the former ones stay."""

    server: str
    store_sha256: str  # of what holds now
    kept: int  # open connections that satisfy the new trust
    closed: int
    problem: str | None


class TrustExpiring(Event, frozen=True, kw_only=True, tag="trust.expiring"):
    """Pins, a trust anchor or the server's certificate end soon, or have ended."""

    server: str
    what: Literal["pins", "leaf", "anchor"]
    name: str  # of the anchor or leaf: its SHA-256; "" for pins
    expires: str  # date, or UTC time of a certificate
    days_left: int  # negative once it is past


class UpstreamTrusted(Event, frozen=True, kw_only=True, tag="tls.trusted"):
    """A TLS connection to an upstream was verified, and why it is trusted."""

    server: str
    server_address: str
    tls_protocol_version: str
    anchored_by: str  # host, certifi, custom, pinned-only, or "override NAME"
    anchor_sha256: str  # of the certificate's DER, hexadecimal, as the next one
    leaf_sha256: str
    leaf_not_after: str  # RFC 3339, UTC
    pins: list[str]  # that were in the path
    credential: CredentialRule


class PinMismatch(Event, frozen=True, kw_only=True, tag="tls.pin-mismatch"):
    """A verified upstream path carried none of the configured pins; `refused`: nothing was sent."""

    server: str
    server_address: str
    expected: list[str]
    seen: list[str]
    refused: bool = True  # False where the mode is report


class UpstreamFailed(Event, frozen=True, kw_only=True, tag="upstream.failed"):
    """An upstream could not be reached or trusted."""

    server: str
    error_type: str
    detail: str


class FactsDropped(Event, frozen=True, kw_only=True, tag="helper.facts-dropped"):
    """A source went over its quota of facts; the count is what was not recorded."""

    server: str
    dropped: int


class ExecDecided(Message, frozen=True, kw_only=True):
    """What is recorded of an exec: who, what, and how the decision was made."""

    role: str
    process_pid: int  # in the session's PID namespace, as all IDs here; 0: unknown
    thread_id: int  # that called: not the process's main thread, where it differs
    process_parent_pid: int
    user_id: int  # real UID of the process; the role's where it could not be read
    executable_path: str  # as the tracee wrote it, made absolute
    resolved_path: str  # after symlinks, "" where it could not be resolved
    interpreters: list[str]  # that the kernel runs for a script, from its `#!` line on; resolved as the path is
    executable_file: str  # "device:inode:mtime_ns" of the resolved file when it was looked at, "" where unknown
    executable_sha256: str  # of that file's bytes, where they were hashed before; else ""
    digest: str  # "cached", "later" (an `exec.digest` follows), or "skipped: WHY"
    working_directory: str
    command_args: list[str]  # capped and scrubbed
    args_total_bytes: int  # 0: unknown
    args_sha256: str  # of the NUL-joined argv as read, after scrubbing and before capping; "" when unread
    args_truncated: bool
    rule: str
    reason: str
    firmness: str
    verified: str  # landlock | none


class ExecAllowed(Event, ExecDecided, frozen=True, kw_only=True, tag="exec.allowed"):
    """The trap let an exec continue."""


class ExecDenied(Event, ExecDecided, frozen=True, kw_only=True, tag="exec.denied"):
    """The trap answered an exec with an errno."""

    errno: str


class ExecDigest(Event, frozen=True, kw_only=True, tag="exec.digest"):
    """The hash of a program whose exec said `later`; what ran before may have been other bytes of the same file."""

    role: str
    resolved_path: str
    executable_file: str  # as in the exec's record; "" where the file is no longer there
    executable_sha256: str  # "" on a problem
    bytes: int
    problem: str | None


class PolicyRule(Message, frozen=True, kw_only=True):
    """One `[exec]` rule as it was loaded."""

    rule: str  # as records name it
    firmness: str  # of its denials at best: firm or advisory
    why: str  # what makes it advisory, as an allow rule always is; "" where it is firm


class ExecPolicyLoaded(Event, frozen=True, kw_only=True, tag="exec.policy"):
    """The policy of a role took effect, each rule marked by what the kernel was seen to enforce."""

    role: str
    mode: str  # observe or enforce
    trees: list[str]  # that Landlock was seen to hold to; [] where it does not
    rules: list[PolicyRule]


class SessionRouting(Event, frozen=True, kw_only=True, tag="session.routing"):
    """Whether and how the agent's own spawns are routed to the task runner."""

    client: str  # whose table it is; "" for a program that we do not know
    routed: bool
    enforced: bool  # other spawns are denied; else they are recorded with the reason `unrouted`
    shell: str  # path of the task shell that the client is told
    means: list[
        str
    ]  # by which it was told, e.g. `environment COPILOT_BASH_PATH`, `account shell`, `mounted over /bin/sh`
    needs: list[str]  # path globs that the agent may still execute
    degrades: list[str]  # what stops working, or fails open


class TaskStarted(Event, frozen=True, kw_only=True, tag="task.started"):
    """The runner started a command for the agent, or for root."""

    task: int  # counted from 1 in each session
    process_pid: int
    user_id: int
    requester_pid: int  # 0 where it was gone already
    requester_user_id: int
    terminal: bool  # it has a pseudo-terminal of its own; else its descriptors are the requester's
    working_directory: str
    command_args: list[str]  # as in `exec.allowed`
    args_total_bytes: int
    args_sha256: str
    args_truncated: bool
    environment: list[str]  # names of the variables that it was given
    withheld: list[str]  # names of allowed variables whose value held a secret of the session


class TaskEnded(Event, frozen=True, kw_only=True, tag="task.ended"):
    """A task's command ended; `left` of its processes run on."""

    task: int
    process_pid: int
    exit_code: int  # 128 + N for a signal
    signal: int | None
    reason: str  # `ended`, `requester gone`, `session ends`, `keeper lost`
    duration_ms: int
    left: int


class TaskGone(Event, frozen=True, kw_only=True, tag="task.gone"):
    """The last process that an ended task had left is gone."""

    task: int
    duration_ms: int  # since its start


class TaskRefused(Event, frozen=True, kw_only=True, tag="task.refused"):
    """A request for a task was turned down, or its command could not be started."""

    reason: str
    requester_pid: int
    requester_user_id: int


class TasksUnavailable(Event, frozen=True, kw_only=True, tag="task.unavailable"):
    """The process that makes tasks could not be had, or ended; `again` says whether another one is started."""

    reason: str
    again: bool


class EventsGap(Event, frozen=True, kw_only=True, tag="events.gap"):
    """The log could not be written for a while; execs and grants were denied meanwhile."""

    lost: int
    lost_kinds: dict[str, int]
    since: str
    reason: str


class Checkpoint(Event, frozen=True, kw_only=True, tag="events.checkpoint"):
    """A signed note (C2SP tlog-checkpoint) over all lines before this one."""

    note: str


AnyEvent = (
    SessionStarted
    | LayerReport
    | AgentStarted
    | SessionEnded
    | HelperStarting
    | HelperReady
    | HelperStopped
    | HelperFailed
    | HelperDegraded
    | HelperRecovered
    | HelperDraining
    | HelperSecrets
    | ZygoteReplaced
    | HelperRefused
    | HelperRequest
    | TrustSnapshot
    | TrustReloaded
    | TrustExpiring
    | UpstreamTrusted
    | PinMismatch
    | UpstreamFailed
    | FactsDropped
    | ExecAllowed
    | ExecDenied
    | ExecDigest
    | ExecPolicyLoaded
    | SessionRouting
    | TaskStarted
    | TaskEnded
    | TaskGone
    | TaskRefused
    | TasksUnavailable
    | EventsGap
    | Checkpoint
)


def escape_bytes(raw: bytes) -> str:
    r"""Return `raw` as text, reversibly: UTF-8 as it is, any other byte as ``\xNN``, a backslash as ``\\``."""
    text = raw.decode("utf-8", "surrogateescape").replace("\\", "\\\\")
    if text.isascii() or text.isprintable():
        return text
    return "".join(f"\\x{ord(c) - 0xDC00:02x}" if 0xDC80 <= ord(c) <= 0xDCFF else c for c in text)


def unescape_bytes(text: str) -> bytes:
    r"""Return the bytes that `escape_bytes` was given; `ValueError` for text it cannot have made."""
    raw = _ESCAPE.sub(lambda found: bytes.fromhex(found[1].decode()) if found[1] else b"\\", text.encode())
    if escape_bytes(raw) != text:
        raise ValueError("not escaped by escape_bytes")
    return raw
