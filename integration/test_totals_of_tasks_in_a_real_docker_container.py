"""Whether a container's tasks can be bounded together, with what a real Docker Engine gives it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from container_rig import IMAGE, Engine

PYTHON = "/opt/coding-agents/bin/python"
TOTAL, WANTED = 30, 60
# As a session's supervisor does it: in a mount namespace of its own where that can be had.
SCRIPT = f"""
import json, os, signal, subprocess, sys
from codingagents.rewrite.specs import TaskTotals
from codingagents.supervisor import namespaces
from codingagents.supervisor.cgroups import TaskGroup

FORKS = '''
import os, signal, sys
sys.stdin.readline()
made = 0
try:
    for made in range({WANTED} + 1):
        if made < {WANTED} and os.fork() == 0:
            signal.pause()
except BlockingIOError:
    pass
print(made, flush=True)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.killpg(0, signal.SIGTERM)
'''
may_mount = not namespaces.enter_mount_namespace()
group = TaskGroup("coding-agents-tasks-x", TaskTotals(processes={TOTAL}), is_pid1=True, may_mount=may_mount)
child = subprocess.Popen([sys.executable, "-c", FORKS], stdin=-1, stdout=-1, text=True, start_new_session=True)
said, held = group.take(child.pid)
made = int(child.communicate("go")[0])
mounts = [line.split(" ")[5].split(",")[0] for line in open("/proc/self/mountinfo") if " - cgroup" in line]
print(json.dumps(dict(said=said, held=held, made=made, left=group.remove(), mounts=mounts)))
"""


@pytest.fixture(scope="module")
def engine(pytestconfig: pytest.Config) -> Iterator[Engine]:
    reporter = pytestconfig.pluginmanager.getplugin("terminalreporter")
    with tempfile.TemporaryDirectory(prefix="docker-") as directory, Engine(Path(directory)) as running:
        running.build_image(reporter.write_line)
        yield running


def outcome(engine: Engine, *flags: str) -> dict[str, Any]:
    done = engine("run", "--rm", "--network=none", "--init", *flags, IMAGE, PYTHON, "-I", "-c", SCRIPT)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("namespace", ["host", "private"])
def test_who_may_mount_bounds_them_and_leaves_the_engines_mounts_as_they_were(engine: Engine, namespace: str) -> None:
    found = outcome(engine, "--cap-add=SYS_ADMIN", f"--cgroupns={namespace}")
    assert found["held"], found
    assert found["made"] == TOTAL - 1
    assert found["left"] == ""
    assert set(found["mounts"]) == {"ro"}


def test_by_default_nobody_may_and_it_is_said(engine: Engine) -> None:
    """The control, too: nothing else stops what forks."""
    found = outcome(engine)
    assert not found["held"]
    assert found["said"].startswith("pids not delegated: /sys/fs/cgroup")
    assert found["said"].endswith("EROFS")
    assert found["made"] == WANTED
