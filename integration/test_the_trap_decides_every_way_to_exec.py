"""A denied program is refused by whatever name and call it is reached, and runs by each of them without the rule.

The first is what the trap is for; the second shows that the first is the trap's doing.
"""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

from trap_harness import (
    NO_STATIC_FILTER,
    UID,
    Outcome,
    Request,
    allow,
    copy_program,
    deny,
    every_reader,
    needs_root,
    python,
    run,
    shared_directory,
)

pytestmark = needs_root
on_x86_64 = pytest.mark.skipif(os.uname().machine != "x86_64", reason="calls by number and by machine code")

# Each way leads to /usr/bin/false, which exits with 1.
WAYS = """
    DENIED, scratch = "/usr/bin/false", sys.argv[1]
    argv, environment = strings(b"false"), strings()
    file = os.open(DENIED, os.O_RDONLY)
    os.set_inheritable(file, True)
    handle = os.open(DENIED, os.O_PATH)
    bin_directory = os.open("/usr/bin", os.O_PATH)
    os.chdir("/usr")
    AT_FDCWD, AT_EMPTY_PATH, EXECVEAT = -100, 0x1000, int(sys.argv[2])

    def execve(path):
        return lambda: os.execve(path, ["false"], {})

    def link(name, target):
        os.symlink(target, f"{scratch}/{name}")
        return f"{scratch}/{name}"

    def execveat(directory, path, flags=0):
        return lambda: raw(EXECVEAT, directory, path, argv, environment, flags)

    def from_another_thread():
        failures = []
        def work():
            try:
                os.execve(DENIED, ["false"], {})
            except OSError as error:
                failures.append(error)
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        raise failures[0]

    def spawned(spawn):
        def act():
            pid = spawn()
            os._exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
        return act

    def vforked():
        import subprocess
        os._exit(subprocess.Popen([DENIED]).wait())

    def threads_spawn():
        pids = []
        def work():
            try:
                pids.append(os.posix_spawn(DENIED, ["false"], {}))
            except OSError as error:
                pids.append(error)
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        if isinstance(pids[0], OSError):
            raise pids[0]
        return pids[0]

    link("to-a-link", link("to-the-program", DENIED))
    link("to-proc-self", "/proc/self")
    ways = {
        "its path": execve(DENIED),
        "a directory that is a link": execve("/bin/false"),
        "dots": execve("/usr/lib/.././bin/false"),
        "slashes": execve("///usr//bin/false"),
        "a relative path": execve("bin/false"),
        "a link to a link": execve(f"{scratch}/to-a-link"),
        "fexecve": lambda: os.execve(file, ["false"], {}),
        "execveat of a handle": execveat(handle, b"", AT_EMPTY_PATH),
        "execveat below a directory": execveat(bin_directory, b"false"),
        "execveat below the working directory": execveat(AT_FDCWD, b"bin/false"),
        "execveat of an absolute path": execveat(12345, DENIED.encode()),
        "posix_spawn": spawned(lambda: os.posix_spawn(DENIED, ["false"], {})),
        "vfork": vforked,
        "execve by a thread that is no leader": from_another_thread,
        "posix_spawn by a thread that is no leader": spawned(threads_spawn),
        "/proc/self/fd": execve(f"/proc/self/fd/{file}"),
        "/proc/PID/fd": lambda: os.execve(f"/proc/{os.getpid()}/fd/{file}", ["false"], {}),
        "/proc/thread-self/fd": execve(f"/proc/thread-self/fd/{file}"),
        "/proc/self/task": lambda: os.execve(f"/proc/self/task/{os.getpid()}/fd/{file}", ["false"], {}),
        "/proc/self with slashes and dots": execve(f"//proc/./self/../self/fd/{file}"),
        "/dev/fd": execve(f"/dev/fd/{file}"),
        "/proc/self/cwd": execve("/proc/self/cwd/bin/false"),
        "/proc/self/root": execve("/proc/self/root/usr/bin/false"),
        "a link to /proc/self/fd": execve(link("to-fd", f"/proc/self/fd/{file}")),
        "a link to /proc/self/root": execve(link("to-root", "/proc/self/root/usr/bin/false")),
        "below a link to /proc/self": execve(f"{scratch}/to-proc-self/cwd/bin/false"),
    }
    say({name: outcome(act) for name, act in ways.items()})
"""
EXECVEAT = {"x86_64": 322, "aarch64": 281}[os.uname().machine]


def reader_of(outcome: Outcome) -> str:
    return outcome.layer("exec_trap").detail["memory_access"]


