"""Acts are tried where they leave no mark, and limits come back from being tried as they were put on."""

import errno
import os
import resource
from collections.abc import Callable

import pytest

from codingagents.rewrite.specs import RoleLimits
from codingagents.supervisor import attempts, role_limits
from codingagents.supervisor.confine_spec import Observation


def fails(error: Exception) -> Callable[[], None]:
    def act() -> None:
        raise error

    return act


@pytest.mark.parametrize(
    ("act", "outcome"),
    [
        (lambda: None, "succeeded"),
        (fails(OSError(errno.EPERM, "")), "EPERM"),
        (fails(OSError("of no errno")), "255"),
        (fails(RuntimeError("a bug")), "255"),
        (lambda: os.kill(os.getpid(), 9), "-9"),
    ],
)
def test_the_outcome_of_a_child_is_known_and_the_child_is_gone(act: Callable[[], object], outcome: str) -> None:
    assert attempts.in_child(act) == outcome
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)


def test_what_marks_a_process_marks_a_child_only() -> None:
    before = os.readlink("/proc/self/ns/user")
    assert set(attempts.outcomes(attempts.USER_NAMESPACES)) == set(attempts.USER_NAMESPACES)
    assert os.readlink("/proc/self/ns/user") == before


def test_each_act_is_tried_again_and_shown_beside_its_control() -> None:
    answers = iter(["ENOTTY", "EPERM"])
    acts = {"an act": lambda: next(answers)}
    before = attempts.outcomes(acts)
    assert attempts.compared("userns", acts, before) == [
        Observation(layer="userns", act="an act", control="ENOTTY", outcome="EPERM")
    ]


def test_limits_hold_after_they_were_tried_and_are_never_above_what_was_there() -> None:
    def act() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (100, 200))
        tried = role_limits.put_on(RoleLimits(processes=3000, memory=1 << 40, open_files=500))
        assert {seen.act.split()[0] for seen in tried} == {
            *("RLIMIT_CORE", "RLIMIT_NPROC", "RLIMIT_AS", "RLIMIT_NOFILE"),
            *("fork", "mmap", "open"),
        }
        assert resource.getrlimit(resource.RLIMIT_CORE) == (0, 0)
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (200, 200)
        assert resource.getrlimit(resource.RLIMIT_AS) == (1 << 40, 1 << 40)
        assert resource.getrlimit(resource.RLIMIT_NPROC)[0] <= 3000

    assert attempts.in_child(act) == "succeeded"
