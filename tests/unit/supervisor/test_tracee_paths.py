"""Where a path leads for another process: links, dots, and the links of procfs that mean whoever reads them."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from codingagents.supervisor import kernel
from codingagents.supervisor.programs import local_mounts
from codingagents.supervisor.tracee_paths import FileTree, NamelessError, proc_mounts, resolve

PROCS = proc_mounts()


def leads_to(path: str | Path, pid: int | None = None) -> str | None:
    found = resolve(os.getpid() if pid is None else pid, os.fsencode(path), PROCS)
    return None if found is None else os.fsdecode(found)


@contextmanager
def other_process(*, cwd: Path, descriptor: int) -> Iterator[int]:
    """Another process with a working directory and an open file of its own."""
    with subprocess.Popen(["sleep", "60"], cwd=cwd, pass_fds=[descriptor]) as process:
        try:
            yield process.pid
        finally:
            process.kill()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path.resolve()
    (root / "a/b").mkdir(parents=True)
    (root / "a/b/file").touch()
    (root / "relative").symlink_to("a/b")
    (root / "absolute").symlink_to(root / "a/b")
    (root / "a/up").symlink_to("../a/b/file")
    (root / "chain").symlink_to("relative")
    (root / "dangling").symlink_to("nowhere")
    (root / "loop").symlink_to("loop")
    return root


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("a/b/file", "a/b/file"),
        ("a//b/./file", "a/b/file"),
        ("a/b/../b/file", "a/b/file"),
        ("relative/file", "a/b/file"),
        ("absolute/file", "a/b/file"),
        ("chain/file", "a/b/file"),
        ("a/up", "a/b/file"),
        ("relative/..", "a"),  # of where the link leads
        ("relative/../b/file", "a/b/file"),
        ("", ""),
        ("dangling", None),
        ("none/file", None),
        ("a/b/file/more", None),
    ],
)
def test_links_and_dots_are_followed_as_the_kernel_does(tree: Path, path: str, expected: str | None) -> None:
    assert leads_to(f"{tree}/{path}") == (None if expected is None else str(tree / expected))


def test_dots_do_not_climb_above_the_root() -> None:
    assert leads_to("/../../../usr/../") == "/"


def test_what_the_walk_cannot_end_is_an_error_and_not_nothing(tree: Path) -> None:
    """The kernel's own walk, from a deeper start, might end."""
    with pytest.raises(OSError, match="Too many levels of symbolic links"):
        leads_to(tree / "loop")
    with pytest.raises(OSError, match="File name too long"):
        leads_to("/" + "x" * 300)
    (tree / "chain0").symlink_to("a/b/file")
    for number in range(1, 50):
        (tree / f"chain{number}").symlink_to(f"chain{number - 1}")
    assert leads_to(tree / "chain39") == str(tree / "a/b/file")
    with pytest.raises(OSError, match="Too many levels"):
        leads_to(tree / "chain40")
    assert not (tree / "chain40").exists(), "the kernel has the same limit"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may look everywhere")
def test_where_we_may_not_look_nothing_is_found(tree: Path) -> None:
    (tree / "a").chmod(0)
    assert leads_to(tree / "a/b/file") is None


def test_procfs_is_read_for_the_process_that_asks(tree: Path) -> None:
    descriptor = os.open(tree / "a/b/file", os.O_RDONLY)
    (tree / "to-fd").symlink_to(f"/proc/self/fd/{descriptor}")
    (tree / "to-self").symlink_to("/proc/self")
    program = os.path.realpath("/usr/bin/sleep")
    with other_process(cwd=tree / "a", descriptor=descriptor) as pid:
        os.close(descriptor)  # so that the number means nothing here
        paths = {
            f"/proc/self/fd/{descriptor}": str(tree / "a/b/file"),
            f"/proc/{pid}/fd/{descriptor}": str(tree / "a/b/file"),
            f"/proc/thread-self/fd/{descriptor}": str(tree / "a/b/file"),
            f"/proc/self/task/{pid}/fd/{descriptor}": str(tree / "a/b/file"),
            f"/dev/fd/{descriptor}": str(tree / "a/b/file"),
            f"{tree}/to-fd": str(tree / "a/b/file"),
            f"{tree}/to-self/fd/{descriptor}": str(tree / "a/b/file"),
            "/proc/self/cwd/b/file": str(tree / "a/b/file"),
            "/proc/self/cwd/..": str(tree),
            "/proc/self/root/usr/bin": os.path.realpath("/usr/bin"),
            "/proc/self/exe": program,
            "/proc/mounts": f"/proc/{pid}/mounts",
            "/proc/net": f"/proc/{pid}/net",
            "/proc/self/fd/99": None,
        }
        assert {path: leads_to(path, pid) for path in paths} == paths


