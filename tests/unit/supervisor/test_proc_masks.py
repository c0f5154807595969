"""What an engine has mounted below /proc is found, as it is seen, and nothing else."""

from codingagents.supervisor.proc_masks import MS_RDONLY, Repeated, repeated

# Of a container of Docker, shortened; 25 hides nothing.
MOUNTINFO = b"""\
20 1 0:30 / / rw,relatime - overlay overlay rw
21 20 0:40 / /proc rw,nosuid,nodev,noexec,relatime - proc proc rw
22 21 0:40 /sys /proc/sys ro,nosuid,nodev,noexec,relatime - proc proc rw
23 21 0:41 /null /proc/kcore rw,nosuid - tmpfs tmpfs rw
24 21 0:42 / /proc/acpi ro,relatime - tmpfs tmpfs ro
25 22 0:43 / /proc/sys/fs/binfmt_misc rw,relatime - autofs systemd-1 rw
27 20 0:44 / /process rw - tmpfs tmpfs rw
"""


def test_read_only_parts_and_covers_are_repeated_outer_ones_first() -> None:
    assert repeated(MOUNTINFO) == (
        Repeated(b"/proc/sys", of_proc=True, read_only=MS_RDONLY),
        Repeated(b"/proc/acpi", of_proc=False, read_only=MS_RDONLY),
        Repeated(b"/proc/kcore", of_proc=False, read_only=0),
    )


def test_without_an_engine_there_is_nothing_to_repeat() -> None:
    lines = MOUNTINFO.splitlines(keepends=True)
    assert repeated(lines[0] + lines[1] + lines[-1]) == ()
