"""An exec that cannot be recorded does not happen: ENOSPC until there is room, then service and one gap that counts."""

from __future__ import annotations

from codingagents.trust.events import EventsGap
from full_disk import fill, small_disk
from trap_harness import Request, deny, every_reader, needs_root, python, start

pytestmark = needs_root

SCRIPT = """
    for line in sys.stdin:
        path, name = line.split()
        say(outcome(lambda: os.execve(path, [name], {})))
"""


@every_reader
def test_execs_wait_for_room(sys_ptrace: bool) -> None:
    with small_disk() as disk:
        request = Request(
            argv=python(SCRIPT), rules=[deny("/usr/bin/false")], log_directory=str(disk), sys_ptrace=sys_ptrace
        )
        with start(request) as running:

            def attempt(path: str, name: str) -> str:
                running.say(f"{path} {name}")
                return running.hear()

            assert attempt("/usr/bin/true", "before") == "0"
            ballast = fill(disk)
            while attempt("/usr/bin/true", "before") == "0":
                pass  # what the log's last page still holds; the first that is refused was cut off in its middle
            answers = {attempt("/usr/bin/true", "lost") for _ in range(7)}
            denied = {attempt("/usr/bin/false", "denied") for _ in range(2)}
            ballast.unlink()
            after = [attempt("/usr/bin/true", "after"), attempt("/usr/bin/false", "after")]
            outcome = running.finish()
    assert answers == {'"ENOSPC"'}
    assert denied == {'"EPERM"'}, "a denial needs no room"
    assert after == ["0", '"EPERM"']
    outcome.verify()
    gaps = [event for event in outcome.events if isinstance(event, EventsGap)]
    assert [(gap.lost, gap.lost_kinds) for gap in gaps] == [(10, {"exec.allowed": 8, "exec.denied": 2})]
    assert {event.command_args[0] for event in outcome.allowed[1:-1]} == {"before"}
    assert outcome.allowed[-1].command_args == ["after"]
    assert [event.command_args for event in outcome.denied] == [["after"]]
    assert ["denied until it can" in sentence for sentence in outcome.reply.troubles] == [True, False]
