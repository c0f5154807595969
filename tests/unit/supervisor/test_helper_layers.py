"""What is observed of a helper decides its rows; what the helper says stays marked as said by it."""

import os
from dataclasses import replace

import pytest

from codingagents.supervisor.helper_layers import look
from codingagents.supervisor.helper_rows import Seen, contradicted, observed_rows, report
from codingagents.trust.events import Layer
from codingagents.trust.facts import Ready
from keeper_scene import confined

UID = 58011
FDS = ["0 /dev/null", "1 /dev/null", "2 /dev/null", "3 socket:[7]", "4 socket:[8]"]
CONFINED = confined(UID, FDS)


def states(seen: Seen) -> dict[str, str]:
    return {row.layer: row.state for row in observed_rows(seen, UID, FDS)}


def test_a_confined_helper_is_enforced_throughout() -> None:
    rows = observed_rows(CONFINED, UID, FDS)
    assert [row.layer for row in rows] == [
        "uid_drop", "capabilities", "no_new_privs", "seccomp", "non_dumpable", "rlimits", "descriptors",
    ]  # fmt: skip
    assert {(row.state, row.observed_by, row.why, row.consequence) for row in rows} == {
        ("enforced", "observed", "", "")
    }
    assert rows[3].probe == "/proc/PID/status: Seccomp 2, Seccomp_filters 1"


@pytest.mark.parametrize(
    ("layer", "changes"),
    [
        ("uid_drop", {"Uid": f"{UID}\t{UID}\t0\t{UID}"}),
        ("uid_drop", {"Gid": f"0\t{UID}\t{UID}\t{UID}"}),
        ("uid_drop", {"Groups": "0 27"}),
        ("capabilities", {"CapPrm": "0000000000000080"}),
        ("capabilities", {"CapInh": "00000000a80425fb"}),
        ("no_new_privs", {"NoNewPrivs": "0"}),
        ("seccomp", {"Seccomp": "0"}),
    ],
)
def test_each_field_that_is_not_as_it_must_be_shows(layer: str, changes: dict[str, str]) -> None:
    found = states(replace(CONFINED, status={**CONFINED.status, **changes}))
    assert {name for name, state in found.items() if state != "enforced"} == {layer}


@pytest.mark.parametrize("field", ["Uid", "Gid", "Groups", "CapPrm", "NoNewPrivs", "Seccomp"])
def test_a_field_that_is_not_there_does_not_pass(field: str) -> None:
    status = {name: value for name, value in CONFINED.status.items() if name != field}
    assert "unavailable" in states(replace(CONFINED, status=status)).values()


def test_a_bounding_set_alone_is_no_capability() -> None:
    status = {**CONFINED.status, "CapBnd": "000001ffffffffff"}
    assert set(states(replace(CONFINED, status=status)).values()) == {"enforced"}


def test_memory_limits_and_descriptors_that_are_not_as_they_must_be_show() -> None:
    assert states(replace(CONFINED, memory_owner=UID))["non_dumpable"] == "unavailable"
    limits = {"Max core file size": "unlimited", "Max file size": "0", "Max locked memory": "0"}
    assert states(replace(CONFINED, limits=limits))["rlimits"] == "unavailable"


@pytest.mark.parametrize(
    ("found", "reported", "state"),
    [
        ([*FDS, "5 socket:[9]"], FDS, "enforced"),  # its first client came meanwhile
        (FDS[:4], FDS, "unavailable"),
        ([*FDS[:4], "4 socket:[9]"], FDS, "unavailable"),
        ([*FDS, "5 /etc/shadow"], FDS, "unavailable"),
        ([*FDS, "5 /etc/shadow"], [*FDS, "5 /etc/shadow"], "unavailable"),
    ],
)
def test_a_listing_is_what_was_reported_and_holds_no_file(found: list[str], reported: list[str], state: str) -> None:
    rows = observed_rows(replace(CONFINED, descriptors=found), UID, reported)
    assert rows[-1].layer == "descriptors"
    assert rows[-1].state == state


def test_what_the_supervisor_may_not_see_has_no_row() -> None:
    assert "descriptors" not in states(replace(CONFINED, descriptors=None))


def test_a_row_that_fails_says_what_follows() -> None:
    row = observed_rows(replace(CONFINED, memory_owner=UID), UID, FDS)[4]
    assert (row.layer, row.probe) == ("non_dumpable", f"stat /proc/PID/mem: owner {UID}")
    assert row.why
    assert row.consequence
    assert row.remedy


@pytest.mark.parametrize(
    ("changes", "layers"),
    [
        ({}, []),
        ({"Uid": "0 0 0 0", "CapEff": "000001ffffffffff"}, ["uid_drop", "capabilities"]),
        ({"NoNewPrivs": "0"}, ["no_new_privs"]),
        ({"Seccomp": "1"}, ["seccomp"]),
    ],
)
def test_what_it_cannot_serve_without_is_named(changes: dict[str, str], layers: list[str]) -> None:
    seen = replace(CONFINED, status={**CONFINED.status, **changes})
    assert contradicted(report(Ready(open_fds=FDS), seen, UID)) == layers


def test_what_comes_and_goes_is_no_proof_against_it() -> None:
    """A file that it opens to resolve a name, or limits that some machines do not give."""
    seen = replace(CONFINED, descriptors=[*FDS, "5 /etc/hosts"], limits={})
    assert [row.layer for row in observed_rows(seen, UID, FDS) if row.state != "enforced"] == ["rlimits", "descriptors"]
    assert contradicted(observed_rows(seen, UID, FDS)) == []
    assert contradicted(observed_rows(replace(seen, memory_owner=UID), UID, FDS)) == ["non_dumpable"]


def test_what_it_says_of_itself_is_its_own_to_judge() -> None:
    """It ends by itself where it must: `tls_pins` may be required, off, and served all the same."""
    said = Layer(
        layer="tls_pins", wanted="require", state="disabled", mechanism="m", probe="p", observed_by="self-reported"
    )
    assert contradicted(report(Ready(open_fds=FDS, layers=[said]), CONFINED, UID)) == []


def test_a_helper_cannot_call_its_own_word_an_observation() -> None:
    claim = Layer(layer="seccomp", wanted="require", state="enforced", mechanism="m", probe="p", observed_by="observed")
    rows = report(Ready(open_fds=[], layers=[claim]), look(os.getpid()), UID)
    assert rows[0].observed_by == "self-reported"
    assert {row.observed_by for row in rows[1:]} == {"observed"}
    assert len(rows) > 5


def test_this_process_is_seen_as_it_is() -> None:
    seen = look(os.getpid())
    assert seen is not None
    rows = {row.layer: row for row in observed_rows(seen, UID, ["0 what it is not"])}
    assert rows["uid_drop"].state == "unavailable"
    assert rows["descriptors"].state == "unavailable"
    assert "Max core file size" in rows["rlimits"].probe


def test_a_helper_that_has_ended_is_not_seen() -> None:
    """Also one that was not reaped: its descriptors are closed already, and are no proof of anything."""
    assert look(2**22 + 1) is None
    pid = os.posix_spawn("/bin/true", ["true"], {})
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert look(pid) is None
    os.waitpid(pid, 0)
    assert report(Ready(open_fds=[]), None, UID) == []
