"""What a helper's relays share, from its specification."""

import datetime
from typing import Literal

import pytest

from codingagents.proxies.relay_config import PinsDate, relay_config
from codingagents.rewrite.specs import HeaderTemplate, HelperSpec, RemoteSpec
from codingagents.trust.errors import ConfigError
from codingagents.trust.pins import Pinning, parse_pin, pinning
from codingagents.trust.vocabulary import PinMode, Secret

PIN = "sha256/" + "A" * 43 + "="
LAST_DAY = datetime.datetime(2026, 12, 31, 23, 59, 59, tzinfo=datetime.UTC).timestamp()


def remote(transport: Literal["http", "sse"] = "http") -> RemoteSpec:
    headers = [HeaderTemplate(name="X-Key", template="${KEY}"), HeaderTemplate(name="X-Region", template="eu")]
    return RemoteSpec(
        name="srv", scheme="https", host="up.test", port=443, path="/mcp", headers=headers, transport=transport
    )


def spec(key: str = "k", transport: Literal["http", "sse"] = "http") -> HelperSpec:
    return HelperSpec(
        remote=remote(transport), uid=1, gid=1, agent_uid=2, listen_port=8080, bearer=Secret("local"),
        secrets={"KEY": Secret(key)},
    )  # fmt: skip


def rules(mode: PinMode = "enforce", expires: datetime.date | None = datetime.date(2026, 12, 31)) -> Pinning:
    return pinning(mode, [parse_pin(PIN)], expires=expires)


def test_what_is_attached_is_what_the_clients_may_not_send() -> None:
    """The attached names are dropped from requests, the secret's lines are apart."""
    config = relay_config(spec())
    assert config.attachment.always == b"Host: up.test\r\nX-Region: eu"
    assert config.attachment.attached == b"Host: up.test\r\nX-Region: eu\r\nX-Key: k"
    head = config.requests.read(b"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nX-KEY: mine")
    assert head.lines == ()
    assert config.refusal() is None


def test_a_legacy_server_is_asked_for_what_can_be_read_and_names_its_endpoints() -> None:
    """No compression, whatever the client accepts; the route grows by what the stream names."""
    config = relay_config(spec(transport="sse"))
    assert config.attachment.always == b"Host: up.test\r\nX-Region: eu\r\nAccept-Encoding: identity"
    post = b"POST /messages/?s=1 HTTP/1.1\r\nHost: h\r\nAccept-Encoding: gzip"
    assert config.requests.read(post).lines == ()
    assert config.requests.read(post).form.path_refusal == "outside_route"
    assert config.endpoints is not None
    assert config.endpoints.rewriter(b"/sse").feed(b"event: endpoint\ndata: /messages/?s=1\n\n")
    assert config.requests.read(post).form.path_refusal is None
    modern = relay_config(spec())
    assert modern.endpoints is None
    assert modern.requests.read(b"POST /mcp HTTP/1.1\r\nHost: h\r\nAccept-Encoding: gzip").lines


def test_a_secret_that_no_header_can_hold_is_refused_at_the_start() -> None:
    with pytest.raises(ConfigError, match="X-Key"):
        relay_config(spec(key="a\nb"))


def test_pins_hold_to_the_end_of_their_day() -> None:
    """Then every request is refused, and what was connected by them is told; until they are renewed."""
    now = LAST_DAY
    told: list[None] = []
    date = PinsDate(lambda: now, lambda: told.append(None))
    config = relay_config(spec(), date.refusal)
    date.renew(rules())
    assert (config.refusal(), told, date.over) == (None, [], False)
    now += 1
    assert (config.refusal(), told, date.over) == ("pins_expired", [None], True)
    date.renew(rules(expires=datetime.date(2027, 1, 1)))
    assert (config.refusal(), date.over) == (None, False)


@pytest.mark.parametrize("without", [rules("off"), rules(expires=None), None])
def test_without_pins_or_a_date_nothing_expires(without: Pinning | None) -> None:
    """Neither from the start nor after they had one."""
    date = PinsDate(lambda: 1e11, lambda: None)
    assert date.refusal() is None
    date.renew(rules())
    assert date.refusal() == "pins_expired"
    if without is not None:
        date.renew(without)
        assert date.refusal() is None
