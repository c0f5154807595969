"""The harness's plain fixtures: tools, prompts and resources that answer by themselves, in every MCP revision.

Names and texts are those that `@modelcontextprotocol/conformance` asks for.
"""

from __future__ import annotations

import json
from typing import Any

import anyio
import mcp_types as types
from mcp.server.subscriptions import InMemorySubscriptionBus, PromptsListChanged, ToolsListChanged
from mcp.shared.exceptions import MCPError

from conformance.catalog import asked, embedded, png, prompt, said, text, tool, wav

BUS = InMemorySubscriptionBus()
_WORDS = {"type": "string"}
_PAUSE = 0.05  # seconds between notifications, so that a buffering proxy has something to buffer


@tool("test_simple_text")
async def _simple_text(_ctx: Any, _params: Any) -> Any:
    """Answer with text."""
    return said("This is a simple text response for testing.")


@tool("test_image_content")
async def _image(_ctx: Any, _params: Any) -> Any:
    """Answer with an image."""
    return said(types.ImageContent(type="image", data=png(), mime_type="image/png"))


@tool("test_audio_content")
async def _audio(_ctx: Any, _params: Any) -> Any:
    """Answer with a sound."""
    return said(types.AudioContent(type="audio", data=wav(), mime_type="audio/wav"))


@tool("test_embedded_resource")
async def _embedded(_ctx: Any, _params: Any) -> Any:
    """Answer with a resource."""
    return said(embedded("test://embedded-resource", "text/plain", "This is an embedded resource content."))


@tool("test_multiple_content_types")
async def _mixed(_ctx: Any, _params: Any) -> Any:
    """Answer with text, an image and a resource."""
    image = types.ImageContent(type="image", data=png(), mime_type="image/png")
    resource = embedded("test://mixed-content-resource", "application/json", '{"test":"data","value":123}')
    return said("Multiple content types test:", image, resource)


@tool("test_tool_with_logging")
async def _logging(ctx: Any, _params: Any) -> Any:
    """Log three times on the way."""
    for line in ("Tool execution started", "Tool processing data", "Tool execution completed"):
        await log(ctx, line)
        await anyio.sleep(_PAUSE)
    return said("Tool with logging executed successfully")


@tool("test_logging_tool")
async def _log_once(ctx: Any, _params: Any) -> Any:
    """Log where the request allows it."""
    await log(ctx, "Logged by request")
    return said("logged")


@tool("test_tool_with_progress")
async def _progress(ctx: Any, _params: Any) -> Any:
    """Report progress three times."""
    for done in (0, 50, 100):
        await ctx.session.report_progress(done, 100, f"Completed step {done} of 100")
        await anyio.sleep(_PAUSE)
    return said("Tool with progress executed successfully")


@tool("test_error_handling")
async def _error(_ctx: Any, _params: Any) -> Any:
    """Fail as a tool, not as a protocol."""
    return types.CallToolResult(content=[text("This tool intentionally returns an error for testing")], is_error=True)


@tool("test_reconnection")
async def _reconnection(ctx: Any, _params: Any) -> Any:
    """Close the response stream in the middle of the call: the client has to come back for the rest."""
    await log(ctx, "Before disconnect")
    if ctx.close_sse_stream:
        await ctx.close_sse_stream()
    await anyio.sleep(4 * _PAUSE)
    await log(ctx, "After reconnect")
    return said("Reconnection test completed")


@tool("test_trigger_tool_change")
async def _tools_change(_ctx: Any, _params: Any) -> Any:
    """Tell subscribers that the list of tools changed."""
    await BUS.publish(ToolsListChanged())
    return said("told")


@tool("test_trigger_prompt_change")
async def _prompts_change(_ctx: Any, _params: Any) -> Any:
    """Tell subscribers that the list of prompts changed."""
    await BUS.publish(PromptsListChanged())
    return said("told")


@tool("test_region_header", {"region": _WORDS | {"x-mcp-header": "Region"}, "query": _WORDS})
async def _region(_ctx: Any, params: Any) -> Any:
    """Take an argument that is also a request header."""
    return said(f"region {params.arguments['region']}")


