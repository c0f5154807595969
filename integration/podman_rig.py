"""podman without a daemon, with runc, and sessions in its containers; used as `container_rig.Engine` is.

Everything lies in memory below a directory of ours, in a network, mount and PID namespace of its own: what podman has
on the machine is not touched, and nothing outlives the test run. The image is the Docker tests', as one tar.
"""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Final, Self

import container_image
from container_rig import IMAGE, PATIENCE, Engine

_PROGRAMS: Final = ("podman", "runc", "conmon")
_NAMESPACES: Final = (
    *("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "private"),
)
_ENTER: Final = 'mount -t tmpfs none "$1" && mount -t tmpfs none /run && echo ready && exec sleep infinity'


class Podman(Engine):
    """`podman("run", …)` runs podman in the namespaces that this holds."""

    name = "podman"
    rm = ("rm", "--force", "--time=0")  # else it stops them first
    # Root without CAP_SYS_RESOURCE may not raise limits, which podman does by default.
    run_flags = ("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096")

    def __init__(self, directory: Path) -> None:
        """Use `directory` for everything."""
        self._directory = directory
        self._store = directory / "data"
        self._environment = {name: value for name, value in os.environ.items() if not name.startswith("CONTAINER")}

    def __enter__(self) -> Self:
        for program in _PROGRAMS:
            if shutil.which(program) is None:
                raise SystemExit(f"there is no {program}; run integration/setup.sh test")
        self._store.mkdir()
        self._process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *_NAMESPACES, "sh", "-c", _ENTER, "sh", str(self._store)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], PATIENCE)
        assert ready, "no namespaces for podman"
        assert self._process.stdout.readline() == b"ready\n"
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        (self._holder,) = children
        return self

    def __exit__(self, *_: object) -> None:
        left = self("ps", "--all", "--quiet", check=False).stdout.split()
        if left:
            self(*self.rm, *left, check=False)
        self._process.kill()  # takes the namespaces' init, and so all of it, along
        self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def client(self, *arguments: str) -> list[str]:
        """Return the command line that runs podman in the namespaces."""
        return [
            *("nsenter", "--target", self._holder, "--net", "--mount", "--pid"),
            *("podman", "--root", f"{self._store}/store", "--runroot", f"{self._store}/run"),
            *("--tmpdir", f"{self._store}/tmp", "--cgroup-manager=cgroupfs", "--storage-driver=vfs"),
            *("--events-backend=none", "--runtime", "runc", *arguments),
        ]

    def build_image(self, say: Callable[[str], None]) -> None:
        """Make IMAGE; `say` gets a line where that takes long."""
        with tempfile.TemporaryDirectory(prefix="image-", dir=self._directory) as directory:
            root = Path(directory) / "root.tar"
            shutil.copyfile(container_image.base_root(say), root)
            (Path(directory) / "context").mkdir()
            container_image.make_context(Path(directory) / "context")
            container_image.add_to(root, Path(directory) / "context")
            self("import", str(root), IMAGE)
