"""Lines of mountinfo: whatever a mount point is called, it is found; whatever the lines are, there is an answer."""

from hypothesis import given
from hypothesis import strategies as st

from codingagents.supervisor.mounts_seen import MAX_MOUNTINFO, mount_at, parse_mountinfo

_ESCAPED = b" \t\n\\#"
_NUMBERS = st.integers(1, 6)
_PATHS = st.sampled_from(["/", "/run", "/run/a", "/run/a/b", "/tmp"])


def escaped(path: bytes) -> bytes:
    """Return a path as the kernel writes it (fs/proc_namespace.c, mangle)."""
    return b"".join(b"\\%03o" % byte if byte in _ESCAPED else bytes([byte]) for byte in path)


@given(st.text(st.characters(exclude_characters="\0/", codec="utf-8"), min_size=1))
def test_a_mount_point_of_any_name_is_found(name: str) -> None:
    path = f"/mnt/{name}"
    line = b"1 2 0:1 / " + escaped(path.encode()) + b" rw - tmpfs none rw\n"
    found = mount_at(parse_mountinfo(line), path)
    assert found is not None
    assert found.target == path.encode()


@given(st.lists(st.tuples(_NUMBERS, _NUMBERS, _PATHS), max_size=8), _PATHS)
def test_whatever_is_mounted_on_what_the_answer_lies_at_the_path(lines: list[tuple[int, int, str]], path: str) -> None:
    text = "".join(f"{number} {parent} 0:1 / {at} rw - tmpfs none rw\n" for number, parent, at in lines)
    found = mount_at(parse_mountinfo(text.encode()), path)
    assert found is None or found.target == path.encode()


@given(st.binary(max_size=200))
def test_any_bytes_are_lines_or_refused(data: bytes) -> None:
    assert len(data) <= MAX_MOUNTINFO
    try:
        parse_mountinfo(data)
    except ValueError as error:
        assert "proc(5)" in str(error)  # noqa: PT017 -- most of them are none