@tool(
    "json_schema_2020_12_tool",
    {
        "name": _WORDS,
        "address": {"$ref": "#/$defs/address"},
        "contactMethod": _WORDS | {"enum": ["phone", "email"]},
        "phone": _WORDS,
        "email": _WORDS,
    },
    required=[],
    additionalProperties=False,
    allOf=[{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
    **{
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$defs": {
            "address": {"$anchor": "addressDef", "type": "object", "properties": {"street": _WORDS, "city": _WORDS}}
        },
        "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
        "then": {"required": ["phone"]},
        "else": {"required": ["email"]},
    },
)
async def _schema(_ctx: Any, params: Any) -> Any:
    """Have a schema of JSON Schema 2020-12."""
    return said(json.dumps(params.arguments))


@tool("greet", {"name": _WORDS})
async def _greet(_ctx: Any, params: Any) -> Any:
    """Greet."""
    return said(f"Hello, {params.arguments['name']}!")


@prompt("test_simple_prompt")
async def _simple_prompt(_ctx: Any, _params: Any) -> Any:
    """Need no arguments."""
    return asked(text("This is a simple prompt for testing."))


@prompt("test_prompt_with_arguments", arg1="First test argument", arg2="Second test argument")
async def _prompt_with_arguments(_ctx: Any, params: Any) -> Any:
    """Need two arguments."""
    return asked(text(f"Prompt with arguments: arg1='{params.arguments['arg1']}', arg2='{params.arguments['arg2']}'"))


@prompt("test_prompt_with_embedded_resource", resourceUri="URI of the resource to embed")
async def _prompt_with_resource(_ctx: Any, params: Any) -> Any:
    """Embed a resource."""
    resource = embedded(params.arguments["resourceUri"], "text/plain", "Embedded resource content for testing.")
    return asked(resource, text("Please process the embedded resource above."))


@prompt("test_prompt_with_image")
async def _prompt_with_image(_ctx: Any, _params: Any) -> Any:
    """Embed an image."""
    image = types.ImageContent(type="image", data=png(), mime_type="image/png")
    return asked(image, text("Please analyze the image above."))


RESOURCES = [
    types.Resource(uri=uri, name=name, description=name, mime_type=mime_type)
    for uri, name, mime_type in (
        ("test://static-text", "A static text resource", "text/plain"),
        ("test://static-binary", "A static binary resource", "image/png"),
        ("test://watched-resource", "A resource to subscribe to", "text/plain"),
    )
]
TEMPLATES = [
    types.ResourceTemplate(
        uri_template="test://template/{id}/data",
        name="A resource template",
        description="A resource template with one parameter",
        mime_type="application/json",
    )
]


async def read_resource(_ctx: Any, params: Any) -> Any:
    """Return what `RESOURCES` and `TEMPLATES` promise; any other URI is an error that names it (SEP-2164)."""
    uri = str(params.uri)
    texts = {
        "test://static-text": "This is the content of the static text resource.",
        "test://watched-resource": "Watched resource content",
    }
    if uri == "test://static-binary":
        contents = types.BlobResourceContents(uri=uri, mime_type="image/png", blob=png())
    elif uri in texts:
        contents = types.TextResourceContents(uri=uri, mime_type="text/plain", text=texts[uri])
    elif uri.startswith("test://template/") and uri.endswith("/data"):
        number = uri.removeprefix("test://template/").removesuffix("/data")
        data = json.dumps({"id": number, "templateTest": True, "data": f"Data for ID: {number}"})
        contents = types.TextResourceContents(uri=uri, mime_type="application/json", text=data)
    else:
        raise MCPError(types.INVALID_PARAMS, "Resource not found", {"uri": uri})
    return types.ReadResourceResult(contents=[contents])


async def complete(_ctx: Any, params: Any) -> Any:
    """Return whatever was begun, and two endings."""
    values = [f"{params.argument.value}{ending}" for ending in ("", "-one", "-two")]
    return types.CompleteResult(completion=types.Completion(values=values, total=len(values), has_more=False))


async def log(ctx: Any, line: str) -> None:
    """Log on the stream of the request that `ctx` is of."""
    await ctx.session.send_log_message("info", line, "fixture", related_request_id=ctx.request_id)
