"""New pins in config.toml: what the text becomes, in every shape that TOML has for the table."""

import datetime
import difflib
import tomllib

import pytest

from codingagents.launcher.config_edit import pins_table, with_pins
from codingagents.rewrite.parse import parse_config
from codingagents.rewrite.specs import PinSpec
from codingagents.trust.errors import ConfigError

OLD = ["sha256/" + letter * 42 + "A=" for letter in "OP"]
NEW = ["sha256/" + letter * 42 + "A=" for letter in "NM"]
PINS = [
    PinSpec(spki=NEW[0], at="intermediate", note='Ünter "CA" \\'),
    PinSpec(spki=NEW[1], backup=True),
    PinSpec(cert_sha256="ab" * 32, at="leaf"),
]
OLD_INLINE = f'expires = 2027-01-01, pin = [{{ spki = "{OLD[0]}" }}, {{ spki = "{OLD[1]}", backup = true }}]'
EXPIRES = datetime.date(2030, 1, 2)
OLD_PIN = f'pin = [{{ spki = "{OLD[0]}" }}, {{ spki = "{OLD[1]}", backup = true }}]'
ROWS = f"""\
    {{ spki = "{NEW[0]}", at = "intermediate", note = "Ünter \\"CA\\" \\\\" }},
    {{ spki = "{NEW[1]}", backup = true }},
    {{ cert_sha256 = "{"ab" * 32}", at = "leaf" }},
"""

