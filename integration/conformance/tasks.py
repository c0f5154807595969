"""The tasks extension (SEP-2663), as far as the harness looks: calls that answer later, polled by tasks/get.

The SDK does not have it, so it is made here of its parts: three request methods, and tools whose call becomes a task
where the client declares the extension. A task lives as long as the server.
"""

from __future__ import annotations

import asyncio
import datetime
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import mcp_types as types
from mcp.shared.exceptions import MCPError

from conformance.catalog import said, text, tool
from conformance.questions import answered, form, need

EXTENSION = "io.modelcontextprotocol/tasks"
_WORDS = {"type": "string"}
_LIFE = {"ttlMs": 60_000, "pollIntervalMs": 50}


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat().replace("+00:00", "Z")


@dataclass
class Task:
    """One call that goes on in the background."""

    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    created: str = field(default_factory=_now)
    updated: str = field(default_factory=_now)
    status: str = "working"
    end: dict[str, Any] = field(default_factory=dict)  # `result` or `error`, once it has one
    asked: dict[str, Any] = field(default_factory=dict)  # what it waits for
    answers: dict[str, Any] = field(default_factory=dict)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    running: asyncio.Task[None] | None = None

    def become(self, status: str, **end: Any) -> None:
        self.status, self.end, self.updated = status, end, _now()

    def seen(self) -> dict[str, Any]:
        """Return what tasks/get and the call itself say of it."""
        asked = {"inputRequests": self.asked} if self.status == "input_required" else {}
        when = {"createdAt": self.created, "lastUpdatedAt": self.updated}
        return {"taskId": self.id, "status": self.status, **when, **_LIFE, **asked, **self.end}

    async def ask(self, **questions: Any) -> dict[str, Any]:
        """Wait until the client has answered each of `questions`, and return the answers."""
        self.asked = {name: _plain(question) for name, question in questions.items()}
        self.become("input_required")
        while self.asked:
            self.changed.clear()
            await self.changed.wait()
        self.become("working")
        return self.answers

    async def run(self, job: Callable[[Task], Awaitable[Any]]) -> None:
        try:
            self.become("completed", result=_plain(await job(self)))
        except MCPError as error:
            self.become("failed", error={"code": error.code, "message": error.message})
        except asyncio.CancelledError:
            self.become("cancelled")


_TASKS: dict[str, Task] = {}
Job = Callable[[Task, dict[str, Any]], Awaitable[Any]]


def _plain(message: Any) -> Any:
    return message.model_dump(by_alias=True, mode="json", exclude_none=True)


def _declared(ctx: Any) -> bool:
    able = ctx.session.client_capabilities
    return bool(able and EXTENSION in (able.extensions or {}))


def _undeclared() -> MCPError:
    missing = _plain(types.ClientCapabilities(extensions={EXTENSION: {}}))
    return MCPError(
        types.MISSING_REQUIRED_CLIENT_CAPABILITY, "the tasks extension is needed", {"requiredCapabilities": missing}
    )


def _start(job: Job, arguments: dict[str, Any]) -> dict[str, Any]:
    task = Task()
    _TASKS[task.id] = task
    task.running = asyncio.create_task(task.run(lambda started: job(started, arguments)))
    return {"resultType": "task", **task.seen()}


def _task_tool(name: str, properties: dict[str, Any], *, required: bool) -> Callable[[Job], Job]:
    """Offer the job as a tool: a task where the client can have one, else refused if `required`, else done at once."""

    def offer(job: Job) -> Job:
        async def call(ctx: Any, params: Any) -> Any:
            if _declared(ctx):
                return _start(job, params.arguments or {})
            if required:
                raise _undeclared()
            return await job(Task(), params.arguments or {})

        call.__doc__ = job.__doc__
        tool(name, properties, required=[])(call)
        return job

    return offer


@_task_tool("slow_compute", {"seconds": {"type": "number"}}, required=False)
async def _slow(_task: Task, arguments: dict[str, Any]) -> Any:
    """Take as long as it is told."""
    await asyncio.sleep(arguments.get("seconds", 0))
    return said("computed")


@_task_tool("failing_job", {}, required=True)
async def _failing(_task: Task, _arguments: dict[str, Any]) -> Any:
    """Fail as a tool."""
    return types.CallToolResult(content=[text("the job failed")], is_error=True)


@_task_tool("protocol_error_job", {}, required=True)
async def _broken(_task: Task, _arguments: dict[str, Any]) -> Any:
    """Fail as a protocol."""
    raise MCPError(types.INTERNAL_ERROR, "the job broke")


@_task_tool("confirm_delete", {"filename": _WORDS}, required=True)
async def _confirm(task: Task, _arguments: dict[str, Any]) -> Any:
    """Ask one thing."""
    await task.ask(confirm=form("Delete it?", confirm={"type": "boolean"}))
    return said("deleted")


@_task_tool("multi_input", {}, required=True)
async def _many(task: Task, _arguments: dict[str, Any]) -> Any:
    """Ask two things at once."""
    answers = await task.ask(first=form("First?", value=_WORDS), second=form("Second?", value=_WORDS))
    return said(f"answered: {sorted(answers)}")


@tool("test_tool_with_task")
async def _asked_before(ctx: Any, params: Any) -> Any:
    """Ask first, and become a task afterwards."""
    if not _declared(ctx):
        raise _undeclared()
    if not answered(params, "user_name"):
        return need(user_name=form("What is your name?", name=_WORDS))
    name = (params.input_responses["user_name"].content or {}).get("name")

    async def greet(_task: Task, _arguments: dict[str, Any]) -> Any:
        return said(f"Hello, {name}!")

    return _start(greet, {})


class TaskParams(types.RequestParams):  # type: ignore[misc]  # the SDK lives elsewhere: Any for this environment
    """Parameters of the extension's three requests, named as on the wire."""

    taskId: str  # noqa: N815 -- the wire's name
    inputResponses: dict[str, Any] = {}  # noqa: N815, RUF012 -- the wire's name; a model copies its defaults


def _found(ctx: Any, params: Any) -> Task:
    if not _declared(ctx):
        raise _undeclared()
    if ctx.request.headers.get("mcp-name", params.taskId) != params.taskId:
        raise MCPError(types.HEADER_MISMATCH, "Mcp-Name is not the task of the body")
    if params.taskId not in _TASKS:
        raise MCPError(types.INVALID_PARAMS, "there is no such task")
    return _TASKS[params.taskId]


async def _get(ctx: Any, params: Any) -> Any:
    return _found(ctx, params).seen()


async def _update(ctx: Any, params: Any) -> Any:
    task = _found(ctx, params)
    for name in params.inputResponses.keys() & task.asked.keys():
        task.answers[name] = params.inputResponses[name]
        del task.asked[name]
    task.changed.set()
    return types.EmptyResult()


async def _cancel(ctx: Any, params: Any) -> Any:
    task = _found(ctx, params)
    if task.running:
        task.running.cancel()
    return types.EmptyResult()


METHODS = {"tasks/get": _get, "tasks/update": _update, "tasks/cancel": _cancel}
