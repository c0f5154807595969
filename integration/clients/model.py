"""ENTRY: a model that says what a test wrote down: makes a client call its own tools, one call an answer.

    python3 -I model.py DIRECTORY PORT

It speaks what three clients speak to their vendors, streamed: Anthropic's `/v1/messages` (Claude Code), OpenAI's
`/v1/responses` (Codex) and `/v1/chat/completions` (Copilot CLI). The first part of a request's path names a run:
`DIRECTORY/RUN.json` holds the calls to make in the client's own terms, a list of `{"name": …, "arguments": {…}}`, or
`{"name": …, "input": TEXT}` for a tool that takes free text; `DIRECTORY/RUN.jsonl` gets a line for each request: its
path and its body. `"found": {WORD: PATTERN}` puts what the pattern's group last matched in the results so far, such as
the number of a command that runs on, where an argument has `{WORD}`. How many results a request holds says which call
is next; when all are made the answer is one word. Standard library only, and no state but those files: any number of
runs at once. It reads nothing of the project and decides nothing about what the client does.
"""

from __future__ import annotations

import functools
import http.server
import json
import re
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

LAST_WORD = "done"
_record = threading.Lock()


def results(body: Mapping[str, Any]) -> list[str]:
    """Return what the tools answered so far, in order, as a request of any of the three protocols holds it."""
    kinds = ("function_call_output", "custom_tool_call_output")
    found = [item["output"] for item in body.get("input", []) if item.get("type") in kinds]
    for message in body.get("messages", []):
        if message["role"] == "tool":
            found.append(message["content"])
        elif isinstance(message["content"], list):
            found += [part.get("content") for part in message["content"] if part.get("type") == "tool_result"]
    return [_text(content) for content in found]


def _text(content: Any) -> str:
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content or [])


def tool_names(body: Mapping[str, Any]) -> list[str]:
    """Return the names of the tools that a request offers; a request for a title or a summary offers none."""
    offered = [*body.get("tools", [])]
    for item in body.get("input", []):
        if item.get("type") == "additional_tools":  # Codex, for the models of its catalogue
            offered += [tool for group in item["tools"] for tool in group["tools"]]
    return [tool.get("function", tool).get("name", tool.get("type")) for tool in offered]


def next_call(calls: list[dict[str, Any]], answered: list[str]) -> dict[str, Any] | None:
    """Return the call that follows `answered`, its arguments filled in; None when all are made."""
    if len(answered) >= len(calls):
        return None
    call = calls[len(answered)]
    for word, pattern in call.get("found", {}).items():
        *_, last = re.findall(pattern, "\n".join(answered)) or ["nothing"]
        call = {**call, "arguments": {key: _filled(value, word, last) for key, value in call["arguments"].items()}}
    return call


def _filled(value: Any, word: str, found: str) -> Any:
    if value == f"{{{word}}}" and found.isdigit():
        return int(found)  # such as Codex's session_id, which is no text
    return value.replace(f"{{{word}}}", found) if isinstance(value, str) else value


def messages(step: int, call: Mapping[str, Any] | None) -> Iterator[tuple[str, Any]]:
    """Yield the events of an answer of Anthropic's Messages API."""
    usage = {"input_tokens": 1, "output_tokens": 1}
    yield "message_start", {
        "message": {
            "id": f"msg_{step}", "type": "message", "role": "assistant", "model": "fake", "content": [],
            "stop_reason": None, "stop_sequence": None, "usage": usage,
        }
    }  # fmt: skip
    if call is None:
        block: dict[str, Any] = {"type": "text", "text": ""}
        delta = {"type": "text_delta", "text": LAST_WORD}
    else:
        block = {"type": "tool_use", "id": f"toolu_{step}", "name": call["name"], "input": {}}
        delta = {"type": "input_json_delta", "partial_json": json.dumps(call["arguments"])}
    yield "content_block_start", {"index": 0, "content_block": block}
    yield "content_block_delta", {"index": 0, "delta": delta}
    yield "content_block_stop", {"index": 0}
    reason = "end_turn" if call is None else "tool_use"
    yield "message_delta", {"delta": {"stop_reason": reason, "stop_sequence": None}, "usage": usage}
    yield "message_stop", {}


