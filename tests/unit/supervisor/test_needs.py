"""What a session refuses to start without."""

import pytest

from codingagents.supervisor.needs import unmet_needs

DOCKER_DEFAULT = 0xA80425FB  # Docker's 14 capabilities
SETUID_SETGID = 1 << 7 | 1 << 6


@pytest.mark.parametrize("effective", [DOCKER_DEFAULT, SETUID_SETGID, (1 << 41) - 1])
def test_root_with_what_docker_gives_by_default_or_less_can_run_a_session(effective: int) -> None:
    assert unmet_needs(0, effective) == ""


@pytest.mark.parametrize(
    ("effective", "flags"),
    [
        (DOCKER_DEFAULT & ~SETUID_SETGID, "--cap-add SETGID --cap-add SETUID"),
        (DOCKER_DEFAULT & ~(1 << 7), "--cap-add SETUID"),
        (0, "--cap-add SETGID --cap-add SETUID"),
    ],
)
def test_every_missing_capability_is_named_by_its_flag(effective: int, flags: str) -> None:
    assert unmet_needs(0, effective).endswith(f"comes by {flags}")


def test_another_user_than_root_is_told_so_and_of_no_capability() -> None:
    sentence = unmet_needs(1000, (1 << 41) - 1)
    assert "root" in sentence
    assert "--cap-add" not in sentence
