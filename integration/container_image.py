"""The image of container tests: a local Debian or Ubuntu root, kept between runs, and a build context with our code.

The root is the host's own release, made by debootstrap from the mirror that apt is set to use; once it is in CACHE no
network is needed. It holds no container engine and starts nothing; `container_rig` does.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

_RECIPE = "2"  # to be raised when the root is made differently: its tar is then made anew
CACHE = Path("/var/cache/coding-agents")
DOCKERFILE = Path(__file__).parent / "container" / "Dockerfile"
PACKAGES = ("python3-minimal", "libpython3-stdlib", "libcap2-bin", "procps")
_LEFT_OUT = ("dev/*", "var/cache/apt/*", "var/lib/apt/lists/*", "var/log/*", "usr/share/doc/*", "usr/share/locale/*")
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"  # the host's release is the image's
_FOLDERS = ("trust", "rewrite", "proxies", "supervisor")  # `launcher` is the host's half
_DISTRIBUTION = "coding-agents-supervisor"
_REPOSITORY = Path(__file__).resolve().parents[1]
_ENTRY = '#!/bin/sh\nexec /opt/coding-agents/bin/python -I -m codingagents.supervisor {}"$@"\n'
_ENTRIES = {"coding-agents": _ENTRY.format(""), "agent-task-runnerctl": _ENTRY.format("exec ")}


def base_root(say: Callable[[str], None]) -> Path:
    """Return a tar of the root file system, making it first where it is not there yet (root, network, a minute)."""
    suite = platform.freedesktop_os_release()["VERSION_CODENAME"]
    recipe = "\n".join((_RECIPE, suite, platform.machine(), *PACKAGES, *_LEFT_OUT))
    tar = CACHE / f"root-{suite}-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}.tar"
    if tar.exists():
        return tar
    mirror = apt_mirror(suite)
    say(f"making a {suite} root for container tests in {tar} (once)")
    CACHE.mkdir(parents=True, exist_ok=True)
    # A name of its own until it is whole, so that an interrupted build is never mistaken for the real thing.
    with tempfile.TemporaryDirectory(prefix=".building-", dir=CACHE) as building:
        root, whole = f"{building}/root", f"{building}/root.tar"
        _run("debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", suite, root, mirror)
        # As a package would that is not part of the root: nothing is then compiled, and written, at first use.
        _run("chroot", root, "python3", "-I", "-m", "compileall", "-q", f"/usr/lib/python{PYTHON}")
        _run("tar", "-C", root, "--one-file-system", *(f"--exclude=./{name}" for name in _LEFT_OUT), "-cf", whole, ".")
        os.rename(whole, tar)
    return tar


def apt_mirror(suite: str, etc: Path = Path("/etc/apt")) -> str:
    """Return the URI that apt has for `suite`'s main component; `SystemExit` where its sources name none.

    Both formats of sources.list(5); `mirror+file:` (apt-transport-mirror(1)) is followed to its first mirror.
    """
    for uris, suites, components in _apt_sources(etc):
        if suite in suites and "main" in components:
            for uri in uris:
                if not uri.startswith("mirror+file:"):
                    return uri
                return Path(uri.removeprefix("mirror+file:")).read_text().split()[0]
    raise SystemExit(f"apt has no source for {suite} main, which the container tests' root is made from")


def _apt_sources(etc: Path) -> Iterator[tuple[list[str], list[str], list[str]]]:
    lists = [etc / "sources.list", *sorted((etc / "sources.list.d").glob("*.list"))]
    for line in "\n".join(path.read_text() for path in lists if path.exists()).splitlines():
        if found := re.fullmatch(r"deb\s+(?:\[[^]]*\]\s+)?(\S+)\s+(\S+)\s+(.*)", line.partition("#")[0].strip()):
            yield [found[1]], [found[2]], found[3].split()
    for path in sorted((etc / "sources.list.d").glob("*.sources")):
        text = re.sub(r"^#.*\n", "", path.read_text(), flags=re.MULTILINE)
        for stanza in re.split(r"\n\s*\n", text):
            fields = {
                name.lower(): value.split()
                for name, value in re.findall(r"^([A-Za-z-]+):(.*(?:\n[ \t].*)*)", stanza, flags=re.MULTILINE)
            }
            if "deb" in fields.get("types", []) and fields.get("enabled") != ["no"]:
                yield fields.get("uris", []), fields.get("suites", []), fields.get("components", [])


def make_context(directory: Path) -> None:
    """Fill `directory` with what the Dockerfile copies: an isolated environment in opt/coding-agents, and the command.

    The host's interpreter and the image's are of one release, so compiled modules fit both.
    """
    home = directory / "opt" / "coding-agents"
    site = home / "lib" / f"python{PYTHON}" / "site-packages"
    site.mkdir(parents=True)
    for folder in _FOLDERS:
        shutil.copytree(
            _REPOSITORY / folder / "codingagents",
            site / "codingagents",
            dirs_exist_ok=True,
            ignore=shutil.ignore_patterns("__pycache__"),
        )
    for name in _runtime_distributions(_DISTRIBUTION) - {_DISTRIBUTION}:
        _copy_distribution(name, site)
    (home / "pyvenv.cfg").write_text("home = /usr/bin\ninclude-system-site-packages = false\n")
    (home / "bin").mkdir()
    (home / "bin" / "python").symlink_to("/usr/bin/python3")
    # By content, not by time: nothing can then look stale in a file system that is read-only.
    _run(sys.executable, "-I", "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", str(site))
    for name, text in _ENTRIES.items():
        (directory / name).write_text(text)
        (directory / name).chmod(0o755)
    shutil.copy(DOCKERFILE, directory)


def add_to(root: Path, directory: Path) -> None:
    """Put into the tar `root` what `make_context` made in `directory`, for an engine that imports one tar."""
    commands = directory / "usr" / "local" / "bin"
    commands.mkdir(parents=True)
    for name in _ENTRIES:
        (directory / name).rename(commands / name)
    _run(
        "tar",
        "-C",
        str(directory),
        "--owner=0",
        "--group=0",
        "-rf",
        str(root),
        "./opt/coding-agents",
        *(f"./usr/local/bin/{name}" for name in _ENTRIES),
    )


def _runtime_distributions(name: str) -> set[str]:
    """Return `name` and what it requires here, however indirectly, without extras."""
    found: set[str] = set()
    pending = [name]
    while pending:
        distribution = importlib.metadata.distribution(pending.pop())
        if (own := distribution.metadata["Name"]) in found:
            continue
        found.add(own)
        for requirement in distribution.requires or []:
            wanted = re.split(r"[^\w.-]", requirement, maxsplit=1)[0]
            with contextlib.suppress(importlib.metadata.PackageNotFoundError):  # for another platform or Python
                if "extra ==" not in requirement:
                    pending.append(importlib.metadata.distribution(wanted).metadata["Name"])
    return found


def _copy_distribution(name: str, site: Path) -> None:
    for file in importlib.metadata.distribution(name).files or []:
        if ".." not in file.parts and "__pycache__" not in file.parts:  # `..`: console scripts
            target = site / file
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(str(file.locate()), target)


def _run(*command: str) -> None:
    done = subprocess.run(command, check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode != 0:
        lines = "\n".join((done.stdout + done.stderr).splitlines()[-15:])
        raise SystemExit(f"{command[0]} failed with exit code {done.returncode}; its last lines:\n{lines}")
