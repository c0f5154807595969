"""CORE: every answer that a helper, or the supervisor in its place, makes itself, in one table. No I/O, no secret.

An answer is one JSON object: to a POST in the shape of a JSON-RPC error, because that is what an MCP client shows to a
person, to another method plain. `code` in it, or `error.data.code`, is stable: it stands in facts and events too.
Answers of the upstream are none of this module's business.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import NamedTuple

import msgspec

# Implementation-defined by JSON-RPC 2.0 (5.1) and used by no MCP revision or SDK for something else.
_REQUEST = -32050  # the client's request, or the client, was refused
_UPSTREAM = -32051  # the upstream could not be reached, or does not speak HTTP as it must
_TRUST = -32052  # the upstream is not trusted
_CREDENTIAL = -32053  # the upstream does not take the credential


class Answer(NamedTuple):
    """One row of the table."""

    status: int
    number: int  # JSON-RPC's `error.code`
    message: str
    remedy: str


_RAISE = "raise the limit in [mcp_servers.{server}.limits], or send less"
_SENDER = "the client does not speak HTTP/1.1 as RFC 9112 demands; use another client or report this"
_CONFIG = "use the URL and the headers that the rewritten client configuration holds"
_NETWORK = "check the server's address and that this machine can reach it"
_PROXY = "check proxy in [mcp_servers.{server}], and that it allows CONNECT to the server's host and port"
_SERVER = "report this to whoever runs the server"
_PRIVATE = "set allow_private = true or connect_to in [mcp_servers.{server}] if this is meant"
_URL = "put the final URL into config.toml"
_STORE = "see why: coding-agents trust check {server}; if it is yours: coding-agents trust add NAME --server {server}"
_OTHER_USER = "run the server as another user than the agent"
_ROTATE = "check the server's keys, then correct [mcp_servers.{server}.tls.pins]"
_RENEW = "renew the secret; from a file of secrets it takes effect at once, else with a new session"
_PIN = "pin the server, or set credential_without_pin = true"

ANSWERS: dict[str, Answer] = {
    # the request itself
    "bad_request_line": Answer(400, _REQUEST, "the request line is malformed or not HTTP/1.1 in origin-form", _SENDER),
    "bad_header": Answer(400, _REQUEST, "a header line is malformed", _SENDER),
    "bad_host": Answer(400, _REQUEST, "a request carries exactly one Host header", _SENDER),
    "duplicate_header": Answer(400, _REQUEST, "a header that must stand once stands twice", _SENDER),
    "bad_framing": Answer(400, _REQUEST, "Content-Length or Transfer-Encoding is ambiguous or not supported", _SENDER),
    "bad_chunk": Answer(400, _REQUEST, "the chunked body is malformed", _SENDER),
    "bad_path": Answer(400, _REQUEST, "the path holds dot segments", _CONFIG),
    "head_too_large": Answer(431, _REQUEST, "the request head is over the limit header_bytes", _RAISE),
    "body_too_large": Answer(413, _REQUEST, "the request body is over the limit request_bytes", _RAISE),
    "method_refused": Answer(501, _REQUEST, "the method is not relayed", _SENDER),
    "expectation_refused": Answer(417, _REQUEST, "an expectation other than 100-continue is not relayed", _SENDER),
    "request_timeout": Answer(408, _REQUEST, "the request did not arrive in time", "send the request again"),
    "too_many_connections": Answer(503, _REQUEST, "the limit of connections is reached", _RAISE),
    "server_failed": Answer(
        503,
        _UPSTREAM,
        "the helper of this server failed too often and was given up",
        "read the helper.failed event for the reason and start a new session",
    ),
    # the local gate
    "host_refused": Answer(421, _REQUEST, "the Host header does not name this helper", _CONFIG),
    "origin_refused": Answer(403, _REQUEST, "requests from a web page of another origin are refused", _CONFIG),
    "uid_refused": Answer(403, _REQUEST, "the caller does not run as the agent's user", "call it as the agent"),
    "bearer_refused": Answer(401, _REQUEST, "the local bearer is missing or wrong", _CONFIG),
    "well_known": Answer(404, _REQUEST, "a helper publishes no metadata: it holds the credential itself", _CONFIG),
    "outside_route": Answer(404, _REQUEST, "the path is outside the one route of this helper", _CONFIG),
    # reaching the upstream
    "dns_failed": Answer(502, _UPSTREAM, "the server's name does not resolve", _NETWORK),
    "address_refused": Answer(502, _UPSTREAM, "the server's address is not a public one", _PRIVATE),
    "connect_failed": Answer(502, _UPSTREAM, "the server cannot be reached", _NETWORK),
    "connect_timeout": Answer(504, _UPSTREAM, "the server took no connection within connect_seconds", _NETWORK),
    "proxy_failed": Answer(502, _UPSTREAM, "the HTTP proxy cannot be reached or does not speak CONNECT", _PROXY),
    "proxy_refused": Answer(502, _UPSTREAM, "the HTTP proxy makes no tunnel to the server", _PROXY),
    "upstream_timeout": Answer(504, _UPSTREAM, "the server sent nothing for idle_seconds", _SERVER),
    "upstream_closed": Answer(
        502,
        _UPSTREAM,
        "the server closed the connection before it answered, and may have carried the request out",
        _SERVER,
    ),
    "bad_response": Answer(502, _UPSTREAM, "the server's answer is not valid HTTP", _SERVER),
    "redirect_refused": Answer(502, _UPSTREAM, "the server redirects, which would lead around this helper", _URL),
    "endpoint_refused": Answer(
        502,
        _UPSTREAM,
        "the server's event stream is compressed, or names an endpoint that is not on its origin",
        _SERVER,
    ),
    "drained": Answer(
        503,
        _UPSTREAM,
        "the helper was stopped before the server answered, and the server may have carried the request out",
        "look before you send it again",
    ),
    # trusting it
    "tls_failed": Answer(502, _TRUST, "the TLS handshake failed", _SERVER),
    "tls_untrusted": Answer(502, _TRUST, "the server's certificate is not trusted", _STORE),
    "server_is_agent": Answer(
        502, _TRUST, "the agent holds the server's port, and must not be sent the credential", _OTHER_USER
    ),
    "pin_mismatch": Answer(
        502, _TRUST, "no configured pin is in the server's certificate path; nothing was sent", _ROTATE
    ),
    "trust_withdrawn": Answer(
        503,
        _TRUST,
        "the server is no longer trusted, and may have carried the request out; nothing more was sent to it",
        "look before you send it again; the trust.reloaded event has what holds now",
    ),
    "pins_expired": Answer(502, _TRUST, "the pins of this server are past their `expires` date", _ROTATE),
    # its credential
    "credential_refused": Answer(
        502, _CREDENTIAL, "the server does not accept the credential that this helper attaches", _RENEW
    ),
    "credential_withheld": Answer(
        502, _CREDENTIAL, "the server wants a credential, and none was sent because no pin matched", _PIN
    ),
}


def render(
    code: str,
    server: str,
    *,
    method: str = "POST",
    request_id: str | float | None = None,
    detail: str = "",
    close: bool,
) -> bytes:
    """Return the whole HTTP answer for `code` to a request of `method`; for HEAD only its head.

    A POST is answered with a JSON-RPC error for `request_id`, which is None where the request is no JSON-RPC request or
    was not read; any other method with a plain object. `detail` is added to the sentence and must hold no secret. There
    is never a WWW-Authenticate: the client has nothing to authenticate with, and would start an OAuth flow that cannot
    succeed.
    """
    answer = ANSWERS[code]
    message = f"{answer.message}: {detail}" if detail else answer.message
    said = {"code": code, "server": server, "remedy": answer.remedy.replace("{server}", server)}
    if method == "POST":
        error = {"code": answer.number, "message": message, "data": said}
        content = msgspec.json.encode({"jsonrpc": "2.0", "id": request_id, "error": error})
    else:
        content = msgspec.json.encode({"message": message, **said})
    head = (
        f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\nCache-Control: no-store\r\n"
        f"{'Connection: close' if close else 'Connection: keep-alive'}\r\n\r\n"
    ).encode("ascii")
    return head if method == "HEAD" else head + content
