"""CORE: shell completion, written from the command's own argparse tree so that the two cannot drift. Text out, no I/O.

zsh uses the bash script through its bashcompinit; fish has its own form. Neither completes what only the machine
knows (servers, sessions): those fall back to file names.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

SHELLS = ("bash", "zsh", "fish")

_BASH = """\
_coding_agents() {{
  local at="" word words=""
  for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
    case "$at $word" in {paths}) at="$at $word" ;; esac
  done
  case "$at" in
{cases}
  esac
  COMPREPLY=($(compgen -W "$words" -- "${{COMP_WORDS[COMP_CWORD]}}"))
}}
complete -o default -F _coding_agents coding-agents
"""


def script(parser: argparse.ArgumentParser, shell: str) -> str:
    """Return the completion script of `parser` for one of `SHELLS`."""
    tree = list(_walk(parser, ()))
    if shell == "fish":
        return "".join(_fish(path, word) for path, words in tree for word in words)
    paths = "|".join(f'" {" ".join(path)}"' for path, _ in tree if path)
    cases = "\n".join(f'    "{"".join(f" {part}" for part in path)}") words="{" ".join(ws)}" ;;' for path, ws in tree)
    bash = _BASH.format(paths=paths, cases=cases)
    return f"autoload -U +X bashcompinit && bashcompinit\n{bash}" if shell == "zsh" else bash


def _walk(parser: argparse.ArgumentParser, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], list[str]]]:
    """Yield each command path with the words that may follow it."""
    words: list[str] = []
    for action in parser._actions:  # noqa: SLF001 -- argparse has no public way to list what it was given
        words += [option for option in action.option_strings if option.startswith("--")]
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001 -- likewise
            words += action.choices
            for name, below in action.choices.items():
                yield from _walk(below, (*path, name))
        elif action.choices:
            words += [str(choice) for choice in action.choices]
    yield path, words


def _fish(path: tuple[str, ...], word: str) -> str:
    seen = "; and ".join(f"__fish_seen_subcommand_from {part}" for part in path) or "__fish_use_subcommand"
    what = f"-l {word[2:]}" if word.startswith("--") else f"-f -a {word}"
    return f'complete -c coding-agents -n "{seen}" {what}\n'