def test_a_process_that_procfs_does_not_show_is_not_taken_for_none(tree: Path) -> None:
    """With `hidepid` one in a user namespace of the role's is there for the role, and not for us."""
    (tree / "to-nobody").symlink_to("/proc/4194305/root/usr/bin/false")  # above the highest number of a process
    for path in ("/proc/4194305/root/usr/bin/false", "/proc/4194305", tree / "to-nobody"):
        with pytest.raises(NamelessError, match="does not show"):
            leads_to(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may look everywhere")
def test_what_procfs_keeps_from_us_is_not_taken_for_nothing() -> None:
    with pytest.raises(NamelessError, match="does not show"):
        leads_to("/proc/1/root/usr/bin/false")


@pytest.mark.parametrize("kind", ["pipe", "memfd", "deleted", "replaced"])
def test_a_file_without_a_name_has_none(tree: Path, kind: str) -> None:
    path = tree / "victim"
    path.touch()
    match kind:
        case "pipe":
            descriptor, other = os.pipe()
            os.close(other)
        case "memfd":
            descriptor = os.memfd_create("x")
        case _:
            descriptor = os.open(path, os.O_RDONLY)
            path.unlink()
            if kind == "replaced":
                (tree / "victim (deleted)").touch()
    with pytest.raises(NamelessError, match="has no path"):
        leads_to(f"/proc/self/fd/{descriptor}")
    os.close(descriptor)


def test_a_moved_file_has_its_new_name(tree: Path) -> None:
    descriptor = os.open(tree / "a/b/file", os.O_RDONLY)
    (tree / "a/b/file").rename(tree / "moved")
    assert leads_to(f"/proc/self/fd/{descriptor}") == str(tree / "moved")
    os.close(descriptor)


@pytest.mark.parametrize("link", ["self", "self/task/..", "thread-self/../..", "thread-self/../../../self"])
def test_dots_lead_out_of_procfs_links_as_far_as_the_kernel_goes(link: str) -> None:
    """Taken one directory too far, a program is taken for nothing, which no rule denies."""
    path = f"/proc/{link}/root/usr/bin/env"
    assert os.path.samefile(path, "/usr/bin/env"), "the control: so the kernel has it"
    assert leads_to(path) == os.path.realpath("/usr/bin/env")


def test_procfs_is_found_wherever_it_is_mounted() -> None:
    assert b"/proc/" in proc_mounts()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_procfs_below_any_name_is_found_and_its_links_are_the_tracees(tmp_path: Path) -> None:
    """Taken for another file system, its links would be followed as ours: another file than what the tracee runs."""
    place = tmp_path / "a b\r-\rext4\r"
    place.mkdir()
    if subprocess.run(["mount", "-t", "proc", "proc", place], check=False, capture_output=True).returncode:
        pytest.skip("no procfs can be mounted here")
    try:
        procs = proc_mounts()
        mount = kernel.statx(bytes(place)).mount
        assert mount not in local_mounts()
    finally:
        subprocess.run(["umount", place], check=True)
    assert bytes(place) + b"/" in procs


def test_a_process_of_the_same_container_sees_the_same_tree(tree: Path) -> None:
    ours = FileTree.of_us()
    descriptor = os.open("/dev/null", os.O_RDONLY)
    with other_process(cwd=tree, descriptor=descriptor) as pid:
        assert ours.is_of(pid)
        assert FileTree.copied_by(pid) == ours
    os.close(descriptor)
    assert not FileTree(ours.device, ours.inode, ours.mount + 1).is_of(os.getpid())
    assert not FileTree(ours.device, ours.inode + 1, ours.mount).is_of(os.getpid())