def through_every_way(sys_ptrace: bool, *, denied: bool) -> tuple[dict[str, object], Outcome]:
    with shared_directory() as files:
        files.chmod(0o777)
        rules = [deny("/usr/bin/false")] if denied else []
        outcome = run(
            Request(argv=python(WAYS, str(files), str(EXECVEAT)), rules=rules, sys_ptrace=sys_ptrace),
        )
    assert outcome.code == 0
    return outcome.said[0], outcome


@every_reader
def test_a_denied_program_is_refused_by_every_name_and_call(sys_ptrace: bool) -> None:
    answers, outcome = through_every_way(sys_ptrace, denied=True)
    assert {way: answer for way, answer in answers.items() if answer != "EPERM"} == {}
    assert len(outcome.denied) == len(answers)
    assert {event.resolved_path for event in outcome.denied} == {"/usr/bin/false"}
    assert {event.rule for event in outcome.denied} == {"deny /usr/bin/false"}
    assert reader_of(outcome) == ("cap_sys_ptrace" if sys_ptrace else "fsuid")
    assert outcome.reply.troubles == []
    outcome.verify()


@every_reader
def test_without_the_rule_each_of_them_runs_it(sys_ptrace: bool) -> None:
    answers, outcome = through_every_way(sys_ptrace, denied=False)
    assert {way: answer for way, answer in answers.items() if answer != 1} == {}
    assert outcome.denied == []


@every_reader
def test_another_mount_of_procfs_is_no_way_round(sys_ptrace: bool) -> None:
    script = """
        file = os.open("/usr/bin/false", os.O_RDONLY)
        os.set_inheritable(file, True)
        say(outcome(lambda: os.execve(f"{sys.argv[1]}/self/fd/{file}", ["x"], {})))
    """
    with shared_directory() as files:
        subprocess.run(["mount", "-t", "proc", "proc", files], check=True)
        try:
            answers = [
                run(Request(argv=python(script, str(files)), rules=rules, sys_ptrace=sys_ptrace)).said
                for rules in ([deny("/usr/bin/false")], [])
            ]
        finally:
            subprocess.run(["umount", files], check=True)
    assert answers == [["EPERM"], [1]]


@every_reader
def test_a_program_that_another_root_directory_hides_is_refused(sys_ptrace: bool) -> None:
    """After chroot(2), /ldconfig means what /usr/sbin/ldconfig means here, and nothing here tells."""
    script = """
        def hidden():
            if libc.unshare(0x10000000) or libc.chroot(b"/usr/sbin"):  # CLONE_NEWUSER
                raise OSError(ctypes.get_errno(), "")
            os.execve("/ldconfig", ["ldconfig", "--version"], {})
        def also_hidden():
            if libc.unshare(0x10000000 | 0x20000):  # CLONE_NEWUSER | CLONE_NEWNS
                raise OSError(ctypes.get_errno(), "")
            os.execve("/usr/bin/true", ["true"], {})
        say([outcome(hidden), outcome(also_hidden)])
    """
    request = Request(
        argv=python(script), rules=[deny("/usr/sbin/ldconfig")], layers_off=NO_STATIC_FILTER, sys_ptrace=sys_ptrace
    )
    trapped = run(request)
    assert trapped.said == [["EPERM", "EPERM"]]
    assert all(event.reason.startswith("unreadable: ") for event in trapped.denied)
    off = ["exec_trap", *NO_STATIC_FILTER]
    untrapped = run(Request(argv=python(script), layers_off=off, sys_ptrace=sys_ptrace))
    assert untrapped.said == [[0, 0]], "the control did not show the attack working"


@every_reader
def test_a_link_behind_a_directory_of_the_roles_group_is_followed(sys_ptrace: bool) -> None:
    """Whoever reads for the role has to be let in where the role is, or the link seems to lead nowhere."""
    group = UID + 1
    script = """
        say(outcome(lambda: os.execve(sys.argv[1], ["x"], {})))
    """
    with shared_directory() as files:
        inner = files / "inner"
        inner.mkdir()
        (inner / "link").symlink_to("/usr/bin/false")
        os.chown(inner, 0, group)
        inner.chmod(0o750)
        answers = [
            run(
                Request(argv=python(script, str(inner / "link")), rules=rules, groups=groups, sys_ptrace=sys_ptrace)
            ).said
            for rules, groups in (([deny("/usr/bin/false")], [group]), ([], [group]), ([], []))
        ]
    assert answers == [["EPERM"], [1], ["EACCES"]]


