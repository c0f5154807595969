"""What the layers cost an agent: its tools notice nothing; its debuggers and sandboxes fail, each with a control."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from conformance.parts import node
from trap_harness import Outcome, Request, needs_root, run, shared_directory

pytestmark = needs_root


@pytest.fixture
def directory() -> Iterator[Path]:
    with shared_directory() as shared:
        shared.chmod(0o1777)  # the agent writes there, too
        yield shared


def shell(directory: Path, script: str, *, layers_off: list[str] | None = None) -> Outcome:
    request = Request(
        argv=["/bin/sh", "-ec", f"exec 2>&1; {script}"],
        working_directory=str(directory),
        environment={"HOME": str(directory), "PATH": f"{node().parent}:/usr/bin:/bin"},
        trees=[str(node().parent), str(directory)],
        layers_off=layers_off or [],
    )
    return run(request)


def test_git_npm_and_workers_of_node_notice_nothing(directory: Path) -> None:
    npm = node().parents[1] / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    (directory / "package.json").write_text('{"name": "a", "version": "1.0.0", "scripts": {"say": "echo from npm"}}')
    worker = "new (require('worker_threads').Worker)('console.log(6 * 7)', {eval: true})"
    outcome = shell(
        directory,
        f"""
        npm="node {npm} --silent --offline --no-audit --no-fund --prefix {directory}"
        $npm run say
        $npm pack
        mkdir b && echo '{{"name": "b", "version": "1.0.0"}}' >b/package.json
        $npm install --prefix b a-1.0.0.tgz && ls b/node_modules
        git init -q c && cd c
        git -c user.name=a -c user.email=a@b commit -q --allow-empty -m kept && git log --format=%s
        node -e "{worker}"
        """,
    )
    assert outcome.stdout.decode().split() == ["from", "npm", "a-1.0.0.tgz", "a", "kept", "42"]
    assert outcome.code == 0
    assert outcome.layer("seccomp_static").state == outcome.layer("userns").state == "enforced"


def test_a_leak_sanitizer_needs_ptrace(directory: Path) -> None:
    (directory / "program.c").write_text("int main(void) { return 0; }\n")
    program = directory / "program"
    subprocess.run(["gcc", "-fsanitize=leak", "-o", program, directory / "program.c"], check=True)
    os.chmod(program, 0o755)
    assert "LeakSanitizer has encountered a fatal error" in shell(directory, "./program").stdout.decode()
    assert shell(directory, "./program && echo ran", layers_off=["seccomp_static"]).stdout == b"ran\n"


def test_a_sandbox_needs_user_namespaces_and_to_mount_in_them_more(directory: Path) -> None:
    def ran(*layers_off: str, flags: str = "-Ur") -> bool:
        return shell(directory, f"unshare {flags} true && echo ran", layers_off=list(layers_off)).stdout == b"ran\n"

    assert not ran()
    assert ran("userns")
    mounting = ("seccomp_static", "userns", "landlock_exec", "exec_trap")
    assert ran(*mounting, flags="-Urm")
    for kept in mounting:
        assert not ran(*(layer for layer in mounting if layer != kept), flags="-Urm"), kept
