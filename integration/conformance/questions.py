"""Fixtures that ask the client back: up to 2025-11-25 by requests, from 2026-07-28 by input-required results.

The state between two rounds is sealed by the SDK's own boundary (see `fixture_server`), so that a tampered one never
arrives here.
"""

from __future__ import annotations

from typing import Any

import mcp_types as types
from mcp.shared.exceptions import MCPError

from conformance.catalog import asked, prompt, said, text, tool

_WORDS = {"type": "string"}


def form(message: str, **properties: Any) -> Any:
    """Return a question for the user; every property is required."""
    schema = {"type": "object", "properties": properties, "required": sorted(properties)}
    return types.ElicitRequest(params=types.ElicitRequestFormParams(message=message, requested_schema=schema))


def sampling(question: str, max_tokens: int = 100) -> Any:
    """Return a question for the client's model."""
    message = types.SamplingMessage(role="user", content=text(question))
    return types.CreateMessageRequest(
        params=types.CreateMessageRequestParams(messages=[message], max_tokens=max_tokens)
    )


def need(state: str | None = None, **requests: Any) -> Any:
    return types.InputRequiredResult(input_requests=requests, request_state=state)


def answered(params: Any, *names: str) -> bool:
    return set(names) <= set(params.input_responses or {})


# Up to 2025-11-25: a request of the server's own, on the stream of the call.


async def _ask_the_user(ctx: Any, message: str, schema: dict[str, Any]) -> str:
    answer = await ctx.session.elicit_form(message, schema, related_request_id=ctx.request_id)
    return f"action={answer.action}, content={answer.content}"


@tool("test_sampling", {"prompt": _WORDS})
async def _sampling(ctx: Any, params: Any) -> Any:
    """Ask the client's model."""
    message = types.SamplingMessage(role="user", content=text(params.arguments["prompt"]))
    answer = await ctx.session.create_message([message], max_tokens=100, related_request_id=ctx.request_id)
    return said(f"LLM response: {answer.content.text}")


@tool("test_elicitation", {"message": _WORDS})
async def _elicitation(ctx: Any, params: Any) -> Any:
    """Ask the user."""
    response = _WORDS | {"description": "User's response"}
    schema = {"type": "object", "properties": {"response": response}, "required": ["response"]}
    return said(f"User response: {await _ask_the_user(ctx, params.arguments['message'], schema)}")


@tool("test_elicitation_sep1034_defaults")
async def _defaults(ctx: Any, _params: Any) -> Any:
    """Ask with a default for each kind of value (SEP-1034)."""
    properties = {
        "name": _WORDS | {"default": "John Doe"},
        "age": {"type": "integer", "default": 30},
        "score": {"type": "number", "default": 95.5},
        "status": _WORDS | {"enum": ["active", "inactive", "pending"], "default": "active"},
        "verified": {"type": "boolean", "default": True},
    }
    schema = {"type": "object", "properties": properties, "required": []}
    return said(f"Elicitation completed: {await _ask_the_user(ctx, 'Please review the form', schema)}")


@tool("test_elicitation_sep1330_enums")
async def _enums(ctx: Any, _params: Any) -> Any:
    """Ask with each kind of enumeration (SEP-1330)."""
    options = [{"const": f"value{number}", "title": f"Option {number}"} for number in (1, 2, 3)]
    plain = ["option1", "option2", "option3"]
    properties = {
        "untitledSingle": _WORDS | {"enum": plain},
        "titledSingle": _WORDS | {"oneOf": options},
        "legacyEnum": _WORDS | {"enum": plain, "enumNames": ["Option 1", "Option 2", "Option 3"]},
        "untitledMulti": {"type": "array", "items": _WORDS | {"enum": plain}},
        "titledMulti": {"type": "array", "items": {"anyOf": options}},
    }
    schema = {"type": "object", "properties": properties, "required": []}
    return said(f"Elicitation completed: {await _ask_the_user(ctx, 'Please choose', schema)}")