def responses(step: int, call: Mapping[str, Any] | None) -> Iterator[tuple[str, Any]]:
    """Yield the events of an answer of OpenAI's Responses API."""
    yield "response.created", {"response": {"id": f"resp_{step}"}}
    if call is None:
        item = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": LAST_WORD}]}
    elif "input" in call:
        item = {"type": "custom_tool_call", "call_id": f"call_{step}", "name": call["name"], "input": call["input"]}
    else:
        arguments = json.dumps(call["arguments"])
        item = {"type": "function_call", "call_id": f"call_{step}", "name": call["name"], "arguments": arguments}
    yield "response.output_item.done", {"output_index": 0, "item": {"id": f"item_{step}", **item}}
    usage = {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2}
    yield "response.completed", {"response": {"id": f"resp_{step}", "usage": usage}}


def completions(step: int, call: Mapping[str, Any] | None) -> Iterator[tuple[str, Any]]:
    """Yield the chunks of an answer of OpenAI's Chat Completions API."""
    if call is None:
        delta: dict[str, Any] = {"role": "assistant", "content": LAST_WORD}
    else:
        function = {"name": call["name"], "arguments": json.dumps(call["arguments"])}
        delta = {
            "role": "assistant",
            "tool_calls": [{"index": 0, "id": f"call_{step}", "type": "function", "function": function}],
        }
    chunk = {"id": f"chatcmpl-{step}", "object": "chat.completion.chunk", "created": 1, "model": "fake"}
    yield "", {**chunk, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
    reason = "stop" if call is None else "tool_calls"
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    yield "", {**chunk, "choices": [{"index": 0, "delta": {}, "finish_reason": reason}], "usage": usage}


Answer = Callable[[int, Mapping[str, Any] | None], Iterator[tuple[str, Any]]]
ANSWERS: Mapping[str, Answer] = {
    "v1/messages": messages,
    "v1/responses": responses,
    "v1/chat/completions": completions,
}


class Model(http.server.BaseHTTPRequestHandler):
    """One connection of a client."""

    protocol_version = "HTTP/1.1"
    directory: Path

    def __init__(self, directory: Path, *rest: Any) -> None:
        self.directory = directory
        super().__init__(*rest)

    def do_HEAD(self) -> None:
        """Answer a client that only asks whether somebody is there."""
        self._answer(b"", "text/plain")

    def do_GET(self) -> None:
        """Answer with an empty list whatever is asked for: models, above all."""
        self._answer(b'{"object":"list","data":[],"models":[]}', "application/json")

    def do_POST(self) -> None:
        """Answer with the next call."""
        body = json.loads(self._body() or b"{}")
        run, _, path = self.path.partition("?")[0].lstrip("/").partition("/")
        if (answer := ANSWERS.get(path)) is None:
            self._answer(b'{"input_tokens":1}', "application/json")  # count_tokens, telemetry
            return
        with _record, open(self.directory / f"{run}.jsonl", "a") as record:
            record.write(json.dumps({"path": self.path, "body": body}) + "\n")
        calls = json.loads((self.directory / f"{run}.json").read_text()) if tool_names(body) else []
        answered = results(body)
        events = [
            f"event: {name}\ndata: {json.dumps({'type': name, **event})}\n\n"
            if name
            else f"data: {json.dumps(event)}\n\n"
            for name, event in answer(len(answered), next_call(calls, answered))
        ]
        if answer is completions:
            events.append("data: [DONE]\n\n")
        self._answer("".join(events).encode(), "text/event-stream")

    def _body(self) -> bytes:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", "0")))
        chunks = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def _answer(self, body: bytes, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Stay silent: standard output is for the one line that says it listens."""


def main(directory: str, port: str) -> None:
    handler = functools.partial(Model, Path(directory))
    with http.server.ThreadingHTTPServer(("127.0.0.1", int(port)), handler) as server:
        print(port, flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
