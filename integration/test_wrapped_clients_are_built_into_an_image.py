"""Clients that a Dockerfile wraps, in containers of a real Docker Engine with its default settings, and with least."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from codingagents.rewrite import places
from container_rig import IMAGE, Engine

WRAPPED = "coding-agents-wrapped:1"
# A native program, and a script behind a link; the last line is in a layer of its own.
DOCKERFILE = f"""\
FROM {IMAGE}
RUN cp /usr/bin/id /usr/local/bin/codex && mkdir -p /opt/claude/bin && cp /usr/bin/id /opt/claude/bin/claude \\
 && ln -s /opt/claude/bin/claude /usr/local/bin/claude
RUN coding-agents wrap install claude codex
RUN touch /etc/another-layer
"""
PYTHON = "/opt/coding-agents/bin/python"
LEAST = ("--cap-drop=ALL", "--security-opt=no-new-privileges")


@pytest.fixture(scope="module")
def engine(pytestconfig: pytest.Config) -> Iterator[Engine]:
    reporter = pytestconfig.pluginmanager.getplugin("terminalreporter")
    with tempfile.TemporaryDirectory(prefix="docker-") as directory, Engine(Path(directory)) as running:
        running.build_image(reporter.write_line)
        with tempfile.TemporaryDirectory(prefix="context-", dir=directory) as context:
            Path(context, "Dockerfile").write_text(DOCKERFILE)
            running("build", "--tag", WRAPPED, context)
        yield running


def run(engine: Engine, *words: str) -> subprocess.CompletedProcess[str]:
    return engine("run", "--rm", "--network=none", *words, check=False)


@pytest.mark.parametrize("flags", [(), LEAST, ("--user=1000",)], ids=["default", "least", "user"])
@pytest.mark.parametrize("name", ["claude", "codex"])
def test_a_client_of_an_image_does_not_run_unconfined(engine: Engine, name: str, flags: tuple[str, ...]) -> None:
    """Nor where the engine itself has no_new_privs and seccomp on: that is no session."""
    done = run(engine, *flags, WRAPPED, name, "-u")
    assert (done.returncode, done.stdout) == (126, "")
    assert f"/usr/local/bin/{name} runs only as the agent of a session: no session runs here" in done.stderr
    control = run(engine, *flags, WRAPPED, f"/usr/local/bin/coding-agents-vendor-{name}", "-u")
    assert (control.returncode, control.stdout) == (0, "1000\n" if "--user=1000" in flags else "0\n")


def test_what_was_wrapped_is_still_so_in_a_container_and_nothing_is_said_at_a_start(engine: Engine) -> None:
    """The layers of an image keep what the record goes by; what is found quickly is what is found by reading all."""
    listed = run(engine, WRAPPED, "coding-agents", "wrap", "list")
    assert (listed.returncode, listed.stdout.splitlines()) == (
        0,
        ["/usr/local/bin/claude is wrapped", "/usr/local/bin/codex is wrapped"],
    )
    quickly = "from codingagents.supervisor import wrapping; print(wrapping.changed_wrappers())"
    assert run(engine, WRAPPED, PYTHON, "-I", "-c", quickly).stdout == "[]\n"


def test_an_update_in_a_container_is_found_and_mended_and_the_wrapper_can_go(engine: Engine) -> None:
    script = """
        set -u
        cp /usr/bin/true /usr/local/bin/new && mv /usr/local/bin/new /usr/local/bin/codex
        coding-agents wrap list; echo $?
        coding-agents wrap install codex && codex; echo $?
        coding-agents wrap remove codex claude && codex && claude -u
        test -e RECORD; echo $?
    """.replace("RECORD", places.WRAPPERS)
    for flags in ((), LEAST):
        done = run(engine, *flags, WRAPPED, "sh", "-c", script)
        lines = done.stdout.splitlines()
        assert lines[1].startswith("/usr/local/bin/codex was wrapped, and another program stands there now")
        assert lines[2:4] == ["1", "/usr/local/bin/codex was wrapped anew"]
        assert lines[4:] == [
            "126",
            "/usr/local/bin/codex is the vendor's program again",
            "/usr/local/bin/claude is the vendor's program again",
            *("0", "1"),  # UID 0; and no record
        ]
