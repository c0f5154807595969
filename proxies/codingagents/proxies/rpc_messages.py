"""CORE: what `rpc` reads of a JSON-RPC request, as msgspec decodes it; apart, since such classes cannot be compiled."""

from __future__ import annotations

from typing import TypeAlias

import msgspec

Id: TypeAlias = str | int | float | None


class _Params(msgspec.Struct, gc=False):
    name: str | None = None
    uri: str | None = None


class _Call(msgspec.Struct, gc=False):
    method: str
    params: _Params | None = None


class _Request(msgspec.Struct, gc=False):
    method: str
    id: Id = None


decode_call = msgspec.json.Decoder(_Call).decode
decode_request = msgspec.json.Decoder(_Request).decode
