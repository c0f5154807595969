"""Interpreters run what they can read: not defended, and said so; the record shows the command line.

What the trees and the trap do forbid, and what an interpreter execs in its turn, are the controls.
"""

from __future__ import annotations

import os
import shutil

import pytest

from trap_harness import Request, copy_program, deny, every_reader, needs_root, python, run, shared_directory

pytestmark = needs_root

# Each writes a file without an exec of its own, then execs /usr/bin/cat, which is denied, and leaves its answer's code.
SCRIPTS = {
    "python3 -c": [
        "/usr/bin/python3",
        "-I",
        "-c",
        (
            "import subprocess, sys; open(sys.argv[1], 'w').close()\n"
            "try: subprocess.run(['/usr/bin/cat', '/dev/null'])\n"
            "except PermissionError: sys.exit(42)"
        ),
    ],
    "sh -c": ["/bin/sh", "-c", ': > "$0"; /usr/bin/cat /dev/null; [ $? = 126 ] && exit 42'],
    "sh script": ["/bin/sh", "SCRIPT"],
    "perl -e": ["/usr/bin/perl", "-e", "open(F, '>', $ARGV[0]); exec {'/usr/bin/cat'} 'cat', '/dev/null'; exit 42"],
    "awk": [
        "/usr/bin/awk",
        'BEGIN { printf "" > ARGV[1]; close(ARGV[1]); if (system("exec /usr/bin/cat /dev/null") == 126) exit 42 }',
    ],
}
SH_SCRIPT = ': > "$1"\n/usr/bin/cat /dev/null\n[ $? = 126 ] && exit 42\n'
CALL = """
    say(outcome(lambda: os.execve(sys.argv[1], sys.argv[1:], {"PATH": "/usr/bin:/bin"})))
"""


@every_reader
@pytest.mark.parametrize("how", SCRIPTS)
def test_an_interpreter_runs_its_script_and_the_record_has_all_of_its_arguments(how: str, sys_ptrace: bool) -> None:
    """The control is the same without the rule: then /usr/bin/cat runs."""
    if shutil.which(SCRIPTS[how][0]) is None:
        pytest.fail(f"{SCRIPTS[how][0]} is missing: apt-get install perl-base mawk")
    with shared_directory() as files:
        files.chmod(0o777)
        (files / "script").write_text(SH_SCRIPT)  # not executable, and outside the trees
        argv = [word.replace("SCRIPT", f"{files}/script") for word in SCRIPTS[how]] + [f"{files}/made"]
        outcome = run(Request(argv=python(CALL, *argv), rules=[deny("/usr/bin/cat")], sys_ptrace=sys_ptrace))
        assert outcome.said == [42]
        assert (files / "made").exists()
        record = next(event for event in outcome.allowed if event.command_args == argv)
        assert (record.executable_path, record.resolved_path) == (argv[0], os.path.realpath(argv[0]))
        assert record.interpreters == []
        assert {event.resolved_path for event in outcome.denied} == {"/usr/bin/cat"}
        without = run(Request(argv=python(CALL, *argv), sys_ptrace=sys_ptrace))
        assert without.said != [42]
        assert "/usr/bin/cat" in {event.resolved_path for event in without.allowed}


@every_reader
def test_the_same_script_by_its_own_name_is_refused(sys_ptrace: bool) -> None:
    """Outside the trees a script is no program; `sh script` is an exec of sh(1)."""
    with shared_directory() as files:
        files.chmod(0o777)
        script = files / "script"
        script.write_text("#!/bin/sh\n" + SH_SCRIPT)
        script.chmod(0o755)
        answers = [
            run(Request(argv=python(CALL, *argv, f"{files}/made"), sys_ptrace=sys_ptrace)).said[0]
            for argv in ([str(script)], ["/bin/sh", str(script)])
        ]
    assert answers[0] in ("EACCES", "EPERM")
    assert answers[1] != answers[0]


@every_reader
def test_the_loader_runs_a_program_that_may_not_be_executed(sys_ptrace: bool) -> None:
    """The record has the program as the loader's argument, and the loader as what ran."""
    loader = os.path.realpath("/lib64/ld-linux-x86-64.so.2")
    if not os.path.exists(loader):
        pytest.skip("the loader of another architecture")
    with shared_directory() as files:
        program = copy_program("/usr/bin/true", files / "program")
        os.chmod(program, 0o644)
        outcome = run(Request(argv=python(CALL, loader, program), sys_ptrace=sys_ptrace))
        directly = run(Request(argv=python(CALL, program), sys_ptrace=sys_ptrace))
    assert outcome.said == [0]
    assert (outcome.allowed[-1].resolved_path, outcome.allowed[-1].command_args) == (loader, [loader, program])
    assert directly.said[0] in ("EACCES", "EPERM")
