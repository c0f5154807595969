"""What the trap lets through, the kernel still refuses outside the trees: with EACCES, where the trap says EPERM.

Each attack is also made without the layer that stops it, where it must succeed.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from trap_harness import (
    NO_STATIC_FILTER,
    Request,
    copy_program,
    deny,
    every_reader,
    needs_root,
    python,
    run,
    shared_directory,
)

pytestmark = needs_root


def outcomes(request: Request) -> list[object]:
    outcome = run(request)
    assert outcome.code == 0
    return outcome.said


@pytest.mark.parametrize(("layers_off", "answer"), [([], "EACCES"), (["landlock_exec"], 1), (["exec_trap"], "EACCES")])
def test_a_program_outside_the_trees_does_not_run(layers_off: list[str], answer: object) -> None:
    """Also where there is no trap: the kernel does this alone."""
    script = """
        say(outcome(lambda: os.execve(sys.argv[1], ["x"], {})))
    """
    with shared_directory() as files:
        program = copy_program("/usr/bin/false", files / "program")
        assert outcomes(Request(argv=python(script, program), layers_off=layers_off)) == [answer]


def test_a_program_in_a_further_tree_runs() -> None:
    script = """
        say(outcome(lambda: os.execve(sys.argv[1], ["x"], {})))
    """
    with shared_directory() as files:
        program = copy_program("/usr/bin/false", files / "tree" / "program")
        assert outcomes(Request(argv=python(script, program), trees=[str(files / "tree")])) == [1]


def test_a_denial_outside_the_trees_is_firm_and_says_so() -> None:
    """The rule's denial comes first (EPERM); the record says that the kernel would have refused by itself."""
    script = """
        say(outcome(lambda: os.execve(sys.argv[1], ["x"], {})))
    """
    firmness = []
    with shared_directory() as files:
        program = copy_program("/usr/bin/false", files / "program")
        for layers_off in ([], ["landlock_exec"], ["memfd_rule"]):
            outcome = run(Request(argv=python(script, program), rules=[deny(f"{files}/**")], layers_off=layers_off))
            assert outcome.said == ["EPERM"]
            firmness += [(event.firmness, event.verified) for event in outcome.denied]
    assert firmness == [("firm", "landlock"), ("advisory", "none"), ("advisory", "landlock")]


@pytest.mark.parametrize("way", ["link in a tree", "relative", "descriptor", "script"])
def test_no_name_brings_an_outside_program_into_a_tree(way: str) -> None:
    script = """
        way, program, link = sys.argv[1:]
        file = os.open(program, os.O_RDONLY)
        os.set_inheritable(file, True)
        os.chdir(os.path.dirname(program))
        acts = {
            "link in a tree": lambda: os.execve(link, ["x"], {}),
            "relative": lambda: os.execve("./program", ["x"], {}),
            "descriptor": lambda: os.execve(file, ["x"], {}),
            "script": lambda: os.execve(os.path.dirname(link) + "/script", ["x"], {}),
        }
        say(outcome(acts[way]))
    """
    with shared_directory() as files:
        program = copy_program("/usr/bin/false", files / "program")
        tree = files / "tree"
        tree.mkdir()
        (tree / "link").symlink_to(program)
        (tree / "script").write_text(f"#!{program}\n")
        (tree / "script").chmod(0o755)
        argv = python(script, way, program, str(tree / "link"))
        assert outcomes(Request(argv=argv, trees=[str(tree)])) == ["EACCES"]
        assert outcomes(Request(argv=argv, trees=[str(tree)], layers_off=["landlock_exec"])) == [1]


MEMFD = """
    import shutil
    flags, how = int(sys.argv[1]), sys.argv[2]
    memfd = libc.memfd_create(b"program", flags)
    if memfd < 0:
        say(["memfd_create", errno.errorcode[ctypes.get_errno()]])
        sys.exit()
    with open("/usr/bin/false", "rb") as source, open(memfd, "wb", closefd=False) as target:
        shutil.copyfileobj(source, target)
    os.set_inheritable(memfd, True)
    acts = {
        "path": lambda: os.execve(f"/proc/self/fd/{memfd}", ["x"], {}),
        "descriptor": lambda: os.execve(memfd, ["x"], {}),
    }
    say(["exec", outcome(acts[how])])
"""


