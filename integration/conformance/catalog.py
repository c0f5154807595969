"""What the fixture server offers, as tables that its modules fill: tools and prompts by name.

A handler is the SDK's own: `(ctx, params) -> result`, where `params` are those of tools/call or prompts/get. It does
not serve (`fixture_server` does) and does not know what is offered.
"""

from __future__ import annotations

import base64
import io
import struct
import wave
import zlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import mcp_types as types

Handler = Callable[[Any, Any], Awaitable[Any]]


@dataclass(frozen=True)
class Offer:
    """One tool or prompt: what its listing says, and what answers."""

    listed: Any  # types.Tool or types.Prompt
    handler: Handler


TOOLS: dict[str, Offer] = {}
PROMPTS: dict[str, Offer] = {}


def tool(name: str, properties: dict[str, Any] | None = None, **schema: Any) -> Callable[[Handler], Handler]:
    """Offer the function as a tool; its docstring is the description, every property is required."""

    def offer(handler: Handler) -> Handler:
        whole = {"type": "object", "properties": properties or {}, "required": sorted(properties or {})} | schema
        TOOLS[name] = Offer(types.Tool(name=name, description=handler.__doc__, input_schema=whole), handler)
        return handler

    return offer


def prompt(name: str, **arguments: str) -> Callable[[Handler], Handler]:
    """Offer the function as a prompt; `arguments` maps names to descriptions, each is required."""

    def offer(handler: Handler) -> Handler:
        listed = [
            types.PromptArgument(name=each, description=about, required=True) for each, about in arguments.items()
        ]
        PROMPTS[name] = Offer(types.Prompt(name=name, description=handler.__doc__, arguments=listed), handler)
        return handler

    return offer


def text(words: str) -> Any:
    return types.TextContent(type="text", text=words)


def said(*content: Any) -> Any:
    """Return a tool's result of `content`; a plain string is text."""
    return types.CallToolResult(content=[text(each) if isinstance(each, str) else each for each in content])


def asked(*content: Any) -> Any:
    """Return a prompt of user messages."""
    return types.GetPromptResult(messages=[types.PromptMessage(role="user", content=each) for each in content])


def embedded(uri: str, mime_type: str, words: str) -> Any:
    resource = types.TextResourceContents(uri=uri, mime_type=mime_type, text=words)
    return types.EmbeddedResource(type="resource", resource=resource)


def png() -> str:
    """Return one red pixel, base64 (PNG specification, section 11.2)."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0\xff\0\0")
    picture = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    return base64.b64encode(picture).decode()


def wav() -> str:
    """Return eight silent samples, base64."""
    with io.BytesIO() as buffer:
        with wave.open(buffer, "wb") as sound:
            sound.setnchannels(1)
            sound.setsampwidth(2)
            sound.setframerate(8000)
            sound.writeframes(bytes(16))
        return base64.b64encode(buffer.getvalue()).decode()
