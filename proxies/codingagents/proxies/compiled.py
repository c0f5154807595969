"""SHELL: whether the modules on a request's way run compiled or interpreted, and that they are those that are here.

`hatch_build.py` compiles them and writes down of which sources. Whoever changes one, or fetches a new version of it,
and does not build again, would go on running the old one without a word, as a fix that is not in force. Decides nothing
about requests; both forms of a module do the same.
"""

from __future__ import annotations

import hashlib
import importlib.machinery
import sys
from pathlib import Path
from typing import Final, Literal, TypeAlias

from codingagents.proxies import relay
from codingagents.trust.errors import ConfigError

_HERE: Final = Path(__file__).parent
MANIFEST: Final = "compiled.sha256"  # "digest  name.py" a line, as sha256sum writes it
Form: TypeAlias = Literal["compiled", "interpreted"]


def form() -> Form:
    """Return which of the two this process runs."""
    spec = sys.modules[relay.__name__].__spec__
    assert spec is not None
    return "compiled" if isinstance(spec.loader, importlib.machinery.ExtensionFileLoader) else "interpreted"


def check(here: Path = _HERE, *, running: Form | None = None) -> None:
    """Raise `ConfigError` where something compiled would run that was not made from the sources `here`.

    `running` is what this process runs; it is found out where it is not said.
    """
    if (running or form()) == "interpreted":
        return
    try:
        lines = [line.partition("  ") for line in (here / MANIFEST).read_text("ascii").splitlines()]
        changed = [
            name for digest, _, name in lines if hashlib.sha256((here / name).read_bytes()).hexdigest() != digest
        ]
    except (OSError, ValueError):
        raise ConfigError(
            f"nothing says what the compiled modules in {here} were made of: install the project again ('make venv')"
        ) from None
    if changed:
        raise ConfigError(
            f"{', '.join(changed)} in {here} changed after it was compiled: install the project again ('make venv')"
        )
