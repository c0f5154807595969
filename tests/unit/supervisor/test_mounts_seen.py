"""What stands where the session's directories are to be, from lines that a kernel wrote and lines that none would."""

import pytest

import documents
from codingagents.supervisor import mounts_seen
from codingagents.supervisor.mounts_seen import WANTED, Place, mount_at, parse_mountinfo, place_of

ROOT = "27 1 254:0 / / rw,relatime - ext4 /dev/vda rw"
RUN = "30 27 0:30 / /run rw,nosuid - tmpfs none rw"
SECRETS = "40 27 0:40 / /run/agent-secrets rw,nosuid,nodev,noexec,relatime unbindable - tmpfs coding-agents rw,mode=700"
WANTED_SECRETS = WANTED[1]


def at(path: str, *lines: str) -> int | None:
    found = mount_at(parse_mountinfo("\n".join(lines).encode()), path)
    return None if found is None else found.id


def secrets(line: str, *, ours: bool = False, owner: int = 0, mode: int = 0o700) -> Place:
    (mount,) = parse_mountinfo(line.encode())
    return place_of(WANTED_SECRETS, mount, ours=ours, owner=owner, mode=mode)


def test_a_line_is_read_with_its_escapes_and_optional_fields() -> None:
    line = rb"36 35 98:0 /mnt1 /a\040b\134c\012 rw,noatime master:1 shared:2 new:3 - ext3 /dev/root rw,errors=continue"
    (mount,) = parse_mountinfo(line)
    assert (mount.id, mount.parent, mount.target) == (36, 35, b"/a b\\c\n")
    assert mount.options == {b"rw", b"noatime"}
    assert mount.propagation == frozenset((b"master", b"shared", b"new"))
    assert (mount.kind, mount.super_options) == (b"ext3", frozenset((b"rw", b"errors=continue")))


def test_an_empty_source_is_no_field_less() -> None:
    """The kernel writes a mount without a source with two spaces."""
    (mount,) = parse_mountinfo(b"40 27 0:40 / /x rw - tmpfs  rw")
    assert (mount.kind, mount.super_options) == (b"tmpfs", frozenset((b"rw",)))


@pytest.mark.parametrize(
    "line", ["", "27 1 254:0 / / rw", "x 1 254:0 / / rw - ext4 d rw", "27 1 254:0 / / - ext4 d rw", "1 2 - a"]
)
def test_what_is_no_line_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match=r"proc\(5\)"):
        parse_mountinfo(f"{line}\n".encode())


def test_there_is_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mounts_seen, "MAX_MOUNTINFO", len(ROOT))
    assert parse_mountinfo(ROOT.encode())
    with pytest.raises(ValueError, match="bytes of mounts"):
        parse_mountinfo(ROOT.encode() + b" ")


def test_a_mount_is_found_at_its_place_only() -> None:
    lines = (ROOT, RUN, "40 30 0:40 / /run/agent-secrets rw - tmpfs t rw")
    assert at("/run/agent-secrets", *lines) == 40
    assert at("/run/agent-secrets/below", *lines) is None
    assert at("/run/agent-secrets-too", *lines) is None
    assert at("/run", *lines) == 30
    assert at("/run/agent-data", *lines) is None


def test_a_later_mount_hides_the_one_at_its_place() -> None:
    again = "41 40 0:41 / /run/agent-secrets rw - ext4 d rw"
    assert at("/run/agent-secrets", ROOT, SECRETS, again) == 41
    assert at("/run/agent-secrets", ROOT, again, SECRETS) == 41, "whatever the order of the lines"


def test_a_later_mount_hides_what_is_below_its_place() -> None:
    assert at("/run/agent-secrets", ROOT, SECRETS) == 40
    assert at("/run/agent-secrets", ROOT, SECRETS, RUN) is None
    again = "42 30 0:42 / /run/agent-secrets rw - tmpfs t rw"
    assert at("/run/agent-secrets", ROOT, SECRETS, RUN, again) == 42


def test_without_a_mount_on_the_root_what_can_be_seen_still_is() -> None:
    """As after chroot(2) to a directory that is no mount point."""
    assert at("/run/agent-secrets", SECRETS) == 40


def test_lines_that_go_round_in_circles_end() -> None:
    assert at("/run/agent-secrets", SECRETS.replace("40 27", "40 40")) is None


def test_a_tmpfs_as_it_should_be_has_no_fault() -> None:
    assert secrets(SECRETS, ours=True) == Place(path="/run/agent-secrets", kind="ours")
    assert secrets(SECRETS.replace(" unbindable", "")) == Place(path="/run/agent-secrets", kind="engine")
    assert place_of(WANTED_SECRETS, None, ours=False, owner=0, mode=0o700).kind == "plain"


def test_each_fault_has_its_words() -> None:
    line = SECRETS.replace("nosuid,nodev,noexec,", "").replace("unbindable", "shared:7").replace("tmpfs", "ext4")
    assert secrets(line, ours=True, owner=1000, mode=0o755).faults == (
        "ext4 instead of tmpfs",
        "not nosuid",
        "not nodev",
        "not noexec",
        "owner 1000",
        "mode 0755 instead of 0700",
        "shared",
        "not unbindable",
    )


def test_what_engines_are_told_is_what_is_looked_for() -> None:
    assert WANTED_SECRETS.engine_options == "nosuid,nodev,noexec,mode=0700,size=16m"
    assert WANTED[0].engine_options == "nosuid,nodev,exec,mode=0755,size=1024m"


def test_the_flags_that_the_guide_tells_to_copy_are_those_that_are_looked_for() -> None:
    guide = documents.read("configuration.md")
    for wanted in WANTED:
        assert f"\n--tmpfs {wanted.path}:{wanted.engine_options}\n" in guide
