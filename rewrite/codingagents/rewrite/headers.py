"""CORE: the headers that a helper attaches: which names config.toml may use, and their templates.

Refused are the names that frame a message, belong to one hop, or carry the MCP session itself: those are the helper's
or the client's. Nothing is filled in here. No I/O.
"""

from __future__ import annotations

import re

from codingagents.rewrite.placeholders import expand, names
from codingagents.rewrite.specs import HeaderTemplate
from codingagents.rewrite.tables import Table, quoted
from codingagents.trust.errors import ConfigError
from codingagents.trust.vocabulary import Secret, SecretName, parse_secret_name

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,128}", re.ASCII)  # RFC 9110, section 5.6.2
_LITERAL = re.compile(r"[\t\x20-\x7e]+", re.ASCII)
# RFC 9110, sections 7.2, 7.6.1 and 8.6, and the headers by which client and server negotiate.
_RESERVED_NAMES = """
    accept accept-encoding connection content-encoding content-length content-type expect host http2-settings keep-alive
    last-event-id proxy-authenticate proxy-authentication-info proxy-authorization proxy-connection te trailer
    transfer-encoding upgrade
"""
_RESERVED = frozenset(_RESERVED_NAMES.split())
_RESERVED_PREFIXES = ("mcp-", ":")


def secret_name(table: Table, key: str) -> SecretName | None:
    """Return the secret's name below `key`, None where it is absent."""
    text = table.text(key)
    try:
        return None if text is None else parse_secret_name(text)
    except ConfigError:
        raise table.error(f"{key} must be the name of a secret, which looks like an environment variable's") from None


def template_names(table: Table, key: str, template: str) -> frozenset[SecretName]:
    """Return the secrets that `template` names; the error names `key` of `table`."""
    try:
        return names(template)
    except ConfigError as error:
        raise table.error(f"{key} {error}") from None


def header_templates(table: Table) -> list[HeaderTemplate]:
    """Return the headers of one remote server, in the file's order, no name twice.

    Codex's own `http_headers` is the same as `headers`, its `bearer_token_env_var` and `env_http_headers` name secrets.
    """
    found: list[tuple[str, str, str]] = []  # key, header, template
    if (bearer := secret_name(table, "bearer_token_env_var")) is not None:
        found.append(("bearer_token_env_var", "Authorization", f"Bearer ${{{bearer}}}"))
    for key in ("headers", "http_headers"):
        found += [(key, name, template) for name, template in table.strings(key).items()]
    for name in table.strings("env_http_headers"):
        below = table.table("env_http_headers")
        if not _TOKEN.fullmatch(name):
            raise below.error(f"{quoted(name)} is not a header name")
        found.append(("env_http_headers", name, f"${{{secret_name(below, name)}}}"))
    seen: set[str] = set()
    for key, name, template in found:
        below = table if key == "bearer_token_env_var" else table.table(key)
        _check(below, name, template)
        if name.lower() in seen:
            raise below.error(f"{name} is set twice; keep one of bearer_token_env_var, headers and Codex's own keys")
        seen.add(name.lower())
    return [HeaderTemplate(name=name, template=template) for _, name, template in found]


def _check(table: Table, name: str, template: str) -> None:
    if not _TOKEN.fullmatch(name):
        raise table.error(f"{quoted(name)} is not a header name")
    if name.lower() in _RESERVED or name.lower().startswith(_RESERVED_PREFIXES):
        raise table.error(f"{name} is set by the helper or the client; remove it")
    needed = template_names(table, name, template)
    if not _LITERAL.fullmatch(expand(template, dict.fromkeys(needed, Secret("x")))):
        raise table.error(f"{name} must not be empty and may hold visible ASCII, spaces and ${{NAME}} only")
