"""What whole sessions need around them: a home with a place that the agent can reach, and a server at the far end.

pytest_plugins = ("session_fixtures",)  # where, upstream
"""

from collections.abc import Iterator

import pytest

import session_rig as rig
from session_rig import Place
from session_upstream import Upstream


@pytest.fixture(scope="module")
def where() -> Iterator[Place]:
    with rig.place() as made:
        yield made


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream() as made:
        yield made
