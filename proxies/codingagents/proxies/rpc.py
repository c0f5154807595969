"""CORE: the little that a helper reads of a request's body: the names for the record, the id for an error of ours.

JSON-RPC 2.0 as MCP uses it. The body itself always passes as it came; what cannot be read here is no error, it only
goes unnamed. No I/O.
"""

from __future__ import annotations

import base64
import binascii
from typing import Final

import msgspec

from codingagents.proxies.rpc_messages import Id, decode_call, decode_request

MAX_NAME: Final = 128  # characters of a name in the record
_ENCODED: Final = (b"=?base64?", b"?=")  # MCP 2026-07-28, values that a header cannot hold as they are

# RecursionError: arrays in arrays, as deep as a body is long.
_UNREADABLE: Final = (msgspec.MsgspecError, UnicodeError, RecursionError)


def names(body: bytes, said_method: bytes | None, said_name: bytes | None) -> tuple[str | None, str | None]:
    """Return (method, its target) of a body that is one request or notification, else (None, None).

    `said_…` are what the headers Mcp-Method and Mcp-Name say, if anything; where they say something else than the
    body, there are no names: a server may have acted on either.
    """
    try:
        call = decode_call(body)
    except _UNREADABLE:
        return None, None
    name = None
    if call.params is not None:
        name = call.params.name if call.params.name is not None else call.params.uri
    if not (_agrees(said_method, call.method) and _agrees(said_name, name)):
        return None, None
    return call.method[:MAX_NAME], None if name is None else name[:MAX_NAME]


def _agrees(said: bytes | None, text: str | None) -> bool:
    if said is None:
        return True
    if said.startswith(_ENCODED[0]) and said.endswith(_ENCODED[1]):
        try:
            said = base64.b64decode(said[len(_ENCODED[0]) : -len(_ENCODED[1])], validate=True)
        except binascii.Error:
            return False
    return text is not None and said == text.encode("utf-8", "surrogatepass")


def request_id(body: bytes) -> Id:
    """Return the id of a body that is one request; None where it is a notification, a response or unreadable."""
    try:
        return decode_request(body).id
    except _UNREADABLE:
        return None
