"""CORE: the published JSON Schema of the event log, made from the classes that write it. No I/O.

`make schema` writes it to docs/events.schema.json; a test fails where the file and the classes differ.
"""

from __future__ import annotations

import json
from typing import Any, get_args

import msgspec

from codingagents.trust.encoding import MAX_EVENT_LINE
from codingagents.trust.events import TYPE_PREFIX, AnyEvent, Event

_TEMPLATE = "#/$defs/{name}"


def event_schema() -> dict[str, Any]:
    """Return the schema (JSON Schema 2020-12) of one line of an event log, as `encoding.encode_event` writes it."""
    kinds = get_args(AnyEvent)
    _, definitions = msgspec.json.schema_components(kinds, ref_template=_TEMPLATE)
    for kind in kinds:
        # On the wire the tag is the envelope's `type`.
        definition = definitions[kind.__name__]
        definition["properties"].pop("kind", None)
        definition["required"] = [name for name in definition["required"] if name != "kind"]
    envelope = {
        "specversion": {"const": "1.0"},
        "id": {"type": "string", "pattern": "^[a-z0-9-]{1,64}-[0-9]+$"},
        "source": {"type": "string", "pattern": "^/coding-agents/sessions/[a-z0-9-]{1,64}$"},
        "time": {"type": "string", "format": "date-time"},
        "datacontenttype": {"const": "application/json"},
        "seq": {"type": "integer", "minimum": 0, "description": "0 for the first line, then one more each"},
        "prev": {
            "type": "string",
            "pattern": "^[0-9a-f]{64}$",
            "description": "SHA-256 of the previous line without its newline; of the genesis for the first",
        },
        "type": {"enum": [_type(kind) for kind in kinds]},
        "data": {"type": "object"},
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "One line of a coding-agents event log",
        "description": f"A CloudEvents 1.0 object in RFC 8785 bytes, at most {MAX_EVENT_LINE} of them.",
        "type": "object",
        "properties": envelope,
        "required": list(envelope),
        "additionalProperties": False,
        "oneOf": [
            {"properties": {"type": {"const": _type(kind)}, "data": {"$ref": _TEMPLATE.format(name=kind.__name__)}}}
            for kind in kinds
        ],
        "$defs": definitions,
    }


def schema_text() -> str:
    """Return the schema as the file holds it."""
    return json.dumps(event_schema(), indent=2) + "\n"


def _type(kind: type[Event]) -> str:
    return f"{TYPE_PREFIX}{kind.__struct_config__.tag}"
