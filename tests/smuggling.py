"""The corpus of hostile requests and responses, for the core (`tests/unit`) and for a real helper (`integration`)."""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from http_opinions import Message, requests_by_h11, requests_by_httptools, response_by_h11, response_by_httptools

REQUEST_BYTES = 10_000  # the limits that the corpus is written for
HEADER_BYTES = 2048

_CORPUS = Path(__file__).parent / "corpus"
_MACRO = re.compile(rb"\{(P|G|H|host|HOST|auth)\}")
_REPEAT = re.compile(rb"\{([^{}]{1,8})\*([0-9]+)\}", re.DOTALL)
_LENGTH = re.compile(rb"\r\ncontent-length: *([0-9]+)\r\n", re.IGNORECASE)


@dataclass(frozen=True)
class Request:
    """One case of requests.toml, which explains the fields."""

    raw: str
    answers: tuple[str, ...]
    arrives: tuple[str, ...] = ()
    body: str = ""
    has: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()
    unfinished: bool = False

    def data(self, host: str, bearer: str) -> bytes:
        """Return what to send to a helper at `host` that wants `bearer`."""
        auth = f"Authorization: Bearer {bearer}\r\n"
        lines = f"Host: {host}\r\n{auth}"
        texts = {
            "P": f"POST /mcp HTTP/1.1\r\n{lines}", "G": f"GET /mcp HTTP/1.1\r\n{lines}", "H": lines,
            "host": host, "HOST": host.upper(), "auth": auth,
        }  # fmt: skip
        raw = _MACRO.sub(lambda match: texts[match[1].decode()].encode(), self.raw.encode("latin-1"))
        return _REPEAT.sub(lambda match: match[1] * int(match[2]), raw)

    def check_answers(self, data: bytes) -> None:
        """Assert that `data` is what the client may get."""
        got = answers(data)
        vague = [found[:3] if wanted == found[:3] else found for found, wanted in zip(got, self.answers, strict=False)]
        assert vague + got[len(vague) :] == list(self.answers)

    def check_arrival(self, arrived: list[Message]) -> None:
        """Assert that `arrived`, which both parsers agree on, is what may arrive."""
        assert [b" ".join(message.start).decode("latin-1") for message in arrived] == list(self.arrives)
        if not arrived:
            return
        first = arrived[0]
        assert first.body == self.body.encode("latin-1")
        names = {name.decode() for name, _ in first.headers}
        assert names.isdisjoint(self.lacks)
        wanted = [line.encode("latin-1").split(b": ", 1) for line in self.has]
        assert [(name.lower(), value) for name, value in wanted if value not in first.values(name.lower())] == []
        assert first.values(b"host") == [b"up.test"]
        assert len(first.values(b"authorization")) == 1
        assert b"local" not in first.values(b"authorization")[0]


@dataclass(frozen=True)
class Response:
    """One case of responses.toml, which explains the fields."""

    raw: str
    client: str
    ask: str = "GET"
    then: str = "open"
    body: str = ""
    has: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()

    @property
    def data(self) -> bytes:
        """What the upstream sends."""
        return _REPEAT.sub(lambda match: match[1] * int(match[2]), self.raw.encode("latin-1"))

    def check(self, data: bytes) -> None:
        """Assert that `data`, up to the end of the response or of the connection, is what the client may get."""
        head = self.ask == "HEAD"
        opinion = response_by_h11(data, head=head, closed=True)
        message = opinion.only
        if self.client == "aborted":
            assert message is None or (message.start == (b"502",) and _code(message.body) == "bad_response"), data
            return
        assert message is not None, data
        assert head or response_by_httptools(data).only == message
        status, _, code = self.client.partition(" ")
        assert message.start == (status.encode(),)
        if status == "502":
            assert code in ("", _code(message.body))
            return
        assert message.body == self.body.encode("latin-1")
        assert {name.decode() for name, _ in message.headers}.isdisjoint(self.lacks)
        wanted = [line.encode("latin-1").split(b": ", 1) for line in self.has]
        assert [(name.lower(), value) for name, value in wanted if value not in message.values(name.lower())] == []


def requests() -> list[Any]:
    """Return all requests, as parameters of a test."""
    return _cases("requests.toml", Request)


def responses() -> list[Any]:
    """Return all responses, as parameters of a test."""
    return _cases("responses.toml", Response)


def _cases(name: str, kind: type[Request | Response]) -> list[Any]:
    tables = tomllib.loads((_CORPUS / name).read_text(encoding="utf-8"))
    return [
        pytest.param(kind(**{key: _frozen(value) for key, value in case.items()}), id=f"{title}: {name}")
        for title, cases in tables.items()
        for name, case in cases.items()
    ]


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def agreed(data: bytes) -> tuple[list[Message], bool]:
    """Return (complete requests in `data`, whether another begins), after asserting that both parsers say so."""
    by_h11, by_httptools = requests_by_h11(data), requests_by_httptools(data)
    assert not by_h11.error, data
    assert by_h11 == by_httptools
    return list(by_h11.messages), by_h11.unfinished


def answers(data: bytes) -> list[str]:
    """Return what a client got, interim responses apart, as the corpus writes it; the last must be complete."""
    found = []
    while data:
        head, end, data = data.partition(b"\r\n\r\n")
        assert end, head
        status = int(head[9:12])
        if status < 200:
            continue
        length = _LENGTH.search(head + b"\r\n")
        assert length, head
        body, data = data[: int(length[1])], data[int(length[1]) :]
        assert len(body) == int(length[1]), head
        found.append(f"{status} {_code(body)}".rstrip())
    return found


def _code(body: bytes) -> str:
    """Return the code of an answer of the helper's, which is plain to other methods than POST; "" of the upstream's."""
    try:
        said = json.loads(body)
    except ValueError:
        return ""
    code: str = said.get("error", {}).get("data", said).get("code", "")
    return code
