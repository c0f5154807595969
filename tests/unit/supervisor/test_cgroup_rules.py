"""Where a control group can be, from what the kernel says in three kinds of places."""

import pytest

from codingagents.rewrite.specs import TaskTotals
from codingagents.supervisor import cgroup_rules
from codingagents.supervisor.cgroup_rules import Controller, Hierarchy

VERSION_1 = "9:name=systemd:/\n8:pids:/docker/ab\n4:cpu,memory:/docker/ab\n0::/\n"
MOUNTS_1 = """\
24 22 0:29 / /sys/fs/cgroup rw - tmpfs tmpfs rw
32 31 0:30 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids
33 31 0:31 / /sys/fs/cgroup/cpu,memory rw,relatime shared:9 - cgroup cgroup rw,cpu,memory
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
"""
# In a container without a control group namespace, only what is below its own group is mounted.
MOUNTS_BOUND = "32 31 0:30 /docker/ab /sys/fs/cgroup/pids ro - cgroup cgroup rw,pids\n"
VERSION_2 = "0::/\n"
MOUNTS_2 = "30 23 0:26 / /sys/fs/cgroup\\040x rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
PIDS_1 = Hierarchy(1, "/sys/fs/cgroup/pids/docker/ab", is_root=False)


@pytest.mark.parametrize(
    ("controller", "own", "mounts", "found"),
    [
        ("pids", VERSION_1, MOUNTS_1, PIDS_1),
        ("memory", VERSION_1, MOUNTS_1, Hierarchy(1, "/sys/fs/cgroup/cpu,memory/docker/ab", is_root=False)),
        ("pids", VERSION_1, MOUNTS_BOUND, Hierarchy(1, "/sys/fs/cgroup/pids", is_root=False)),
        ("memory", VERSION_1, MOUNTS_BOUND, None),
        ("io", VERSION_1, MOUNTS_1, Hierarchy(2, "/sys/fs/cgroup/unified", is_root=True)),
        ("pids", VERSION_2, MOUNTS_2, Hierarchy(2, "/sys/fs/cgroup x", is_root=True)),
        ("pids", "0::/a/b\n", MOUNTS_2, Hierarchy(2, "/sys/fs/cgroup x/a/b", is_root=False)),
        ("pids", "0::/../b\n", MOUNTS_2, None),
        ("pids", "0::/ab\n", MOUNTS_2.replace("0:26 /", "0:26 /a"), None),
        ("pids", "0::/a/b\n", MOUNTS_2.replace("0:26 /", "0:26 /a"), Hierarchy(2, "/sys/fs/cgroup x/b", is_root=False)),
        ("pids", "0::/a:b\n", MOUNTS_2, Hierarchy(2, "/sys/fs/cgroup x/a:b", is_root=False)),
        ("pids", VERSION_2, "", None),
        ("pids", "", MOUNTS_2, None),
        ("pids", "nonsense", "nonsense\n\n", None),
        ("pids", VERSION_2, "nonsense\n\n0 - cgroup2\n" + MOUNTS_2, Hierarchy(2, "/sys/fs/cgroup x", is_root=True)),
    ],
)
def test_our_own_group_is_found_in_the_hierarchy_of_a_controller(
    controller: Controller, own: str, mounts: str, found: Hierarchy | None
) -> None:
    assert cgroup_rules.hierarchy(controller, cgroup_rules.own_groups(own), mounts) == found


@pytest.mark.parametrize(
    ("controller", "version", "totals", "written"),
    [
        ("pids", 1, TaskTotals(processes=40), [("pids.max", "40")]),
        ("pids", 2, TaskTotals(memory=1, processes=40), [("pids.max", "40")]),
        (
            *("memory", 1, TaskTotals(memory=99)),
            [("memory.limit_in_bytes", "99"), ("memory.memsw.limit_in_bytes", "99")],
        ),
        ("memory", 2, TaskTotals(memory=99), [("memory.max", "99"), ("memory.swap.max", "0")]),
        ("memory", 2, TaskTotals(processes=1), []),
        ("pids", 1, TaskTotals(), []),
    ],
)
def test_what_is_written_is_of_the_version(
    controller: Controller, version: int, totals: TaskTotals, written: list[tuple[str, str]]
) -> None:
    assert cgroup_rules.settings(controller, version, totals) == written


def test_only_what_counts_swap_may_be_missing() -> None:
    both = [cgroup_rules.settings("memory", version, TaskTotals(memory=1)) for version in (1, 2)]
    assert {settings[1][0] for settings in both} == cgroup_rules.OPTIONAL


def test_each_session_has_a_group_of_its_own() -> None:
    assert cgroup_rules.group_name("abc") == "coding-agents-tasks-abc"
