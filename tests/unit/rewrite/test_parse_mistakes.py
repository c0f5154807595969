"""Each way to get config.toml wrong is one exact sentence that says what to do."""

import pytest

from codingagents.rewrite.parse import MAX_BYTES, parse_config
from codingagents.trust.errors import ConfigError

PIN_A = "sha256/" + "A" * 43 + "="
PIN_B = "sha256/" + "B" * 42 + "A="
PINS = f'expires = 2027-03-01\npin = [{{ spki = "{PIN_A}" }}, {{ spki = "{PIN_B}", backup = true }}]'
GITHUB = '[mcp_servers.github]\nurl = "https://api.example.com/mcp"\n'
GITHUB_PINS = GITHUB + "[mcp_servers.github.tls.pins]\n"
NO_PINS = (
    "[mcp_servers.github] sends a credential without enforced pins; write its pins with: coding-agents trust "
    "rotate github --config config.toml (or, without any: tls.pins = "
    '{ mode = "off", credential_without_pin = true })'
)
OTHERS_PINS = (
    "[mcp_servers.github.tls.pins] host is not the name that the server is verified by (server_name, or the URL's "
    "host), so the pins are another server's; correct it, or set include_subdomains = true if the server lies below it"
)
NOT_ONE_OWNER = (
    "[mcp_servers.github.tls.pins] include_subdomains needs a host of one owner; below a public suffix (com, co.uk, "
    "github.io) anybody can have a name, and an IP address has none"
)
RUNNER = '[mcp_servers.play]\ncommand = "npx"\n'

