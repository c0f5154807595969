"""The walk of our own ends where the kernel's ends, in any thicket of links."""

import errno
import os
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from codingagents.supervisor.tracee_paths import resolve

NAMES = ("a", "b", "c", "d")
parts = st.sampled_from([*NAMES, *NAMES, "..", ".", ""])
relative = st.lists(parts, min_size=1, max_size=6).map("/".join)
# A tree of nested directories in which some names are links: (where, name, target, whether it is absolute).
links = st.lists(
    st.tuples(st.sampled_from(["", "a", "a/b"]), st.sampled_from(NAMES), relative, st.booleans()), max_size=6
)


@settings(max_examples=150)
@given(links, st.lists(relative, min_size=1, max_size=5))
def test_it_leads_where_the_kernel_leads(made: list[tuple[str, str, str, bool]], paths: list[str]) -> None:
    with tempfile.TemporaryDirectory() as name:
        top = Path(name).resolve()
        (top / "a/b").mkdir(parents=True)
        (top / "a/b/c").touch()
        for where, link, target, absolute in made:
            if not os.path.lexists(top / where / link):
                (top / where / link).symlink_to(f"{top}/{target}" if absolute else target or ".")
        for path in paths:
            full = f"{top}/{path}"
            kernels, ours = kernels_answer(full), outcome(full)
            if isinstance(kernels, str):
                assert ours == kernels
            else:
                # A slash or dot after a file is ENOTDIR to the kernel; that the walk names the file does no harm.
                assert not isinstance(ours, str) or kernels == errno.ENOTDIR


def kernels_answer(path: str) -> str | int | None:
    try:
        os.stat(path)
        return os.path.realpath(path, strict=True)
    except OSError as error:
        return error.errno


def outcome(path: str) -> str | OSError | None:
    try:
        found = resolve(os.getpid(), path.encode(), (b"/proc/",))
    except OSError as error:
        return error
    return None if found is None else found.decode()
