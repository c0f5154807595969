"""The published event schema is the one that the classes make, and covers what the writer writes."""

from __future__ import annotations

import datetime
import json
import re
from pathlib import Path

from codingagents.trust.chain import Chain
from codingagents.trust.events import SessionEnded
from codingagents.trust.schema import event_schema, schema_text
from codingagents.trust.vocabulary import SessionId

PUBLISHED = Path(__file__).parents[3] / "docs" / "events.schema.json"


def test_the_published_schema_is_current() -> None:
    assert PUBLISHED.read_text() == schema_text(), "run `make schema`"


def test_a_written_line_has_exactly_the_properties_of_the_schema() -> None:
    schema = event_schema()
    line = json.loads(
        Chain(SessionId("s-1")).prepare(SessionEnded(exit_code=0, reason="x"), datetime.datetime.now(datetime.UTC))
    )
    assert sorted(line) == sorted(schema["required"])
    for name in ("id", "source", "prev"):
        assert re.search(schema["properties"][name]["pattern"], line[name])
    assert line["type"] in schema["properties"]["type"]["enum"]
    definition = schema["$defs"]["SessionEnded"]
    assert sorted(line["data"]) == sorted(definition["properties"])
    assert definition["additionalProperties"] is False


def test_every_event_type_has_a_definition_without_the_tag() -> None:
    schema = event_schema()
    references = [each["properties"]["data"]["$ref"].rsplit("/", 1)[1] for each in schema["oneOf"]]
    assert len(set(references)) == len(schema["properties"]["type"]["enum"])
    for name in references:
        assert "kind" not in schema["$defs"][name]["properties"]
