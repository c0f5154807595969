"""Settings of all tests: Hypothesis without a deadline, since how fast a machine is must fail no test; and what is run.

The sources are, whether some of them are compiled or not: only so can coverage see them, and a change be tried without
a build. With `--compiled` the compiled modules are, as users run them; `make unit` does both.
"""

import importlib.machinery
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

import pytest
from hypothesis import settings

settings.register_profile("tests", deadline=None)
settings.load_profile("tests")


class Sources(MetaPathFinder):
    """Finds our modules by their sources alone."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not fullname.startswith("codingagents.") or path is None:
            return None
        loader = (importlib.machinery.SourceFileLoader, importlib.machinery.SOURCE_SUFFIXES)
        specs = (importlib.machinery.FileFinder(place, loader).find_spec(fullname, target) for place in path)
        return next(filter(None, specs), None)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--compiled", action="store_true", help="run the compiled modules instead of their sources")


def pytest_configure(config: pytest.Config) -> None:
    if not config.getoption("--compiled"):
        assert not [name for name in sys.modules if name.startswith("codingagents.")]
        sys.meta_path.insert(0, Sources())
