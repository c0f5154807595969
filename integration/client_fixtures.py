"""What the tests with real clients share: one Docker Engine, one upstream server and one model for all of them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from client_rig import Model
from container_rig import Engine, Upstream


@pytest.fixture(scope="session")
def model(pytestconfig: pytest.Config) -> Iterator[Model]:
    reporter = pytestconfig.pluginmanager.getplugin("terminalreporter")
    with (
        tempfile.TemporaryDirectory(prefix="docker-") as engines,
        tempfile.TemporaryDirectory(prefix="clients-", dir="/var/tmp") as directory,
        Engine(Path(engines)) as engine,
    ):
        Path(directory).chmod(0o711)  # workspaces lie below
        engine.build_image(reporter.write_line)
        with (
            Upstream(engine, Path(directory) / "upstream") as upstream,
            Model(engine, upstream, Path(directory)) as running,
        ):
            yield running
