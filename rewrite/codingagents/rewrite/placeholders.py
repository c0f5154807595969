"""CORE: `${NAME}` in header and environment templates: parsed here, named here, filled in here at the last moment.

`$$` is a literal `$`; a `$` before anything else stays as it is, so a bare `$NAME` is left alone. There are no
defaults, no nesting, no other source than the secrets that are passed in. No I/O; no error holds a secret.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping

from codingagents.trust.errors import ConfigError
from codingagents.trust.vocabulary import Secret, SecretName, parse_secret_name

_PLACEHOLDER = re.compile(r"\$\$|\$\{([^}]*)\}?")
# RFC 9110, section 5.5, without obs-text, whose charset no two implementations agree on.
_FIELD_VALUE = re.compile(r"[\t\x20-\x7e]*", re.ASCII)


@dataclasses.dataclass(frozen=True, slots=True)
class Placeholder:
    """One `${NAME}` of a template."""

    name: SecretName


def parse_template(text: str) -> tuple[str | Placeholder, ...]:
    """Return `text` as literals and placeholders in order; `ConfigError` for a `${` that does not begin a `${NAME}`."""
    parts: list[str | Placeholder] = []
    end = 0
    for match in _PLACEHOLDER.finditer(text):
        parts.append(text[end : match.start()])
        end = match.end()
        if match[0] == "$$":
            parts.append("$")
            continue
        try:
            if not match[0].endswith("}"):
                raise ConfigError("unterminated")
            parts.append(Placeholder(parse_secret_name(match[1])))
        except ConfigError:
            raise ConfigError(
                "holds a ${ that is not ${NAME}; name a secret, or write $$ for a literal $ (there are no defaults)"
            ) from None
    parts.append(text[end:])
    return tuple(part for part in parts if part)


def names(text: str) -> frozenset[SecretName]:
    """Return the secrets that `text` needs; raises as `parse_template`."""
    return frozenset(part.name for part in parse_template(text) if isinstance(part, Placeholder))


def expand(text: str, secrets: Mapping[str, Secret]) -> str:
    """Return `text` with every placeholder filled in; `ConfigError` naming a secret that is not in `secrets`.

    The result is a secret as soon as `text` names one: use it where it is made, keep it nowhere.
    """
    pieces: list[str] = []
    for part in parse_template(text):
        if isinstance(part, str):
            pieces.append(part)
        elif part.name in secrets:
            pieces.append(secrets[part.name].reveal())
        else:
            raise ConfigError(f"there is no secret named {part.name}")
    return "".join(pieces)


def expand_header(name: str, template: str, secrets: Mapping[str, Secret]) -> str:
    """Return the value of header `name`; like `expand`, and `ConfigError` for what no header value may hold.

    Refused are control characters (CR, LF and NUL above all: they would end the header and start another), anything
    outside ASCII, and an empty value.
    """
    value = expand(template, secrets).strip(" \t")
    if not value or not _FIELD_VALUE.fullmatch(value):
        raise ConfigError(f"the value of header {name} is empty, not ASCII, or holds a control character or line break")
    return value
