"""Whatever an image's account files hold, it stays byte by byte, and the accounts can be read in it by passwd(5)."""

from hypothesis import given
from hypothesis import strategies as st

from codingagents.rewrite.specs import UidPlan
from codingagents.supervisor.account_lines import Entry, accounts_of, add, conflict, missing, remove

WANTED = accounts_of(UidPlan(agent=52000, task=52001, workspace_gid=52002, servers={"one": 52003, "Two_2": 52004}))
_LINES = st.one_of(
    st.sampled_from([entry.line for entry in (*WANTED.passwd, *WANTED.group)]),
    st.sampled_from([b"root:x:0:0:root:/root:/bin/bash", b"+::::::", b"-nobody", b"#agentcli:x:1:1", b"a:b\r", b""]),
    st.from_regex(rb"\A[a-z]{1,3}:x:[0-9]{1,12}:[0-9]{1,3}:[^:\n]{0,5}:/[a-z]{0,4}:/bin/sh\Z"),
    st.binary(max_size=20),
)
_FILES = st.tuples(st.lists(_LINES, max_size=6).map(b"\n".join), st.sampled_from([b"", b"\n", b"\r\n"])).map(b"".join)
_ENTRIES = st.sampled_from([WANTED.passwd, WANTED.group])


def as_passwd_reads_it(data: bytes) -> dict[bytes, tuple[bytes, ...]]:
    """Return the first entry of each name, as nss_files does (passwd(5), group(5))."""
    found: dict[bytes, tuple[bytes, ...]] = {}
    for line in data.split(b"\n"):
        name, *rest = line.lstrip().split(b":")
        if name and not name.startswith((b"#", b"+", b"-")):
            found.setdefault(name, tuple(rest))
    return found


@given(_FILES, _ENTRIES)
def test_what_was_added_can_be_taken_out_again(data: bytes, wanted: tuple[Entry, ...]) -> None:
    changed, piece = add(data, wanted)
    assert remove(changed, piece) == data
    assert (piece == b"") == (changed == data)


@given(_FILES, _ENTRIES)
def test_existing_lines_stay_in_their_order(data: bytes, wanted: tuple[Entry, ...]) -> None:
    changed, _ = add(data, wanted)
    ours = {entry.line for entry in missing(data, wanted)}
    assert [line for line in changed.split(b"\n") if line not in ours and line] == list(filter(None, data.split(b"\n")))


@given(_FILES, _ENTRIES)
def test_all_are_read_as_they_were_meant_and_others_as_before(data: bytes, wanted: tuple[Entry, ...]) -> None:
    before, after = as_passwd_reads_it(data), as_passwd_reads_it(add(data, wanted)[0])
    assert {name: after[name] for name in before} == before
    for entry in missing(data, wanted):
        assert after[entry.name.encode()] == tuple(entry.line.split(b":")[1:])
    if not conflict(data, wanted):
        assert all(int(after[entry.name.encode()][1]) == entry.number for entry in wanted)


@given(_FILES, _ENTRIES)
def test_adding_twice_is_adding_once(data: bytes, wanted: tuple[Entry, ...]) -> None:
    changed, _ = add(data, wanted)
    assert add(changed, wanted) == (changed, b"")
    assert remove(changed, b"") == changed


@given(_FILES, _ENTRIES, st.binary(max_size=20))
def test_what_was_written_behind_them_stays(data: bytes, wanted: tuple[Entry, ...], later: bytes) -> None:
    changed, piece = add(data, wanted)
    assert remove(changed + b"\n" + later, piece) == data + b"\n" + later


@given(_FILES, _ENTRIES, st.binary(min_size=1, max_size=60))
def test_nothing_of_others_is_taken_out_of_any_file(data: bytes, wanted: tuple[Entry, ...], other: bytes) -> None:
    _, piece = add(data, wanted)
    ours = set(piece.split(b"\n"))
    kept = [line for line in other.split(b"\n") if line not in ours]
    assert [line for line in remove(other, piece).split(b"\n") if line not in ours] == kept
