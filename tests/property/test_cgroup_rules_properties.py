"""Whatever the kernel shows of control groups, what is found is below a mount of the right kind."""

from hypothesis import given
from hypothesis import strategies as st

from codingagents.supervisor import cgroup_rules
from codingagents.supervisor.cgroup_rules import Hierarchy

PARTS = st.lists(st.from_regex(r"[a-z.:@ -]{1,6}", fullmatch=True).filter(lambda part: part != ".."), max_size=4)
PATHS = PARTS.map(lambda parts: "/" + "/".join(parts))


def escaped(path: str) -> str:
    return path.replace(" ", "\\040")


@given(own=st.text(max_size=60), mounts=st.text(max_size=200))
def test_nothing_that_is_read_is_an_error(own: str, mounts: str) -> None:
    for controller in ("memory", "pids"):
        cgroup_rules.hierarchy(controller, cgroup_rules.own_groups(own), mounts)


@given(root=PATHS, below=PARTS, point=PATHS, version=st.sampled_from([1, 2]))
def test_our_own_group_is_where_its_path_continues_below_the_mount(
    root: str, below: list[str], point: str, version: int
) -> None:
    path = "/".join([root.rstrip("/"), *below]) or "/"
    own = f"7:pids:{path}\n0::/elsewhere\n" if version == 1 else f"0::{path}\n"
    kind = "cgroup cgroup rw,pids" if version == 1 else "cgroup2 cgroup2 rw"
    mounts = f"9 8 0:1 {escaped(root)} {escaped(point)} rw,relatime - {kind}\n"
    directory = "/".join([point.rstrip("/"), *below])
    found = cgroup_rules.hierarchy("pids", cgroup_rules.own_groups(own), mounts)
    assert found == Hierarchy(version, directory, path == "/")


@given(path=PATHS, root=PATHS)
def test_a_group_that_is_not_below_what_is_mounted_is_not_found(path: str, root: str) -> None:
    mounts = f"9 8 0:1 {escaped(root)} /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
    found = cgroup_rules.hierarchy("pids", {"": path}, mounts)
    assert (found is None) == (root not in ("/", path) and not path.startswith(f"{root}/"))
