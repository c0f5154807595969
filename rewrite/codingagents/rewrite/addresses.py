"""CORE: URLs, host names and HOST:PORT texts of config.toml: split, checked, never resolved.

Stricter than RFC 3986 on purpose: what two URL parsers could read in two ways is refused. Every function raises
`ValueError` with the rest of a sentence about the key ("must …"), and never repeats the text: it may hold a password.
"""

from __future__ import annotations

import ipaddress
import re
import urllib.parse
from typing import NamedTuple

_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOST = re.compile(rf"{_LABEL}(?:\.{_LABEL})*", re.ASCII)
# WHATWG URL, section 3.5: a host that ends in a number is an IPv4 address in some spelling, whatever else it holds.
_ENDS_IN_NUMBER = re.compile(r"(?:.*\.)?(?:[0-9]+|0[xX][0-9A-Fa-f]*)", re.ASCII)
_PATH = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=:@/?-]|%[0-9A-Fa-f]{2})*", re.ASCII)
_DOT_SEGMENT = re.compile(r"/(?:\.|%2[eE]){1,2}(?:/|$)")


class Url(NamedTuple):
    """One http or https URL. `host` is lower case, an IPv6 address without brackets; `path` holds the query too."""

    scheme: str
    host: str
    port: int
    path: str


def is_ip(host: str) -> bool:
    """Return whether `host` is an IP address rather than a name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Return whether `host` is `localhost` or a loopback address."""
    return host == "localhost" or (is_ip(host) and ipaddress.ip_address(host).is_loopback)


def is_public_suffix(host: str) -> bool:
    """Return whether anybody can have a name below `host`: com, co.uk, github.io, and what the list does not know."""
    from publicsuffixlist import PublicSuffixList  # noqa: PLC0415 -- 10 000 rules, for those who ask

    return PublicSuffixList().is_public(host)


def parse_host(text: str) -> str:
    """Return `text`, a DNS name in lower case, or an IP address without brackets in the one form of RFC 5952."""
    if is_ip(text) and "%" not in text:
        return str(ipaddress.ip_address(text))
    if len(text) > 253 or not _HOST.fullmatch(text) or _ENDS_IN_NUMBER.fullmatch(text):
        raise ValueError("must name a host as an ASCII DNS name or an IP address")
    return text.lower()


def parse_host_port(text: str) -> str:
    """Return `HOST:PORT` (an IPv6 address in brackets) in lower case."""
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    bare = host[1:-1] if bracketed else host
    if not colon or not re.fullmatch(r"[1-9][0-9]{0,4}", port, re.ASCII) or int(port) > 65535:
        raise ValueError("must be HOST:PORT with a port from 1 to 65535")
    if bracketed != (":" in bare):
        raise ValueError("must be HOST:PORT, with brackets around an IPv6 address and nothing else")
    host = parse_host(bare)
    return f"[{host}]:{port}" if bracketed else f"{host}:{port}"


def parse_url(text: str) -> Url:
    """Return the parts of an http or https URL without user information and fragment, its path in normal form."""
    if not re.fullmatch(r"[!-~]+", text, re.ASCII):
        raise ValueError("must be a URL in ASCII without spaces")
    if "${" in text:
        raise ValueError("must not hold ${NAME}; the agent sees the URL, so put secrets into headers")
    try:
        parts = urllib.parse.urlsplit(text)
        port = parts.port
    except ValueError:
        raise ValueError("must be a URL with a valid host and a port from 1 to 65535") from None
    if parts.scheme not in ("https", "http"):
        raise ValueError("must start with https://")
    if "@" in parts.netloc:
        raise ValueError("must not hold a user name or password; use bearer_token_env_var or headers")
    if "#" in text:
        raise ValueError("must not have a fragment")
    bracketed = parts.netloc.startswith("[")
    host = parse_host(parts.hostname or "")
    if bracketed != (":" in host) or port == 0 or parts.netloc.endswith(":"):
        raise ValueError("must be a URL with a valid host and a port from 1 to 65535")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    if not _PATH.fullmatch(path) or _DOT_SEGMENT.search(parts.path):
        raise ValueError("must have a path in normal form: percent-encoded, without . and .. segments")
    return Url(parts.scheme, host, port or (443 if parts.scheme == "https" else 80), path)