@every_reader
def test_a_rule_on_arguments_sees_a_program_call_itself(sys_ptrace: bool) -> None:
    script = """
        again = lambda path, *argv: outcome(lambda: os.execve(path, ["py", *argv], {}))
        say([again("/proc/self/exe", "--version"), again(sys.executable, "--version"), again("/proc/self/exe", "-V")])
    """
    interpreter = os.path.realpath("/usr/bin/python3")
    outcome = run(
        Request(argv=python(script), rules=[deny(interpreter, argv=["py", "--version"])], sys_ptrace=sys_ptrace)
    )
    assert outcome.said == [["EPERM", "EPERM", 0]]


@every_reader
def test_what_is_recorded_is_what_was_asked(sys_ptrace: bool) -> None:
    script = """
        os.chdir("/usr/lib")
        pids = []
        for path in ("../bin/true", "/usr/bin/false", "/usr/bin/none"):
            pid = os.fork()
            if pid == 0:
                try:
                    os.execve(path, ["name", "one", ""], {})
                except OSError:
                    os._exit(99)
            os.waitpid(pid, 0)
            pids.append(pid)
        say([os.getpid(), *pids])
    """
    outcome = run(Request(argv=python(script), rules=[deny("/usr/bin/false")], sys_ptrace=sys_ptrace))
    parent, *children = outcome.said[0]
    ran, missing = outcome.allowed[1:]
    (denied,) = outcome.denied
    for event, pid in ((ran, children[0]), (denied, children[1]), (missing, children[2])):
        assert (event.role, event.user_id) == ("agent", UID)
        assert (event.process_pid, event.process_parent_pid) == (pid, parent)
        assert event.working_directory == "/usr/lib"
        assert (event.command_args, event.args_total_bytes, event.args_truncated) == (["name", "one", ""], 9, False)
    assert (ran.executable_path, ran.resolved_path) == ("/usr/lib/../bin/true", "/usr/bin/true")
    assert (missing.executable_path, missing.resolved_path, missing.reason) == ("/usr/bin/none", "", "nothing there")
    assert (denied.errno, denied.firmness, denied.verified) == ("EPERM", "advisory", "landlock")
    outcome.verify()


@every_reader
def test_in_enforce_mode_what_no_rule_allows_is_refused(sys_ptrace: bool) -> None:
    script = """
        paths = ("/usr/bin/true", "/usr/bin/false", "/usr/bin/none")
        say([outcome(lambda: os.execve(path, ["x"], {})) for path in paths])
    """
    rules = [allow("/usr/bin/python3*"), allow("/usr/bin/true")]
    outcome = run(Request(argv=python(script), rules=rules, enforce=True, sys_ptrace=sys_ptrace))
    assert outcome.said == [[0, "EPERM", "ENOENT"]]
    assert [event.reason for event in outcome.denied] == ["no rule allows it", "nothing there"]


@every_reader
@on_x86_64
def test_pointers_into_nowhere_are_refused_and_recorded(sys_ptrace: bool) -> None:
    script = """
        true, argv = b"/usr/bin/true", strings(b"true")
        def at(address):
            return ctypes.c_void_p(address)
        nowhere = [8, 1 << 46, (1 << 47) - 8, 1 << 62, (1 << 63) - 8, 1 << 63, (1 << 64) - 4096, (1 << 64) - 1]
        say([outcome(lambda: raw(59, at(address), argv, None)) for address in nowhere])
        say([outcome(lambda: raw(59, true, at(address), None)) for address in nowhere])
        strings_nowhere = [(ctypes.c_uint64 * 2)(address, 0) for address in nowhere]
        say([outcome(lambda: raw(59, true, array, None)) for array in strings_nowhere])
        say(outcome(lambda: raw(59, true, None, None)))
    """
    outcome = run(Request(argv=python(script), sys_ptrace=sys_ptrace))
    assert outcome.said == [["EPERM"] * 8] * 3 + [0]  # Linux takes a NULL argv as an empty one
    assert len(outcome.denied) == 24
    assert all(event.reason.startswith("unreadable: ") for event in outcome.denied)
    assert {event.executable_path for event in outcome.denied[8:]} == {"/usr/bin/true"}, "what was read is recorded"
    assert outcome.allowed[-1].command_args == []
    assert outcome.reply.troubles == [], "a pointer of the agent's is not an error of ours"


