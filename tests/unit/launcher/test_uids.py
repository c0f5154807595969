"""The choice of a session's numeric identities."""

import os
from pathlib import Path

import pytest

from codingagents.launcher import uids
from codingagents.rewrite.plan import uid_plan
from codingagents.trust.errors import ProcessError, UsageError


def test_the_start_decides_and_the_same_start_gives_the_same_base() -> None:
    """Randomness is an argument."""
    span = uids.END_BASE - uids.FIRST_BASE
    for start in (0, 7, span - 1, span, 3 * span + 5):
        assert uids.choose_base(5, start=start, taken=lambda _: False) == uids.FIRST_BASE + start % span


def test_a_taken_id_anywhere_in_the_run_moves_it_on() -> None:
    """Runs that only touch a taken ID are skipped as well."""
    assert uids.choose_base(4, start=10, taken={52013}.__contains__) == 52014
    assert uids.choose_base(4, start=10, taken={52014}.__contains__) == 52010


def test_the_search_wraps_around_and_never_leaves_the_range() -> None:
    """The last bases are tried, then the first."""
    last = uids.END_BASE - 1
    assert uids.choose_base(3, start=last - uids.FIRST_BASE, taken={last}.__contains__) == uids.FIRST_BASE
    assert uids.choose_base(2000, start=10**6, taken=lambda number: number >= 60000) < 58001


def test_a_full_range_is_an_error_with_the_remedy() -> None:
    """No base is better than a shared one."""
    with pytest.raises(ProcessError, match="--uid-base"):
        uids.choose_base(3, start=0, taken=lambda _: True)
    with pytest.raises(ProcessError):
        uids.choose_base(9000, start=0, taken=lambda _: False)


def test_the_ids_of_a_plan_are_one_run_without_gaps() -> None:
    """`choose_base` looks at a run: the plan must be one."""
    plan = uid_plan(52000, ["b", "a", "c"])
    assert uids.ids_of(plan) == list(range(52000, 52006))


def test_a_chosen_base_that_is_taken_is_refused() -> None:
    """The person chooses, the machine says what is in the way."""
    uids.check_free([1, 2], taken={3}.__contains__)
    with pytest.raises(UsageError, match="ID 3 belongs to"):
        uids.check_free([2, 3, 4], taken={3}.__contains__)


def test_ids_of_processes_are_all_kinds_of_ids(tmp_path: Path) -> None:
    """Real, effective, saved and file-system IDs and supplementary groups count."""
    (tmp_path / "17").mkdir()
    (tmp_path / "17" / "status").write_bytes(b"Name:\tUid: 9\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\nGroups:\t20 30 \n")
    (tmp_path / "18").mkdir()  # a process that ended: no status
    (tmp_path / "self").mkdir()
    assert uids.ids_of_processes(tmp_path) == {1, 2, 3, 4, 5, 6, 7, 8, 20, 30}


def test_this_machine_has_us() -> None:
    """The real /proc and the real name service answer."""
    assert os.getuid() in uids.ids_of_processes()
    assert uids.has_account(0)
    assert not uids.has_account(59_999)
