"""What tests of `helper run` need around them.

pytest_plugins = ("helper_run_fixtures",)  # upstream, tls_upstream, started
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from helper_run_rig import LEAF, Run, Upstream, serving


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    yield from serving(Upstream())


@pytest.fixture
def tls_upstream() -> Iterator[Upstream]:
    yield from serving(Upstream(LEAF))


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Any]:
    runs: list[Run] = []

    def start(*options: str, home: Path = tmp_path, **more: Any) -> Run:
        runs.append(Run(home, "--json", *options, **more))
        return runs[-1]

    yield start
    for run in runs:
        run.clear_away()