@every_reader
@on_x86_64
def test_strings_at_the_edge_of_a_page_are_read_to_their_end_and_no_further(sys_ptrace: bool) -> None:
    script = """
        PAGE = 4096
        libc.mmap.restype = ctypes.c_void_p
        start = libc.mmap(None, ctypes.c_size_t(6 * PAGE), 3, 0x22, -1, 0)
        end = start + 5 * PAGE
        libc.munmap(ctypes.c_void_p(end), ctypes.c_size_t(PAGE))
        def place(at, data):
            ctypes.memmove(at, data, len(data))
            return at
        def execve(path, argv):
            return outcome(lambda: raw(59, ctypes.c_void_p(path), ctypes.c_void_p(argv), None))
        path = place(end - 14, b"/usr/bin/true\\0")
        first, second = place(start + 3 * PAGE - 3, b"true\\0"), place(start + 100, b"x" * 5000 + b"\\0")
        array = place(start + 4 * PAGE - 16, b"".join(value.to_bytes(8, "little") for value in (first, second, 0)))
        say(execve(path, array))
        unaligned = place(start + 4 * PAGE - 4, b"".join(value.to_bytes(8, "little") for value in (path, 0)))
        say(execve(path, unaligned))
        say(execve(place(end - 13, b"/usr/bin/true"), unaligned))  # without its NUL
    """
    outcome = run(Request(argv=python(script), sys_ptrace=sys_ptrace))
    assert outcome.said == [0, 0, "EPERM"]
    first, second = outcome.allowed[1:]
    assert (first.command_args[0], first.args_total_bytes) == ("true", len("true") + 1 + 5000)
    assert second.command_args == ["/usr/bin/true"]


@every_reader
def test_of_arguments_over_the_limit_a_beginning_is_recorded_and_nothing_beside_them(sys_ptrace: bool) -> None:
    script = """
        def execve(argv):
            return lambda: os.execve("/usr/bin/true", argv, {"NEXT_IN_MEMORY": "canary"})
        say(outcome(execve(["true", *map(str, range(5000))])))
        say(outcome(execve(["true", *("x" * 127 * 1024 for _ in range(8))])))
        memory = ctypes.create_string_buffer(b"A" * 131000 + b"\\0" + b"B" * 200 + b"\\0" + b"canary")
        start = ctypes.addressof(memory)
        argv = (ctypes.c_void_p * 3)(start, start + 131001, None)
        say(outcome(lambda: libc.execve(b"/usr/bin/true", argv, None) and None))
    """
    outcome = run(Request(argv=python(script), sys_ptrace=sys_ptrace))
    assert outcome.said == [0, 0, 0]
    many, large, edge = outcome.allowed[1:]
    assert many.command_args[:3] == ["true", "0", "1"]
    for event in (many, large, edge):
        assert event.args_truncated
        assert event.args_total_bytes == 0, "what was not read to its end has no known length"
    assert set("".join(edge.command_args)) == {"A", "B"}
    assert b"canary" not in outcome.log
    assert max(map(len, outcome.log.splitlines())) < 32 * 1024


@every_reader
def test_a_tracee_that_cannot_be_read_is_refused(sys_ptrace: bool) -> None:
    """Without CAP_SYS_PTRACE that is one that made itself undumpable, or runs a program that it may not read."""
    script = """
        def undumpable():
            libc.prctl(4, 0, 0, 0, 0)  # PR_SET_DUMPABLE
            os.execve("/usr/bin/true", ["true"], {})
        say([outcome(undumpable), outcome(lambda: os.execve(sys.argv[1], ["sh", "-c", "exec /usr/bin/true"], {}))])
    """
    with shared_directory() as files:
        shell = Path(copy_program("/bin/sh", files / "tree" / "sh"))
        shell.chmod(0o711)
        request = Request(argv=python(script, str(shell)), trees=[str(shell.parent)], sys_ptrace=sys_ptrace)
        outcome = run(request)
    if sys_ptrace:
        assert outcome.said == [[0, 0]]
        assert outcome.denied == []
    else:
        assert outcome.said == [["EPERM", 126]]
        assert [event.reason for event in outcome.denied] == ["unreadable: Permission denied"] * 2


@on_x86_64
def test_a_call_of_another_architecture_kills() -> None:
    """execve of i386 has another number; its getpid shows that the door is shut as a whole."""
    script = """
        import mmap
        code = mmap.mmap(-1, 4096, prot=7)
        code.write(bytes.fromhex("b814000000 cd80 c3".replace(" ", "")))  # mov eax, 20; int 0x80; ret
        call = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))
        def getpid_of_i386():
            os._exit(0 if call() == os.getpid() else 1)
        say(outcome(getpid_of_i386))
    """
    untrapped = run(Request(argv=python(script), layers_off=["exec_trap", "memfd_rule", *NO_STATIC_FILTER]))
    if untrapped.said == [-signal.SIGSEGV]:
        pytest.skip("this kernel has no 32-bit calls")
    assert untrapped.said == [0], "the control did not show the call working"
    assert run(Request(argv=python(script))).said == [-signal.SIGSYS]
