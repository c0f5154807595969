"""The path is swapped while its exec is being decided: what the trap was shown is not what the kernel reads afterwards.

The trap alone loses that race, which is why it is never called firm; with Landlock below it, nothing outside the trees
ran in all tries.
"""

from __future__ import annotations

from trap_harness import Request, copy_program, deny, every_reader, needs_root, python, run, shared_directory

pytestmark = needs_root

TRIES = 300
# posix_spawn(3) blocks one thread while its child, in the same memory, execs; meanwhile the other writes the path.
SWAP = """
    inside, outside = (path.encode() for path in sys.argv[1:3])
    at = next(at for at, (one, other) in enumerate(zip(inside, outside)) if one != other)
    path = ctypes.create_string_buffer(inside)
    ours, theirs = inside[at], outside[at]
    swapping = True

    def swap():
        memory = memoryview(path).cast("B")
        while swapping:
            memory[at] = theirs
            memory[at] = ours

    thread = threading.Thread(target=swap)
    thread.start()
    counts = {"inside ran": 0, "outside ran": 0, "EPERM": 0, "EACCES": 0}
    argv, environment, pid = strings(b"x"), strings(), ctypes.c_int()
    for _ in range(int(sys.argv[3])):
        failure = libc.posix_spawn(ctypes.byref(pid), path, None, None, argv, environment)
        if failure:
            counts[errno.errorcode[failure]] += 1
        else:
            code = os.waitstatus_to_exitcode(os.waitpid(pid.value, 0)[1])
            counts["outside ran" if code else "inside ran"] += 1
    swapping = False
    thread.join()
    say(counts)
"""


def race(*, sys_ptrace: bool, layers_off: list[str]) -> dict[str, int]:
    with shared_directory() as files:
        inside = copy_program("/usr/bin/true", files / "a" / "program")
        outside = copy_program("/usr/bin/false", files / "b" / "program")
        request = Request(
            argv=python(SWAP, inside, outside, str(TRIES)),
            rules=[deny(f"{files}/b/**")],
            trees=[f"{files}/a"],
            layers_off=layers_off,
            sys_ptrace=sys_ptrace,
        )
        outcome = run(request)
    counts: dict[str, int] = outcome.said[0]
    assert sum(counts.values()) == TRIES
    assert counts["EPERM"] > 0, "the trap never saw the other path: nothing raced"
    assert counts["inside ran"] > 0
    outcome.verify()
    return counts


@every_reader
def test_a_swapped_path_never_runs_what_lies_outside(sys_ptrace: bool) -> None:
    counts = race(sys_ptrace=sys_ptrace, layers_off=[])
    assert counts["outside ran"] == 0
    assert counts["EACCES"] > 0, "Landlock was never asked: the swap never fell between the two reads"


def test_without_landlock_the_same_swap_wins() -> None:
    assert race(sys_ptrace=True, layers_off=["landlock_exec"])["outside ran"] > 0
