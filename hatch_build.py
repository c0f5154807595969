"""Compiles the modules on a helper's way of a request with mypyc, where there is a C compiler (ADR 22).

A hook of hatchling: an editable install has the result beside the sources, a wheel has both. Where a compiler, Python's
headers or mypyc are missing nothing is compiled, and the same modules are interpreted; everything else that goes wrong,
a type error above all, fails the build. `codingagents.proxies.compiled` says at run time which of the two it is, and
that what was compiled are these sources.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PACKAGE = Path("proxies/codingagents/proxies")
MANIFEST = PACKAGE / "compiled.sha256"  # "digest  name.py" a line, as sha256sum writes it
GROUP = "codingagents.proxies.compiled"  # of the one library that holds the code; each module is a stub that loads it
# No asserts are stripped: they guard states that no bytes may reach.
_MYPYC = """
import sys
from setuptools import Distribution  # before mypyc, which takes distutils otherwise
from mypyc.build import mypycify
group, work, *paths = sys.argv[1:]
extensions = mypycify(
    ["--config-file=", "--namespace-packages", "--explicit-package-bases", "--ignore-missing-imports",
     f"--cache-dir={work}/cache", *paths],
    only_compile_paths=paths, opt_level="3", debug_level="0", group_name=group, target_dir=f"{work}/c",
)
command = Distribution({"name": group, "ext_modules": extensions}).get_command_obj("build_ext")
command.build_lib, command.build_temp = f"{work}/lib", f"{work}/objects"
command.ensure_finalized()
command.run()
"""


class CustomBuildHook(BuildHookInterface[Any]):
    """See the module."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile for a wheel or, where `version` is "editable", in place."""
        if self.target_name != "wheel":
            return
        root = Path(self.root)
        self.clean([])
        if missing := _missing():
            self.app.display_warning(f"helpers will be interpreted, and slower: there is no {missing}")
            return
        made = _compile(root, sorted(self.config["modules"]))
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
        if version != "editable":
            build_data["force_include"] |= {str(path): str(path.relative_to(root / "proxies")) for path in made}

    def clean(self, versions: list[str]) -> None:
        """Remove what was compiled."""
        del versions
        root = Path(self.root)
        for path in (*(root / PACKAGE).glob("*.so"), root / MANIFEST):
            path.unlink(missing_ok=True)


def _missing() -> str:
    """Return what compiling needs and this machine has not, or ""."""
    compiler = (sysconfig.get_config_var("CC") or "cc").split()[0]
    if shutil.which(compiler) is None:
        return f"C compiler ({compiler})"
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        return "Python.h"
    for name in ("mypyc", "setuptools"):
        if importlib.util.find_spec(name) is None:
            return name
    return ""


def _compile(root: Path, modules: list[str]) -> list[Path]:
    """Compile `modules` in place, and return what was made; raises `CalledProcessError` after the compiler's words."""
    paths = [str(PACKAGE / f"{module}.py") for module in modules]
    lines = [f"{hashlib.sha256((root / path).read_bytes()).hexdigest()}  {Path(path).name}\n" for path in paths]
    path = ":".join(str(root / folder) for folder in ("trust", "rewrite", "proxies"))
    with tempfile.TemporaryDirectory() as work:
        subprocess.run(
            [sys.executable, "-c", _MYPYC, GROUP, work, *paths],
            check=True,
            cwd=root,
            env=os.environ | {"MYPYPATH": path},
        )
        made = [Path(shutil.copy2(each, root / PACKAGE)) for each in sorted(Path(work, "lib").rglob("*.so"))]
    manifest = root / MANIFEST
    manifest.write_text("".join(lines))
    return [*made, manifest]