@pytest.mark.parametrize("how", ["path", "descriptor"])
@pytest.mark.parametrize(
    ("flags", "layers_off", "answer"),
    [
        (0, [], ["memfd_create", "EPERM"]),
        (0x10, [], ["memfd_create", "EPERM"]),  # MFD_EXEC
        (0x8, ["exec_trap"], ["exec", "EACCES"]),  # MFD_NOEXEC_SEAL: that is what the rule leaves
        (0, ["exec_trap"], ["memfd_create", "EPERM"]),  # the rule stands without the trap
        (0, ["memfd_rule"], ["exec", "EPERM"]),  # and the trap refuses what has no name
        (0, ["memfd_rule", "exec_trap"], ["exec", 1]),  # Landlock alone lets it run
    ],
)
def test_a_program_in_memory_does_not_run(how: str, flags: int, layers_off: list[str], answer: list[object]) -> None:
    assert outcomes(Request(argv=python(MEMFD, str(flags), how), layers_off=layers_off)) == [answer]


def test_a_deleted_program_is_not_mistaken_for_a_file_of_its_former_name() -> None:
    """/proc/self/fd/N of a deleted file reads "NAME (deleted)", and such a file can be made."""
    script = """
        import shutil
        program = sys.argv[1]
        file = os.open(program, os.O_RDONLY)
        os.set_inheritable(file, True)
        os.unlink(program)
        shutil.copy("/usr/bin/true", program + " (deleted)")
        say(outcome(lambda: os.execve(file, ["x"], {})))
    """
    for layers_off, answer in ([], "EPERM"), (["exec_trap"], 1):
        with shared_directory() as files:
            program = copy_program("/usr/bin/false", files / "tree" / "program")
            Path(program).parent.chmod(0o777)
            request = Request(argv=python(script, program), trees=[str(files / "tree")], layers_off=layers_off)
            assert outcomes(request) == [answer]


def test_the_loader_runs_what_it_can_read() -> None:
    """A known limit, kept from changing unnoticed: to Landlock the program is then only a file that is read."""
    script = """
        say(outcome(lambda: os.execve("/lib64/ld-linux-x86-64.so.2", ["ld.so", sys.argv[1]], {})))
    """
    if not Path("/lib64/ld-linux-x86-64.so.2").exists():
        pytest.skip("the loader has another name on this architecture")
    with shared_directory() as files:
        program = copy_program("/usr/bin/false", files / "program")
        assert outcomes(Request(argv=python(script, program))) == [1]
        rules = [deny("/usr/lib/**/ld-linux*")]
        assert outcomes(Request(argv=python(script, program), rules=rules)) == ["EPERM"], "and what to do about it"


@every_reader
def test_files_can_still_be_moved_between_directories(sys_ptrace: bool) -> None:
    """Under any ruleset the kernel forbids that, unless REFER is granted."""
    script = """
        os.chdir(sys.argv[1])
        os.mkdir("one")
        os.mkdir("two")
        open("one/file", "w").close()
        os.rename("one/file", "two/file")
        os.link("two/file", "one/again")
        say(sorted(os.listdir("one") + os.listdir("two")))
    """
    with shared_directory() as files:
        files.chmod(0o777)
        request = Request(argv=python(script, str(files)), sys_ptrace=sys_ptrace)
        assert outcomes(request) == [["again", "file"]]


def test_nothing_can_be_mounted_over_a_tree() -> None:
    """A mount would put its files into the tree, and without Landlock anyone may mount in a user namespace."""
    script = """
        def mounted():
            if libc.unshare(0x10000000 | 0x20000) or libc.mount(b"none", b"/opt", b"tmpfs", 0, None):
                raise OSError(ctypes.get_errno(), "")
            os._exit(0)
        say(outcome(mounted))
    """
    assert outcomes(Request(argv=python(script))) == ["EPERM"]
    assert outcomes(Request(argv=python(script), layers_off=NO_STATIC_FILTER)) == ["EPERM"]
    assert outcomes(Request(argv=python(script), layers_off=["landlock_exec", *NO_STATIC_FILTER])) == [0]