# From 2026-07-28: a result that says what is missing; the client calls again with the answers.


@tool("test_input_required_result_elicitation")
async def _one_question(_ctx: Any, params: Any) -> Any:
    """Ask for a name."""
    if not answered(params, "user_name"):
        return need(user_name=form("What is your name?", name=_WORDS))
    return said(f"Hello, {(params.input_responses['user_name'].content or {}).get('name')}!")


@tool("test_streaming_elicitation")
async def _streaming(_ctx: Any, params: Any) -> Any:
    """Ask for a name; nothing but the result may be on the stream."""
    return await _one_question(_ctx, params)


@tool("test_input_required_result_sampling")
async def _sample(_ctx: Any, params: Any) -> Any:
    """Ask the client's model."""
    if not answered(params, "capital_question"):
        return need(capital_question=sampling("What is the capital of France?"))
    return said(params.input_responses["capital_question"].content.text)


@tool("test_input_required_result_list_roots")
async def _roots(_ctx: Any, params: Any) -> Any:
    """Ask for the client's roots."""
    if not answered(params, "client_roots"):
        return need(client_roots=types.ListRootsRequest())
    return said(" ".join(str(root.uri) for root in params.input_responses["client_roots"].roots))


@tool("test_input_required_result_request_state")
async def _with_state(_ctx: Any, params: Any) -> Any:
    """Ask for a confirmation and have the state brought back."""
    if not answered(params, "confirm") or params.request_state != "asked":
        return need("asked", confirm=form("Please confirm", ok={"type": "boolean"}))
    return said("state-ok")


@tool("test_input_required_result_tampered_state")
async def _tampered(_ctx: Any, params: Any) -> Any:
    """Have the state brought back unchanged."""
    return await _with_state(_ctx, params)


@tool("test_input_required_result_multiple_inputs")
async def _many_questions(_ctx: Any, params: Any) -> Any:
    """Ask for three things at once."""
    if not answered(params, "user_name", "greeting", "client_roots"):
        return need(
            "asked",
            user_name=form("What is your name?", name=_WORDS),
            greeting=sampling("Generate a greeting", 50),
            client_roots=types.ListRootsRequest(),
        )
    return said("all three were answered")


@tool("test_input_required_result_multi_round")
async def _two_rounds(_ctx: Any, params: Any) -> Any:
    """Ask twice, one thing after the other."""
    if params.request_state is None:
        return need("round-1", step1=form("Step 1: What is your name?", name=_WORDS))
    if params.request_state == "round-1" and answered(params, "step1"):
        return need("round-2", step2=form("Step 2: What is your favorite color?", color=_WORDS))
    return said("both steps were answered")


@tool("test_input_required_result_capabilities")
async def _what_you_can(ctx: Any, _params: Any) -> Any:
    """Ask only for what the client says it can do."""
    able = ctx.session.client_capabilities
    questions = {}
    if able and able.sampling is not None:
        questions["question"] = sampling("What is the capital of France?")
    if able and able.elicitation is not None:
        questions["user_name"] = form("What is your name?", name=_WORDS)
    return need(**questions)


@tool("test_missing_capability")
async def _missing_capability(ctx: Any, _params: Any) -> Any:
    """Need sampling."""
    able = ctx.session.client_capabilities
    if not able or able.sampling is None:
        needed = types.ClientCapabilities(sampling=types.SamplingCapability()).model_dump(exclude_none=True)
        raise MCPError(types.MISSING_REQUIRED_CLIENT_CAPABILITY, "sampling is needed", {"requiredCapabilities": needed})
    return said("sampling could be asked for")


@prompt("test_input_required_result_prompt")
async def _prompt(_ctx: Any, params: Any) -> Any:
    """Ask for the context before the prompt is given."""
    if not answered(params, "user_context"):
        return need(user_context=form("What context should the prompt use?", context=_WORDS))
    return asked(text(f"Context: {params.input_responses['user_context'].content}"))
