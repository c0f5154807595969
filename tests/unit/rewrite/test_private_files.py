"""Files and directories: two launchers that start together share them, and what stands there is checked."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from codingagents.rewrite.private_files import private_directory, read_plain
from codingagents.trust.errors import ConfigError


def test_launchers_that_start_together_all_get_the_directory(tmp_path: Path) -> None:
    """Whoever comes second to make it finds it made."""
    for attempt in range(50):
        wanted = tmp_path / str(attempt) / "a" / "b" / "c"
        (tmp_path / str(attempt)).mkdir(mode=0o700)
        barrier = threading.Barrier(4)
        failures: list[Exception] = []

        def start(
            wanted: Path = wanted, barrier: threading.Barrier = barrier, failures: list[Exception] = failures
        ) -> None:
            barrier.wait()
            try:
                private_directory(wanted, create=True)
            except ConfigError as error:
                failures.append(error)

        threads = [threading.Thread(target=start) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert os.stat(wanted).st_mode & 0o777 == 0o700


def test_a_link_to_nowhere_is_not_taken_for_a_directory(tmp_path: Path) -> None:
    """Also where it appears in the place of the one that was to be made."""
    (tmp_path / "link").symlink_to(tmp_path / "link")
    with pytest.raises(ConfigError):
        private_directory(tmp_path / "link", create=True)


def test_a_file_that_cannot_be_read_after_all_is_named() -> None:
    """Of this process's memory nothing lies at the start: a disk or a server that fails says the same."""
    with pytest.raises(ConfigError, match=r"^/proc/self/mem cannot be read: Input/output error$"):
        read_plain(Path("/proc/self/mem"), limit=10)
