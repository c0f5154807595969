"""The runbook knows every code, event and layer that there is, and quotes sentences as the code says them."""

from __future__ import annotations

import re
from typing import get_args

import pytest

import documents
from codingagents.proxies import layer_rows
from codingagents.rewrite import plan
from codingagents.supervisor import layers
from codingagents.trust import errors
from codingagents.trust.answers import ANSWERS
from codingagents.trust.events import AnyEvent
from codingagents.trust.vocabulary import LAYER_NAMES

RUNBOOK = documents.read("runbook.md")
KINDS = [str(kind.__struct_config__.tag) for kind in get_args(AnyEvent)]


def quoted_sentences() -> list[str]:
    """Every quoted piece of the first column, and of the second where the first is an exit code."""
    found = []
    for section in documents.sections(RUNBOOK)[2:]:  # after the title, whose table lists commands
        for cells in section.rows:
            seen = cells[1] if cells[0].isdecimal() else cells[0]
            found += [text for text in documents.code(seen) if " " in text]
    return found


@pytest.fixture(scope="module")
def sentences() -> str:
    return documents.sentences_of_the_code()


def test_every_answer_of_a_helper_has_its_row_with_its_status() -> None:
    rows = documents.section(RUNBOOK, "What a helper answers").rows
    assert {documents.code(cells[0])[0]: int(cells[1]) for cells in rows} == {
        code: answer.status for code, answer in ANSWERS.items()
    }


@pytest.mark.parametrize("kind", KINDS)
def test_every_event_type_is_explained(kind: str) -> None:
    assert kind in {section.title for section in documents.sections(documents.read("events.md"))}


def test_every_layer_has_its_row() -> None:
    rows = documents.section(RUNBOOK, "Layers").rows
    named = [name for cells in rows for name in documents.code(cells[0]) if " " not in name]
    assert sorted(named) == sorted(LAYER_NAMES)
    assert set(layers.LAYER_NAMES) <= set(LAYER_NAMES)


def test_every_layer_of_a_helper_has_its_row() -> None:
    rows = documents.section(RUNBOOK, "Layers of a helper").rows
    assert [documents.code(cells[0])[0] for cells in rows] == [*layer_rows.LAYER_NAMES, layer_rows.PINS_LAYER]


def test_every_exit_code_of_ours_has_its_row() -> None:
    ours = {value for name, value in vars(errors).items() if name.startswith("EXIT_")}
    listed = {int(cells[0]) for cells in documents.section(RUNBOOK, "Exit codes").rows if cells[0].isdecimal()}
    assert ours <= listed


def test_what_the_runbook_quotes_is_what_the_code_says(sentences: str) -> None:
    """Somebody who searches the runbook for what the terminal says must find it."""
    quoted = quoted_sentences()
    assert len(quoted) > 150
    stale = {
        sentence: piece
        for sentence in quoted
        for piece in map(str.strip, re.split("…|; ", sentence))
        if len(piece) > 2 and piece not in sentences
    }
    assert stale == {}


def test_a_layer_that_nothing_reports_on_is_refused() -> None:
    """A layer that could be required and is in no report would pass as met."""
    assert set(LAYER_NAMES) - set(layers.LAYER_NAMES) == set(plan._LAYERS_NOT_YET)


def test_links_of_the_documents_lead_somewhere() -> None:
    for path in documents.DOCS.rglob("*.md"):
        for target in re.findall(r"\]\(([^)#\s]*)(?:#[^)]*)?\)", path.read_text()):
            if target and "://" not in target:
                assert (path.parent / target).exists(), f"{path.name} links to {target}"


def test_anchors_of_the_documents_are_headings() -> None:
    for path in documents.DOCS.rglob("*.md"):
        for target, anchor in re.findall(r"\]\(([^)#\s]*)#([^)]*)\)", path.read_text()):
            if "://" not in target:
                linked = (path.parent / target).resolve() if target else path
                assert anchor in {anchor_of(each.title) for each in documents.sections(linked.read_text())}, (
                    f"{path.name} links to {target}#{anchor}"
                )


def anchor_of(title: str) -> str:
    """Return the anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")
