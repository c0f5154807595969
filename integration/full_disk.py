"""A disk of a few pages, real as far as the kernel is concerned, to be full when a test wants it to be."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def small_disk(kilobytes: int = 64) -> Iterator[Path]:
    """A tmpfs of that size, mounted for the block; needs root."""
    with tempfile.TemporaryDirectory(prefix="small-disk-") as name:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "small-disk", name], check=True)
        try:
            yield Path(name)
        finally:
            subprocess.run(["umount", name], check=True)


def fill(disk: Path) -> Path:
    """Leave no page of `disk` free; return the file that takes them, to be removed for room."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    assert os.statvfs(disk).f_bavail == 0
    return ballast
