"""Tasks in namespaces of their own: what they see of mounts and processes, and what the trap sees of theirs."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import task_rig as rig
from codingagents.rewrite.specs import ExecRule
from codingagents.trust.events import ExecAllowed, ExecDenied
from task_rig import Exited, Request, Tasks

pytestmark = rig.needs_root
# A container of an engine: parts of /proc that cannot be written, a file and a directory that cannot be seen.
ENGINE = (
    *("unshare", "--mount", "--propagation", "private", "sh", "-c"),
    """
    set -e
    mount --bind /proc/sys /proc/sys; mount -o remount,bind,ro /proc/sys
    mount --bind /dev/null /proc/keys
    mount -t tmpfs -o ro none /proc/tty
    exec "$@"
    """,
    "sh",
)


@pytest.fixture(scope="module")
def tasks() -> Iterator[Tasks]:
    with rig.start() as made:
        yield made


def said(tasks: Tasks, script: str) -> str:
    task = tasks.sh(script)
    text = task.output().decode()
    assert task.wait() == Exited(0), text
    return text


def test_what_is_masked_is_empty_and_closed(tasks: Tasks) -> None:
    """The control is the same where there are no namespaces."""
    look = f"ls {tasks.masked}; cat {tasks.masked}/file; stat -c %a {tasks.masked}; exit 0"
    assert [line.rpartition(": ")[2] for line in said(tasks, look).splitlines()] == ["Permission denied"] * 2 + ["0"]
    with rig.start(prefix=rig.DOCKER) as without:
        assert said(without, look.replace(str(tasks.masked), str(without.masked))) == "file\nto be seen by all\n755\n"


def test_tasks_see_each_other_and_no_other_process(tasks: Tasks) -> None:
    other = tasks.run(["/bin/sleep", "1000"]).runs()
    numbers = said(tasks, "cd /proc; echo [0-9]*; echo $$").split()
    assert len(numbers) == 3
    assert numbers[-1] in numbers[:-1]
    comm = said(tasks, "cat /proc/[0-9]*/comm").split()
    assert "sleep" in comm
    other.kill()
    other.over()


def test_shared_memory_is_their_own(tasks: Tasks) -> None:
    made = subprocess.run(["ipcmk", "-Q", "-p", "0666"], check=True, capture_output=True, text=True).stdout.split()[-1]
    try:
        assert "\n0x" not in said(tasks, "ipcs -q")
        with rig.start(prefix=rig.DOCKER) as without:
            assert f" {made} " in said(without, "ipcs -q")
    finally:
        subprocess.run(["ipcrm", "-q", made], check=True)


def test_what_an_engine_masks_below_proc_stays_masked() -> None:
    """The control is a procfs that is mounted anew without a thought, as root may in the very container."""
    flags = "import os; print(os.statvfs('/proc/sys').f_flag & os.ST_RDONLY)"
    look = f'head -c 1 /proc/keys | wc -c; ls /proc/tty | wc -l; python3 -Ic "{flags}"'
    with rig.start(prefix=ENGINE) as tasks:
        assert said(tasks, look).split() == ["0", "0", "1"]
        assert said(tasks, "cat /proc/self/comm /proc/sys/kernel/ostype").split() == ["cat", "Linux"]
    anew = subprocess.run(
        [*ENGINE, "sh", "-c", f"mount -t proc proc /proc; {look}"], check=False, capture_output=True, text=True
    )
    terminals, read_only = anew.stdout.split()[1:]
    assert (int(terminals) > 0, read_only) == (True, "0")


@pytest.mark.parametrize(
    "script",
    [
        "exec {0}",
        "cd {1}; exec ./{2}",
        "cd {1}; exec /proc/self/cwd/{2}",
        "exec 9<{1}; exec /proc/self/fd/9/{2}",
        "exec /proc/$$/root{0}",
        "exec 9<{0}; exec /dev/fd/9",
        "exec 9<{0}; exec /proc/$$/fd/9",
        "ln -s {0} {1}/link-$$; exec {1}/link-$$",
    ],
)
def test_the_trap_finds_what_a_path_means_in_there(script: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """By whatever name: a rule on the file's own holds, and the record has it."""
    place = tmp_path_factory.mktemp("place")
    place.chmod(0o777)
    for directory in (place.parent, place.parent.parent):
        directory.chmod(0o755)
    target = place / "program"
    target.write_bytes(Path("/bin/true").read_bytes())
    target.chmod(0o755)
    words = script.format(target, place, target.name)
    with rig.start(Request(trees=[str(place)])) as tasks:
        assert tasks.sh(words).wait() == Exited(0)
        found = [event for event in tasks.events() if isinstance(event, ExecAllowed)][-1]
        assert found.resolved_path == str(target)
    rules = [ExecRule(action="deny", path=str(target)), ExecRule(action="allow", path="/usr/**")]
    with rig.start(Request(rules=rules, trees=[str(place)], enforce=True)) as tasks:
        assert tasks.sh(words).wait() == Exited(126)
        denied = [event for event in tasks.events() if isinstance(event, ExecDenied) and event.rule != "self-test"]
        assert [event.resolved_path for event in denied] == [str(target)]