SHAPES = {
    "a table": f"""\
# about x
[mcp_servers.x]   # odd   spacing
url = "https://x.example/"   # the URL
[mcp_servers.x.tls.pins] # a comment
mode = "report"
expires = 2027-01-01 # until then
# what is pinned
pin = [ # two
  # the first
  {{ spki = "{OLD[0]}" }},   # one
  {{ spki = "{OLD[1]}", backup = true }},
] # end
credential_without_pin = true

# about the session
[session]
agent = "codex"
""",
    "tables in a list": f"""\
[mcp_servers.x]
url = "https://x.example/"
[mcp_servers.x.tls.pins]
expires = 2027-01-01
  [[mcp_servers.x.tls.pins.pin]]
  spki = "{OLD[0]}"
  [[ mcp_servers . "x" . tls . pins . pin ]] # second
  spki = "{OLD[1]}"
  backup = true

# about the session
[session]
agent = "codex"
""",
    "tables in a list, the date after them": f"""\
[[mcp_servers.x.tls.pins.pin]]
spki = "{OLD[0]}"
[[mcp_servers.x.tls.pins.pin]]
spki = "{OLD[1]}"
backup = true
[mcp_servers.x]
url = "https://x.example/"
tls.pins.expires = 2027-01-01
""",
    "a dotted key": f"""\
[mcp_servers.x]
url = "https://x.example/"
tls.pins = {{ expires = 2027-01-01, {OLD_PIN}, credential_without_pin = true }} # pins
tls.ca = "host"
[session]
""",
    "dotted keys": f"""\
[mcp_servers.x]
url = "https://x.example/"
tls . "pins".mode = "enforce"
tls . "pins" . 'expires'  =   2027-01-01 # until
tls.ca = "host"
tls.pins.{OLD_PIN} # pins
allow_private = true
[session]
""",
    "dotted keys from the top": f"""\
mcp_servers.x.url = "https://x.example/"
mcp_servers.x.tls.pins.expires = 2027-01-01
mcp_servers.x.tls.pins.{OLD_PIN}
mcp_servers.y.url = "https://y.example/"
[session]
""",
    "a table inside a table": f"""\
[mcp_servers.x]
url = "https://x.example/"
tls = {{ ca = "host", pins = {{ expires = 2027-01-01, {OLD_PIN} }}, min_version = "1.3" }} # tls
[session]
""",
    "all in one": f"""\
mcp_servers = {{ y = {{ command = "y" }}, x = {{ url = "https://x.example/", tls = {{ pins = {{ {OLD_INLINE} }} }} }} }}
[session]
""",
    "only a mode": """\
[mcp_servers.x]
url = "https://x.example/"
[mcp_servers.x.tls.pins]
mode = "off" # for now
# and no more
[session]
""",
    "only a dotted mode": """\
[mcp_servers.x]
url = "https://x.example/"
tls.pins.mode = "off"
""",
    "only a mode in line": """\
[mcp_servers.x]
url = "https://x.example/"
tls.pins = { mode = "off" }
""",
    "an empty table": '[mcp_servers.x]\nurl = "https://x.example/"\n[mcp_servers.x.tls]\n[session]\n',
    "an inline table without pins": '[mcp_servers.x]\nurl = "https://x.example/"\n'
    'tls = { ca = "host" } # c\n[session]\n',
    "an empty inline table": '[mcp_servers.x]\nurl = "https://x.example/"\ntls = {}\n',
    "a server in line": 'mcp_servers.x = { url = "https://x.example/" } # x\nmcp_servers.y.command = "y"\n',
    "nothing": """\
[mcp_servers.x]
url = "https://x.example/"
# the end of x

# about the session
[session]
agent = "codex"

[mcp_servers.y]
command = "y"
""",
    "other tables of the server elsewhere": """\
[mcp_servers.x.limits]
connections = 3
[session]
[mcp_servers.y]
command = "y"
[mcp_servers.x]
url = "https://x.example/"
[mcp_servers.x.tls]
ca = "host"
[exec]
""",
    "dotted keys without pins": """\
[mcp_servers.x]
url = "https://x.example/"
tls.ca = "host" # c
allow_private = true
[session]
""",
    "dotted keys of the same table elsewhere": """\
mcp_servers.x.tls.ca = "host"
mcp_servers.x.url = "https://x.example/"
[session]
""",
    "dotted keys in line": """\
[mcp_servers]
x = { url = "https://x.example/", tls.pins.mode = "off" } # x = {
""",
    "an escaped key": """\
[mcp_servers.x]
url = "https://x.example/"
"tls"."p\\u0069ns".mode = "off" # pins
""",
    "dotted keys from the top without pins": """\
mcp_servers.x.url = "https://x.example/"
mcp_servers.y.url = "https://y.example/"
[session]
""",
    "strings that look like tables": """\
[mcp_servers.x]
url = "https://x.example/"
name = '''
[mcp_servers.x.tls.pins]
mode = "off" '''''
environment_id = \"\"\"
[session] \\\"\"\" # not a comment \"\"\"\"\"
[mcp_servers."y"]
command = "#[" # ]]
args = ["[", ']',
  # [mcp_servers.x.tls.pins]
  "}",
]
[tui]
"a=b # c" = "x"
'[session]'."]" = 1
""",
}


def edited(text: str) -> str:
    return with_pins(text, "config.toml", "x", PINS, EXPIRES)


@pytest.mark.parametrize("shape", SHAPES)
def test_only_the_pins_and_their_date_change(shape: str) -> None:
    """The values are those of before but for the two keys, and every other line is the same, to the byte."""
    text = SHAPES[shape]
    result = edited(text)
    wanted = tomllib.loads(text)
    pins = wanted["mcp_servers"]["x"].setdefault("tls", {}).setdefault("pins", {"mode": "enforce"})
    pins["expires"] = EXPIRES
    pins["pin"] = [
        {"spki": NEW[0], "at": "intermediate", "note": PINS[0].note},
        {"spki": NEW[1], "backup": True},
        {"cert_sha256": "ab" * 32, "at": "leaf"},
    ]
    assert tomllib.loads(result) == wanted
    gone = [line[1:] for line in difflib.ndiff(text.splitlines(), result.splitlines()) if line[0] == "-"]
    ours = ("pin", "spki", "expires", "backup", "# the first", "tls = {", "x = {")
    assert all(any(word in line for word in ours) for line in gone), gone


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_can_be_edited_again(shape: str) -> None:
    """Twice is as once, and Windows' line ends stay what they are."""
    once = edited(SHAPES[shape])
    assert edited(once) == once
    crlf = SHAPES[shape].replace("\n", "\r\n")
    assert edited(crlf) == once.replace("\n", "\r\n")
    bare = SHAPES[shape].rstrip("\n")
    assert tomllib.loads(edited(bare)) == tomllib.loads(once)


