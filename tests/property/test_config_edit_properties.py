"""Pins in a config.toml of any shape: what is not theirs is there to the byte, in its order, whatever stands around."""

import datetime
import tomllib

from hypothesis import given
from hypothesis import strategies as st

from codingagents.launcher.config_edit import with_pins
from codingagents.rewrite.specs import PinSpec

EXPIRES = datetime.date(2027, 5, 25)
OLD = "[ { spki = 'sha256/" + "O" * 42 + "A=' }, # old ]\n { spki = 'sha256/" + "P" * 42 + "A=', backup = true } ]"
NEW = [
    PinSpec(spki="sha256/" + "N" * 42 + "A=", note='a "note"]'),
    PinSpec(spki="sha256/" + "M" * 42 + "A=", backup=True),
]

# The tables of x: what stays, and "PINS" where there is something of its pins; each is a whole section.
SHAPES = st.sampled_from(
    [
        ["[mcp_servers.x]\nurl = 'https://x.example/'\n"],
        ["[mcp_servers.x]\nurl = 'https://x.example/'\ntls.ca = 'host' # [x]\n"],
        ["[mcp_servers.x]\nurl = 'https://x.example/'\n", "[mcp_servers.x.tls]\nca = 'host'\n"],
        [
            "[mcp_servers.x]\nurl = 'https://x.example/'\n",
            "[ mcp_servers . 'x' . \"tls\" . pins ] # these\n# about\nmode = 'report'\n",
            f"PINSexpires = 2027-01-01 # until\npin = {OLD}\n",
        ],
        [
            "[mcp_servers.x.tls.pins]\n",
            "PINSexpires = 2027-01-01\n[[mcp_servers.x.tls.pins.pin]]\nspki = 'sha256/" + "O" * 42 + "A='\n"
            "[[mcp_servers.x.tls.pins.pin]]\nbackup = true\nspki = 'sha256/" + "P" * 42 + "A='\n",
            "[mcp_servers.x]\nurl = 'https://x.example/'\n",
        ],
        [
            "[mcp_servers.x]\nurl = 'https://x.example/'\n",
            f"PINStls = {{ pins = {{ expires = 2027-01-01, pin = {OLD} }}, ca = 'host' }} # after\n",
            "allow_private = true\n",
        ],
    ]
)
FILLER = st.sampled_from(
    [
        "\n",
        "# [mcp_servers.x.tls.pins]\n",
        "   # pin = [ \"\"\" '''\n",
        "[mcp_servers.y]\ncommand = 'y' # [\n",
        '[model_providers]\na = [\'[\', "]", \'\'\'\n[mcp_servers.x]\n\'\'\', """\\""" # """]\n',
        "[mcp_servers.x.limits]\nconnections = 3 # [\n",
        "[exec]\nmode = 'observe'\n  rules = [\n  # one\n  { allow = '/usr/**' }, ]\n",
        "[tui]\n'a = b' = { c = '{' , d = [ [ ], [ 1 ] ] }\n",
    ]
)


@given(SHAPES, st.lists(FILLER, unique=True, max_size=5), st.lists(FILLER, unique=True, max_size=5), st.booleans())
def test_all_else_stays_to_the_byte(shape: list[str], before: list[str], after: list[str], crlf: bool) -> None:
    """Fragments around and between are found again, each in its place, and the values are as they were."""
    tables = [each for each in before if "[" in each and "#" not in each[:4]]
    after = [each for each in after if each not in tables]
    fragments = [*before, *shape, *after]
    text = "".join(each.removeprefix("PINS") for each in fragments)
    newline = "\r\n" if crlf else "\n"
    result = with_pins(text.replace("\n", newline), "config.toml", "x", NEW, EXPIRES)
    at = 0
    for each in (each.replace("\n", newline) for each in fragments if not each.startswith("PINS")):
        found = result.find(each, at)
        assert found >= 0, each
        at = found + len(each)
    wanted, values = tomllib.loads(text.replace("\n", newline)), tomllib.loads(result)
    pins = values["mcp_servers"]["x"]["tls"].pop("pins")
    assert (pins["expires"], len(pins["pin"])) == (EXPIRES, 2)
    wanted["mcp_servers"]["x"].setdefault("tls", {}).pop("pins", None)
    assert values == wanted
