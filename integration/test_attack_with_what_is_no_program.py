"""Exec paths that would hold up whoever opens or reads them: a FIFO, a block device, a sparse file of 10 GB.

Others' execs go on meanwhile. The control is what a trap must not do: opening the FIFO blocks.
"""

from __future__ import annotations

import os
import stat

import pytest

from trap_harness import Request, copy_program, every_reader, needs_root, python, run, shared_directory

pytestmark = needs_root

# One process asks for it without end, while others exec what is harmless.
MEANWHILE = """
    path = sys.argv[1]
    begun = time.monotonic()
    say(outcome(lambda: os.execve(path, ["x"], {})))
    pid = os.fork()
    if pid == 0:
        while True:
            try:
                os.execve(path, ["x"], {})
            except OSError:
                pass
    say([outcome(lambda: os.execve("/usr/bin/true", ["meanwhile"], {})) for _ in range(50)])
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    say(time.monotonic() - begun)
"""


@every_reader
@pytest.mark.parametrize(("kind", "answer"), [("fifo", "EACCES"), ("block device", "EACCES"), ("sparse", "ENOEXEC")])
def test_it_holds_up_neither_the_trap_nor_the_execs_of_others(kind: str, answer: str, sys_ptrace: bool) -> None:
    with shared_directory() as files:
        path = files / "it"
        if kind == "fifo":
            os.mkfifo(path)
        elif kind == "block device":
            os.mknod(path, stat.S_IFBLK | 0o777, os.makedev(7, 0))
        else:
            copy_program("/dev/null", path)
            os.truncate(path, 10 << 30)
        path.chmod(0o777)
        request = Request(argv=python(MEANWHILE, str(path)), trees=[str(files)], sys_ptrace=sys_ptrace)
        outcome = run(request)
    refused, others, seconds = outcome.said
    assert refused == answer
    assert others == [0] * 50
    assert seconds < 30, "only a hang takes that long"
    assert outcome.reply.troubles == []
    recorded = next(event for event in outcome.allowed if event.executable_path == str(path))
    assert recorded.executable_sha256 == ""
    assert recorded.digest.startswith("skipped: ")


def test_opening_the_fifo_would_block() -> None:
    """The control: whoever opens it hangs, until a signal ends the wait."""
    script = """
        import signal
        def opened():
            signal.alarm(1)
            os.close(os.open(sys.argv[1], os.O_RDONLY))
            os._exit(0)
        say(outcome(opened))
    """
    with shared_directory() as files:
        os.mkfifo(files / "it")
        (files / "it").chmod(0o777)
        assert run(Request(argv=python(script, str(files / "it")))).said == [-14]