def test_a_table_keeps_its_comments_and_its_other_keys() -> None:
    """Word for word: what is not a pin or a date stays around them."""
    before = SHAPES["a table"]
    start, end = before.index("pin = ["), before.index("] # end")
    expected = before[:start] + "pin = [\n" + ROWS + before[end:]
    assert edited(before) == expected.replace("2027-01-01", "2030-01-02")


def test_a_list_of_tables_becomes_a_list_and_the_comment_after_it_stays() -> None:
    """Word for word."""
    before = SHAPES["tables in a list"]
    start, end = before.index("  [[mcp"), before.index("\n# about the session")
    expected = before[:start].replace("2027-01-01", "2030-01-02") + "pin = [\n" + ROWS + "]\n" + before[end:]
    assert edited(before) == expected


def test_a_new_table_stands_after_its_server_and_before_the_next_comment() -> None:
    """Word for word: nothing is moved, and no comment changes what it stands before."""
    before = SHAPES["nothing"]
    at = before.index("# the end of x")
    assert edited(before) == before[:at] + "\n" + pins_table("x", PINS, EXPIRES) + before[at:]


def test_the_table_by_itself_loads() -> None:
    """What is shown to be pasted is right as it is."""
    text = '[mcp_servers.x]\nurl = "https://x.example/"\n' + pins_table("x", PINS, EXPIRES)
    (server,) = parse_config(text, "config.toml").remotes
    assert server.spec.tls is not None
    assert (server.spec.tls.pins, server.spec.tls.pins_expire) == (PINS, "2030-01-02")


@pytest.mark.parametrize(
    ("pins", "sentence"),
    [
        (PINS[:1], r"config\.toml: \[mcp_servers\.x\.tls\.pins\] pin must list at least two different keys"),
        ([PINS[0], PinSpec(spki=NEW[1])], "no entry with backup = true"),
    ],
)
def test_pins_that_would_not_load_are_refused(pins: list[PinSpec], sentence: str) -> None:
    """The configuration's own rules judge what comes out."""
    with pytest.raises(ConfigError, match=sentence):
        with_pins(SHAPES["nothing"], "config.toml", "x", pins, EXPIRES)


def test_what_is_not_a_configuration_is_not_edited() -> None:
    """The same sentence as from any other command."""
    with pytest.raises(ConfigError, match="is not valid TOML"):
        with_pins("[mcp_servers", "config.toml", "x", PINS, EXPIRES)


@pytest.mark.parametrize(
    "pins",
    [
        "",
        "tls.pins.mode = 'off' # not yet\n",
        "tls.pins = { mode = 'off' } # not yet\n",
        "tls = { pins = { mode = 'off' } }\n",
    ],
)
def test_a_server_with_a_credential_gets_pins_that_are_enforced(pins: str) -> None:
    """The text loads after, whatever its mode said, and other servers' pins are not asked for."""
    text = '[mcp_servers.x]\nurl = "https://x.example/"\nbearer_token_env_var = "X"\n' + pins
    with pytest.raises(ConfigError, match="coding-agents trust rotate x"):
        parse_config(text, "config.toml")
    assert parse_config(edited(text), "config.toml").warnings == ()
    other = text.replace("servers.x", "servers.y") + text
    assert edited(other) == text.replace("servers.x", "servers.y") + edited(text)


def test_a_mode_without_a_credential_stays() -> None:
    """Who only wants to be told is only told."""
    assert 'mode = "report"' in edited(SHAPES["a table"])


def test_what_cannot_be_edited_is_refused() -> None:
    """Whatever goes wrong on the way, here a server that is not there: nothing else than what was meant comes out."""
    with pytest.raises(ConfigError, match="cannot be edited safely"):
        with_pins(SHAPES["nothing"], "config.toml", "nobody", PINS, EXPIRES)
