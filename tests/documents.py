"""Reads docs/*.md for the tests that hold them to the code: sections, tables, fenced blocks, the code's own sentences.

Markdown is read as far as these files use it: ATX headings, pipe tables, fences of three backticks.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PORTIONS = ("trust", "rewrite", "proxies", "supervisor", "launcher")

_HEADING = re.compile(r"(#+) +(.*)")
_CODE = re.compile(r"(?<!`)(`{1,2})(?!`)(.+?)(?<!`)\1(?!`)")


@dataclass(frozen=True, slots=True)
class Section:
    """The lines below one heading, up to the next of any level."""

    title: str
    lines: tuple[str, ...]

    @property
    def rows(self) -> list[list[str]]:
        """The cells of every table row, headers and their rules left out."""
        table = [line for line in self.lines if line.startswith("|")]
        rules = [index for index, line in enumerate(table) if set(line) <= set("|-: ")]
        kept = [line for index, line in enumerate(table) if index not in rules and index + 1 not in rules]
        return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in kept]


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block: the words after its opening fence, and its text."""

    words: tuple[str, ...]
    text: str


def read(name: str) -> str:
    """Return the text of docs/`name`."""
    return (DOCS / name).read_text()


def sections(text: str) -> list[Section]:
    """Return the sections of a document; what stands in fences is no heading."""
    found: list[tuple[str, list[str]]] = [("", [])]
    fenced = False
    for line in text.splitlines():
        fenced ^= line.startswith("```")
        heading = None if fenced else _HEADING.fullmatch(line)
        if heading:
            found.append((heading[2], []))
        else:
            found[-1][1].append(line)
    return [Section(title, tuple(lines)) for title, lines in found]


def section(text: str, title: str) -> Section:
    """Return the one section called `title`."""
    (found,) = [each for each in sections(text) if each.title == title]
    return found


def blocks(text: str) -> list[Block]:
    """Return the fenced blocks of a document, in order."""
    found = re.findall(r"^```([^\n]*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [Block(tuple(words.split()), body) for words, body in found]


def code(cell: str) -> list[str]:
    """Return what stands between backticks."""
    return [text for _, text in _CODE.findall(cell)]


def sentences_of_the_code() -> str:
    """Return every string of our modules, one a line, docstrings left out and each value filled in written as `…`."""
    paths = (path for portion in PORTIONS for path in sorted((ROOT / portion).rglob("*.py")))
    return "\n".join(text for path in paths for text in _strings(ast.parse(path.read_text())))


def _strings(tree: ast.Module) -> Iterator[str]:
    docstrings = set(_docstrings(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.value


def _docstrings(tree: ast.Module) -> Iterator[int]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.body:
            first = node.body[0]
            if isinstance(first, ast.Expr):
                yield id(first.value)