# What is wrong -> the text, and the sentence after "config.toml: ".
MISTAKES = {
    "not TOML": ("a = ", "is not valid TOML: Invalid value (at end of document)"),
    "a number too long to read": (
        "a = " + "9" * 5000,
        "holds a number that is too long to read",
    ),
    "too large": ("#" * (MAX_BYTES + 1), "is over 1048576 bytes"),
    "not UTF-8": ("# \udcff", "is not UTF-8 text"),
    "nested arrays": ("a = " + "[" * 100_000, "is nested too deeply"),
    "nested tables": ("model = " + "[" * 40 + "]" * 40, "is nested more than 32 levels deep"),
    "dotted key": (".".join("a" * 5000) + " = 1", "line 1 has more than 200 dots; break it up"),
    "top-level key": ("sesion = 1", 'has no key "sesion"; did you mean "session"?'),
    "top-level key unlike any": ("zzzzzz = 1", 'has no key "zzzzzz"'),
    "limits at the top": ("[limits]", 'has no key "limits"'),
    "control characters in a key": ('"\\u001b[2Jx" = 1', 'has no key "\\u001b[2Jx"'),
    "a key of 1000 characters": ("q" * 1000 + " = 1", f'has no key "{"q" * 60}..."'),
    "servers not a table": ("mcp_servers = 1", "mcp_servers must be a table"),
    "server not a table": ("mcp_servers.x = 1", "[mcp_servers] x must be a table"),
    "server name": (
        '[mcp_servers."a b"]\nurl = "https://a.example"',
        '[mcp_servers] server name "a b" must be 1 to 32 of A-Z a-z 0-9 _ -',
    ),
    "neither url nor command": (
        "[mcp_servers.x]\nargs = []",
        "[mcp_servers.x] must have either url (a remote server) or command (a local one)",
    ),
    "url misspelled": (
        '[mcp_servers.x]\nulr = "https://a.example"',
        '[mcp_servers.x] has no key "ulr"; did you mean "url"?',
    ),
    "command misspelled": (
        '[mcp_servers.x]\ncomand = "npx"',
        '[mcp_servers.x] has no key "comand"; did you mean "command"?',
    ),
    "both url and command": (
        GITHUB + 'command = "x"',
        "[mcp_servers.github] must have either url (a remote server) or command (a local one)",
    ),
    "key of the other kind": (
        GITHUB + "args = []",
        "[mcp_servers.github] args has no meaning for a server with url; remove it",
    ),
    "Codex's key of the other kind": (
        RUNNER + 'http_headers_helper = "x"',
        "[mcp_servers.play] http_headers_helper has no meaning for a server with command; remove it",
    ),
    "unknown server key": (
        GITHUB + 'bearer_token = "ghp_secret"',
        '[mcp_servers.github] has no key "bearer_token"; did you mean "bearer_token_env_var"?',
    ),
    "url not text": ("[mcp_servers.x]\nurl = 1", "[mcp_servers.x] url must be a string"),
    "url empty": ('[mcp_servers.x]\nurl = ""', "[mcp_servers.x] url must not be empty"),
    "url with a space": (
        '[mcp_servers.x]\nurl = "https://a b/"',
        "[mcp_servers.x] url must be a URL in ASCII without spaces",
    ),
    "url with a line break": (
        '[mcp_servers.x]\nurl = "https://a.example\\n/"',
        "[mcp_servers.x] url must not hold control characters",
    ),
    "url scheme": ('[mcp_servers.x]\nurl = "ftp://a.example/"', "[mcp_servers.x] url must start with https://"),
    "url with a placeholder": (
        '[mcp_servers.x]\nurl = "https://a.example/${KEY}"',
        "[mcp_servers.x] url must not hold ${NAME}; the agent sees the URL, so put secrets into headers",
    ),
    "url with a password": (
        '[mcp_servers.x]\nurl = "https://me:hunter2@a.example/"',
        "[mcp_servers.x] url must not hold a user name or password; use bearer_token_env_var or headers",
    ),
    "url with a fragment": (
        '[mcp_servers.x]\nurl = "https://a.example/#"',
        "[mcp_servers.x] url must not have a fragment",
    ),
    "url port": (
        '[mcp_servers.x]\nurl = "https://a.example:99999/"',
        "[mcp_servers.x] url must be a URL with a valid host and a port from 1 to 65535",
    ),
    "url with an empty port": (
        '[mcp_servers.x]\nurl = "https://a.example:/"',
        "[mcp_servers.x] url must be a URL with a valid host and a port from 1 to 65535",
    ),
    "url without a host": (
        '[mcp_servers.x]\nurl = "https:///mcp"',
        "[mcp_servers.x] url must name a host as an ASCII DNS name or an IP address",
    ),
    "url host that browsers read as an address": (
        '[mcp_servers.x]\nurl = "https://0x7f.1/"',
        "[mcp_servers.x] url must name a host as an ASCII DNS name or an IP address",
    ),
    "url with dot segments": (
        '[mcp_servers.x]\nurl = "https://a.example/a/%2e%2E/b"',
        "[mcp_servers.x] url must have a path in normal form: percent-encoded, without . and .. segments",
    ),
    "http to the world": (
        '[mcp_servers.x]\nurl = "http://a.example/"\nallow_plaintext = true',
        "[mcp_servers.x] url must start with https://; http is for loopback addresses only",
    ),
    "http to a name that begins like loopback": (
        '[mcp_servers.x]\nurl = "http://localhost.evil.example/"\nallow_plaintext = true',
        "[mcp_servers.x] url must start with https://; http is for loopback addresses only",
    ),
    "http to loopback, not allowed": (
        '[mcp_servers.x]\nurl = "http://127.0.0.1:1/"',
        "[mcp_servers.x] url must start with https://, or set allow_plaintext = true for this loopback address",
    ),
    "http dialled elsewhere": (
        '[mcp_servers.x]\nurl = "http://127.0.0.1:1/"\nallow_plaintext = true\nconnect_to = "203.0.113.1:80"',
        "[mcp_servers.x] connect_to needs an https URL",
    ),
    "http through a proxy": (
        '[mcp_servers.x]\nurl = "http://127.0.0.1:1/"\nallow_plaintext = true\nproxy = "http://p:1"',
        "[mcp_servers.x] proxy needs an https URL",
    ),
    "a text of 5000 characters": (
        GITHUB + f'connect_to = "{"a" * 5000}"',
        "[mcp_servers.github] connect_to is over 4096 characters",
    ),
    "http with tls": (
        '[mcp_servers.x]\nurl = "http://127.0.0.1:1/"\nallow_plaintext = true\ntls = {}',
        "[mcp_servers.x] tls has no meaning for an http URL; remove it or use https",
    ),
    "an IP address without a name": (
        '[mcp_servers.x]\nurl = "https://192.0.2.1/"',
        "[mcp_servers.x.tls] server_name is missing; a URL with an IP address must say which name the certificate has",
    ),
    "allow_plaintext not a boolean": (
        GITHUB + 'allow_private = "yes"',
        "[mcp_servers.github] allow_private must be true or false",
    ),
    "connect_to without a port": (
        GITHUB + 'connect_to = "203.0.113.7"',
        "[mcp_servers.github] connect_to must be HOST:PORT with a port from 1 to 65535",
    ),
    "connect_to IPv6 without brackets": (
        GITHUB + 'connect_to = "2001:db8::1:443"',
        "[mcp_servers.github] connect_to must be HOST:PORT, with brackets around an IPv6 address and nothing else",
    ),
    "proxy with a password": (
        GITHUB + 'proxy = "http://u:p@squid:3128"',
        "[mcp_servers.github] proxy must be http://HOST:PORT without user name and path",
    ),
    "transport": (
        GITHUB + 'transport = "stdio"',
        '[mcp_servers.github] transport must be one of "http", "sse"',
    ),
    "listen": (
        GITHUB + 'listen = "tcp"',
        '[mcp_servers.github] listen must be one of "http", "https", "unix", "stdio"',
    ),
    "client_auth": (
        GITHUB + 'client_auth = ["uid", "uid"]',
        '[mcp_servers.github] client_auth must be a list of "uid", "bearer", each at most once',
    ),
    "client_auth not a list": (
        GITHUB + 'client_auth = "uid"',
        "[mcp_servers.github] client_auth must be a list of strings",
    ),
    "enabled as a number": (GITHUB + "enabled = 1", "[mcp_servers.github] enabled must be true or false"),
    "bearer not a name": (
        GITHUB + 'bearer_token_env_var = "ghp-secret"',
        (
            "[mcp_servers.github] bearer_token_env_var must be the name of a secret, which looks like an environment "
            "variable's"
        ),
    ),
    "header name": (
        GITHUB + 'headers = { "X Y" = "1" }',
        '[mcp_servers.github.headers] "X Y" is not a header name',
    ),
    "header of one hop": (
        GITHUB + 'headers = { Connection = "close" }',
        "[mcp_servers.github.headers] Connection is set by the helper or the client; remove it",
    ),
    "header that frames": (
        GITHUB + 'headers = { content-LENGTH = "1" }',
        "[mcp_servers.github.headers] content-LENGTH is set by the helper or the client; remove it",
    ),
    "Host": (
        GITHUB + 'http_headers = { Host = "evil.example" }',
        "[mcp_servers.github.http_headers] Host is set by the helper or the client; remove it",
    ),
    "header of the MCP session": (
        GITHUB + 'headers = { Mcp-Session-Id = "1" }',
        "[mcp_servers.github.headers] Mcp-Session-Id is set by the helper or the client; remove it",
    ),
    "header value with a line break": (
        GITHUB + 'headers = { X-A = "1\\r\\nX-B: 2" }',
        "[mcp_servers.github.headers] X-A must not be empty and may hold visible ASCII, spaces and ${NAME} only",
    ),
    "header value not text": (
        GITHUB + "headers = { X-A = 1 }",
        "[mcp_servers.github.headers] must hold strings only",
    ),
    "header twice": (
        GITHUB + 'bearer_token_env_var = "T"\nheaders = { authorization = "Bearer ${U}" }',
        (
            "[mcp_servers.github.headers] authorization is set twice; keep one of bearer_token_env_var, headers and "
            "Codex's own keys"
        ),
    ),
    "placeholder with a default": (
        GITHUB + 'headers = { X-A = "${T:-none}" }',
        (
            "[mcp_servers.github.headers] X-A holds a ${ that is not ${NAME}; name a secret, or write $$ for a "
            "literal $ "
            "(there are no defaults)"
        ),
    ),
    "env header not a name": (
        GITHUB + 'env_http_headers = { X-A = "not a name" }',
        (
            "[mcp_servers.github.env_http_headers] X-A must be the name of a secret, which looks like an environment "
            "variable's"
        ),
    ),
    "credential without pins": (
        GITHUB + 'bearer_token_env_var = "T"',
        NO_PINS,
    ),
    "credential with reported pins": (
        GITHUB + f'headers = {{ X-Key = "${{K}}" }}\n[mcp_servers.github.tls.pins]\nmode = "report"\n{PINS}',
        NO_PINS,
    ),
    "unknown tls key": (
        GITHUB + "tls = { verify = false }",
        (
            '[mcp_servers.github.tls] has no key "verify"; it can have ca, ca_file, ca_overrides, client_cert, '
            "client_key, min_version, pins, server_name, strict_x509"
        ),
    ),
    "unknown store": (
        GITHUB + 'tls = { ca = "system" }',
        '[mcp_servers.github.tls] ca must be one of "host", "certifi", "custom", "pinned-only"',
    ),
    "custom without a file": (
        GITHUB + 'tls = { ca = "custom" }',
        '[mcp_servers.github.tls] ca = "custom" needs ca_file, a PEM file',
    ),
    "a file without custom": (
        GITHUB + 'tls = { ca_file = "x.pem" }',
        '[mcp_servers.github.tls] ca_file needs ca = "custom" or "pinned-only"',
    ),
    "pinned-only without pins": (
        GITHUB + 'tls = { ca = "pinned-only" }',
        '[mcp_servers.github.tls] ca = "pinned-only" needs pins with mode = "enforce"',
    ),
    "TLS version": (
        GITHUB + 'tls = { min_version = "1.1" }',
        '[mcp_servers.github.tls] min_version must be one of "1.2", "1.3"',
    ),
    "server_name": (
        GITHUB + 'tls = { server_name = "*.example.com" }',
        "[mcp_servers.github.tls] server_name must name a host as an ASCII DNS name or an IP address",
    ),
    "client certificate as a file": (
        GITHUB + 'tls = { client_cert = "cert.pem" }',
        '[mcp_servers.github.tls] client_cert must be "secret:NAME"',
    ),
    "client certificate without a key": (
        GITHUB + 'tls = { client_cert = "secret:C" }',
        "[mcp_servers.github.tls] client_cert and client_key belong together; set both or neither",
    ),
    "unknown pins key": (
        GITHUB_PINS + "expire = 2027-03-01",
        '[mcp_servers.github.tls.pins] has no key "expire"; did you mean "expires"?',
    ),
    "an empty pins table": (
        GITHUB_PINS,
        (
            "[mcp_servers.github.tls.pins] pin must list at least two different keys, one of them a backup that "
            "is not in "
            "use yet"
        ),
    ),
    "one pin twice": (
        GITHUB_PINS + f'expires = 2027-03-01\npin = [{{ spki = "{PIN_A}" }}, {{ spki = "{PIN_A}", backup = true }}]',
        (
            "[mcp_servers.github.tls.pins] pin must list at least two different keys, one of them a backup that "
            "is not in "
            "use yet"
        ),
    ),
    "no backup": (
        GITHUB_PINS + f'expires = 2027-03-01\npin = [{{ spki = "{PIN_A}" }}, {{ spki = "{PIN_B}" }}]',
        "[mcp_servers.github.tls.pins] pin has no entry with backup = true; add the key you would change to",
    ),
    "no expiry": (
        GITHUB_PINS + f'pin = [{{ spki = "{PIN_A}" }}, {{ spki = "{PIN_B}", backup = true }}]',
        (
            "[mcp_servers.github.tls.pins] expires is missing; set a date at most 400 days ahead, for example in "
            "half a "
            "year"
        ),
    ),
    "expiry as text": (
        GITHUB_PINS + PINS.replace("2027-03-01", '"2027-03-01"'),
        "[mcp_servers.github.tls.pins] expires must be a date like 2027-03-01, without quotes",
    ),
    "expiry with a time": (
        GITHUB_PINS + PINS.replace("2027-03-01", "2027-03-01T00:00:00Z"),
        "[mcp_servers.github.tls.pins] expires must be a date like 2027-03-01, without a time",
    ),
    "pin as text": (
        GITHUB_PINS + f'pin = ["{PIN_A}"]',
        "[mcp_servers.github.tls.pins] pin must be a list of tables",
    ),
    "pin without a key": (
        GITHUB_PINS + 'pin = [{ at = "leaf" }]',
        "[mcp_servers.github.tls.pins.pin[0]] must have either spki (of a key) or cert_sha256 (of a certificate)",
    ),
    "pin of a key and a certificate": (
        GITHUB_PINS + f'pin = [{{ spki = "{PIN_A}", cert_sha256 = "{"ab" * 32}" }}]',
        "[mcp_servers.github.tls.pins.pin[0]] must have either spki (of a key) or cert_sha256 (of a certificate)",
    ),
    "fingerprint of SHA-1": (
        GITHUB_PINS + f'pin = [{{ cert_sha256 = "{"ab" * 20}" }}]',
        (
            "[mcp_servers.github.tls.pins.pin[0]] cert_sha256 must be the SHA-256 of a certificate, 64 hexadecimal "
            "digits with or without colons"
        ),
    ),
    "one certificate twice": (
        GITHUB_PINS + f'pin = [{{ cert_sha256 = "{"ab" * 32}" }}, {{ cert_sha256 = "{"AB" * 32}", backup = true }}]',
        (
            "[mcp_servers.github.tls.pins] pin must list at least two different keys, one of them a backup that "
            "is not in use yet"
        ),
    ),
    "client certificate without pins": (
        GITHUB + 'tls = { client_cert = "secret:C", client_key = "secret:K" }',
        NO_PINS,
    ),
    "strict_x509 as text": (
        GITHUB + 'tls = { strict_x509 = "yes" }',
        "[mcp_servers.github.tls] strict_x509 must be true or false",
    ),
    "pins of another host": (GITHUB_PINS + f'host = "example.org"\n{PINS}', OTHERS_PINS),
    "pins of a host above": (GITHUB_PINS + f'host = "example.com"\n{PINS}', OTHERS_PINS),
    "pins of a host below": (
        GITHUB_PINS + f'host = "x.api.example.com"\ninclude_subdomains = true\n{PINS}',
        OTHERS_PINS,
    ),
    "pins of a host that only ends the same": (
        GITHUB_PINS + f'host = "i.example.com"\ninclude_subdomains = true\n{PINS}',
        OTHERS_PINS,
    ),
    "pins of another host, off": (GITHUB_PINS + 'mode = "off"\nhost = "example.org"', OTHERS_PINS),
    "pins of no host": (
        GITHUB_PINS + f'host = "*.example.com"\n{PINS}',
        "[mcp_servers.github.tls.pins] host must name a host as an ASCII DNS name or an IP address",
    ),
    "pins of everybody": (GITHUB_PINS + f'host = "com"\ninclude_subdomains = true\n{PINS}', NOT_ONE_OWNER),
    "pins of a host that rents out names": (
        GITHUB_PINS.replace("api.example.com", "me.github.io")
        + f'host = "github.io"\ninclude_subdomains = true\n{PINS}',
        NOT_ONE_OWNER,
    ),
    "pins below an IP address": (
        GITHUB + f'tls.server_name = "192.0.2.1"\n[mcp_servers.github.tls.pins]\ninclude_subdomains = true\n{PINS}',
        NOT_ONE_OWNER,
    ),
    "pin position": (
        GITHUB_PINS + f'pin = [{{ spki = "{PIN_A}", at = "middle" }}]',
        '[mcp_servers.github.tls.pins.pin[0]] at must be one of "any", "leaf", "intermediate", "root"',
    ),
    "limit too low": (
        GITHUB + "limits = { connections = 0 }",
        "[mcp_servers.github.limits] connections must be an integer from 1 to 65536",
    ),
    "limit as text": (
        GITHUB + 'limits = { request_bytes = "64M" }',
        "[mcp_servers.github.limits] request_bytes must be an integer from 1024 to 4294967296",
    ),
    "limit not a number": (
        GITHUB + "limits = { idle_seconds = nan }",
        "[mcp_servers.github.limits] idle_seconds must be a number from 1 to 86400",
    ),
    "limit as a boolean": (
        GITHUB + "limits = { connect_seconds = true }",
        "[mcp_servers.github.limits] connect_seconds must be a number from 0.1 to 300",
    ),
    "unknown limit": (
        GITHUB + "limits = { connect_second = 1 }",
        '[mcp_servers.github.limits] has no key "connect_second"; did you mean "connect_seconds"?',
    ),
    "args not text": (RUNNER + "args = [1]", "[mcp_servers.play] args must be a list of strings"),
    "env name": (
        RUNNER + 'env = { "A-B" = "1" }',
        '[mcp_servers.play.env] "A-B" is not the name of an environment variable',
    ),
    "env with NUL": (RUNNER + 'env = { A = "\\u0000" }', "[mcp_servers.play.env] A must not hold a NUL character"),
    "env placeholder": (
        RUNNER + 'env = { A = "${B" }',
        (
            "[mcp_servers.play.env] A holds a ${ that is not ${NAME}; name a secret, or write $$ for a literal $ "
            "(there are no defaults)"
        ),
    ),
    "sandbox key": (
        RUNNER + "sandbox = { writes = [] }",
        '[mcp_servers.play.sandbox] has no key "writes"; did you mean "write"?',
    ),
    "agent": ('[session]\nagent = "Claude Code"', "[session] agent must be 1 to 32 of a-z 0-9 -"),
    "acl of a copy": (
        '[session]\nworkspace_mode = "copy"\nworkspace_acl = true',
        '[session] workspace_acl has no meaning with workspace_mode = "copy"; remove it',
    ),
    "limits": ("[session]\nlimits = { procs = 1 }", '[session.limits] has no key "procs"; did you mean "processes"?'),
    "task limits": (
        "[session]\ntask_limits = { memory = 1 }",
        "[session.task_limits] memory must be an integer from 67108864 to 281474976710656",
    ),
    "few processes in all": (
        "[session]\ntask_limits = { total_processes = 1 }",
        "[session.task_limits] total_processes must be an integer from 16 to 4194304",
    ),
    "a total of the agent": (
        "[session]\nlimits = { total_memory = 67108864 }",
        '[session.limits] has no key "total_memory"; did you mean "memory"?',
    ),
    "few processes": (
        "[session]\nlimits = { processes = 1 }",
        "[session.limits] processes must be an integer from 16 to 4194304",
    ),
}


@pytest.mark.parametrize(("text", "sentence"), MISTAKES.values(), ids=MISTAKES)
def test_each_mistake_is_one_exact_sentence(text: str, sentence: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(text, "config.toml")
    assert str(caught.value) == f"config.toml: {sentence}"
    assert "\n" not in sentence
