"""Ways around the exec trap and Landlock that an agent of any skill could try with its own processes.

Filters of its own above ours, a tracer that turns another call into an exec, file systems that nobody else sees.
"""

from __future__ import annotations

import platform
import signal

import pytest

from trap_harness import (
    NO_STATIC_FILTER,
    Outcome,
    Request,
    copy_program,
    deny,
    every_reader,
    needs_root,
    python,
    run,
    shared_directory,
)

pytestmark = [
    needs_root,
    pytest.mark.skipif(platform.machine() != "x86_64", reason="system call numbers and registers of one architecture"),
]

# libc's own calls, by number, and a way to install a filter of one's own.
TOOLS = """
import signal, struct
EXECVE, EXECVEAT, GETPID, SECCOMP = 59, 322, 39, 317
libc.syscall.restype = ctypes.c_long

def own_filter(number, action, flags=0):
    # if the call is `number`, then `action`, else allow; no_new_privs is on already
    code = [(0x20, 0, 0, 0), (0x15, 0, 1, number), (0x06, 0, 0, action), (0x06, 0, 0, 0x7FFF0000)]
    program = b"".join(struct.pack("<HBBI", *each) for each in code)
    buffer = ctypes.create_string_buffer(program, len(program))
    fprog = struct.pack("<HxxxxxxQ", len(code), ctypes.addressof(buffer))
    made = libc.syscall(ctypes.c_long(SECCOMP), 1, flags, ctypes.c_char_p(fprog))
    return made if made >= 0 else errno.errorcode[ctypes.get_errno()]
"""


def attack(script: str, *arguments: str, **options: object) -> Outcome:
    argv = python(TOOLS, *arguments)
    argv[3] += python(script)[3].removeprefix(python("")[3])
    return run(Request(argv=argv, rules=[deny("/usr/bin/false")], **options))  # type: ignore[arg-type]  # of Request


@every_reader
@pytest.mark.parametrize("action", [0x7FFF0000, 0x7FFC0000, 0x7FF00000], ids=["allow", "log", "trace"])
def test_a_filter_of_the_agents_own_does_not_come_before_the_trap(action: int, sys_ptrace: bool) -> None:
    """Of all filters' answers the strictest counts, and these are laxer than ours. It can only take away."""
    script = """
    say(own_filter(EXECVE, int(sys.argv[1])))
    say([outcome(lambda: os.execve(path, ["x"], {})) for path in ("/usr/bin/true", "/usr/bin/false")])
    """
    outcome = attack(script, str(action), sys_ptrace=sys_ptrace)
    assert outcome.said == [0, [0, "EPERM"]]
    assert outcome.denied[-1].rule == "deny /usr/bin/false"


@every_reader
def test_a_second_listener_is_refused_and_one_without_closes(sys_ptrace: bool) -> None:
    """With a listener of its own the agent could answer in our place; a notification to nobody is ENOSYS."""
    script = """
    say(own_filter(EXECVE, 0x7FC00000, flags=8))
    say(own_filter(EXECVE, 0x7FC00000))
    say(outcome(lambda: os.execve("/usr/bin/true", ["x"], {})))
    """
    outcome = attack(script, sys_ptrace=sys_ptrace)
    assert outcome.said == ["EBUSY", 0, "ENOSYS"]


@every_reader
def test_a_call_that_a_tracer_turns_into_an_exec_is_seen(sys_ptrace: bool) -> None:
    """SECCOMP_RET_TRACE stops the tracee after the filters ran: the kernel runs them again on what the tracer made.

    That the tracer's change takes effect shows in the control, where the program is allowed.
    """
    script = """
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]
    libc.ptrace.restype = ctypes.c_long
    def turned_into_exec(path):
        # getpid(path, argv, envp) in the child, and the tracer makes it an execve
        argv, envp, name = strings(b"x"), strings(), path.encode()
        pid = os.fork()
        if pid == 0:
            os.dup2(os.open("/dev/null", os.O_WRONLY), 1)
            own_filter(GETPID, 0x7FF00000)
            libc.ptrace(0, 0, None, None)
            os.kill(os.getppid(), 0)
            os.kill(os.gettid() if hasattr(os, "gettid") else threading.get_native_id(), signal.SIGSTOP)
            libc.syscall(ctypes.c_long(GETPID), name, argv, envp)
            os._exit(ctypes.get_errno())
        os.waitpid(pid, 0)
        assert libc.ptrace(0x4200, pid, None, 0x80) == 0  # PTRACE_O_TRACESECCOMP
        libc.ptrace(7, pid, None, None)
        _, status = os.waitpid(pid, 0)
        assert status >> 8 == (5 | 7 << 8), hex(status)  # PTRACE_EVENT_SECCOMP
        assert libc.ptrace(6, pid, 15 * 8, EXECVE) == 0  # orig_rax
        libc.ptrace(7, pid, None, None)
        while True:
            _, status = os.waitpid(pid, 0)
            if os.WIFEXITED(status):
                return os.WEXITSTATUS(status)
            libc.ptrace(7, pid, None, None)  # over the trap that an exec of a tracee ends in
    say([turned_into_exec(path) for path in ("/usr/bin/true", "/usr/bin/false")])
    """
    outcome = attack(script, layers_off=["seccomp_static"], sys_ptrace=sys_ptrace)
    assert outcome.said == [[0, 1]]  # /usr/bin/false exits with 1, as EPERM is 1: the record tells them apart
    assert outcome.allowed[-1].resolved_path == "/usr/bin/true"
    assert outcome.denied[-1].resolved_path == "/usr/bin/false"


DETACHED = """
    CLONE_NEWUSER, CLONE_NEWNS = 0x10000000, 0x00020000
    import array, socket
    source = sys.argv[1]
    ours, theirs = socket.socketpair()
    uid, gid = os.getuid(), os.getgid()
    pid = os.fork()
    if pid == 0:
        # A file system of its own, mounted nowhere, with a program in it.
        if libc.unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0:
            socket.send_fds(theirs, [b"unshare"], [])
            os._exit(1)
        for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
        context = libc.syscall(ctypes.c_long(430), b"tmpfs", 0)
        made = libc.syscall(ctypes.c_long(431), context, 6, None, None, 0)
        mount = libc.syscall(ctypes.c_long(432), context, 0, 0) if made == 0 else -1
        if mount < 0:
            socket.send_fds(theirs, [b"fsmount"], [])
            os._exit(1)
        with open(source, "rb") as file:
            content = file.read()
        number = os.open("program", os.O_WRONLY | os.O_CREAT, 0o755, dir_fd=mount)
        os.write(number, content)
        os.fchmod(number, 0o755)
        os.close(number)
        socket.send_fds(theirs, [b"made"], [mount])
        os._exit(0)
    word, found, *_ = socket.recv_fds(ours, 100, 1)
    os.waitpid(pid, 0)
    if word != b"made":
        say(word.decode())
        sys.exit()
    (mount,) = found
    os.set_inheritable(mount, True)
    program = os.open("program", os.O_RDONLY, dir_fd=mount)
    os.set_inheritable(program, True)
    argv, envp = strings(b"x"), strings()
    def from_inside():
        os.fchdir(mount)
        os.execve("./program", ["x"], {})
    say([
        outcome(lambda: raw(EXECVEAT, mount, b"program", argv, envp, 0)),
        outcome(lambda: raw(EXECVEAT, program, b"", argv, envp, 0x1000)),
        outcome(lambda: os.execve(f"/proc/self/fd/{program}", ["x"], {})),
        outcome(lambda: os.execve(f"/proc/self/fd/{mount}/program", ["x"], {})),
        outcome(from_inside),
    ])
"""


@every_reader
def test_a_program_on_a_detached_mount_is_not_run(sys_ptrace: bool) -> None:
    """Its path says "/", whoever asks. A user namespace may make such mounts, and any process may be handed one."""
    outcome = attack(DETACHED, "/usr/bin/true", layers_off=NO_STATIC_FILTER, sys_ptrace=sys_ptrace)
    if outcome.said in (["unshare"], ["fsmount"]):
        pytest.skip("this kernel makes no such mount for an ordinary user")
    assert outcome.said == [["EPERM"] * 5]
    assert {event.resolved_path for event in outcome.denied} == {""}


def test_a_program_on_a_detached_mount_would_run_without_trap_and_landlock() -> None:
    """The control; and with Landlock alone it is refused, too."""
    off = ["exec_trap", "landlock_exec", "memfd_rule", *NO_STATIC_FILTER]
    outcome = attack(DETACHED, "/usr/bin/true", layers_off=off)
    if outcome.said in (["unshare"], ["fsmount"]):
        pytest.skip("this kernel makes no such mount for an ordinary user")
    assert outcome.said == [[0] * 5]
    outcome = attack(DETACHED, "/usr/bin/true", layers_off=["exec_trap", *NO_STATIC_FILTER])
    assert outcome.said == [["EACCES"] * 5]


FILES_WITHOUT_A_PATH = """
    import mmap
    source, directory = sys.argv[1:]
    with open(source, "rb") as file:
        content = file.read()
    def unnamed():
        number = os.open(directory, os.O_TMPFILE | os.O_RDWR, 0o755)
        os.write(number, content)
        readable = os.open(f"/proc/self/fd/{number}", os.O_RDONLY)
        os.close(number)  # a file that is open for writing cannot be executed
        os.execve(f"/proc/self/fd/{readable}", ["x"], {})
    def shared_memory():
        # A shared anonymous mapping is an executable file of the kernel's own tmpfs.
        memory = mmap.mmap(-1, len(content))
        memory.write(content)
        with open("/proc/self/maps") as maps:
            where = next(line.split()[0] for line in maps if "/dev/zero (deleted)" in line)
        os.execve(f"/proc/self/map_files/{where}", ["x"], {})
    def secret_memory():
        number = libc.syscall(ctypes.c_long(447), 0)
        if number < 0:
            raise OSError(ctypes.get_errno(), "")
        os.ftruncate(number, 1 << 20)
        os.fchmod(number, 0o755)
        os.execve(f"/proc/self/fd/{number}", ["x"], {})
    def sealed_memory():
        number = libc.syscall(ctypes.c_long(319), b"x", ctypes.c_uint(8))
        os.write(number, content)
        os.fchmod(number, 0o755)
        os.execve(f"/proc/self/fd/{number}", ["x"], {})
    say({act.__name__: outcome(act) for act in (unnamed, shared_memory, secret_memory, sealed_memory)})
"""


@pytest.mark.parametrize("trap", [True, False], ids=["with the trap", "with Landlock alone"])
def test_a_file_without_a_path_is_not_run(trap: bool) -> None:
    """Firm means that the kernel itself refuses; the trap before it does, too."""
    with shared_directory() as directory:
        directory.chmod(0o777)
        program = copy_program("/usr/bin/true", directory / "program")
        off = [] if trap else ["exec_trap"]
        outcome = attack(FILES_WITHOUT_A_PATH, program, str(directory), layers_off=off)
        (said,) = outcome.said
        assert said["unnamed"] == ("EPERM" if trap else "EACCES")
        for how in ("shared_memory", "secret_memory", "sealed_memory"):
            assert said[how] in ("EPERM", "EACCES", "ENOSYS"), how
        off = ["exec_trap", "landlock_exec"]
        (control,) = attack(FILES_WITHOUT_A_PATH, program, str(directory), layers_off=off).said
        assert control["unnamed"] == 0


def test_the_loader_runs_what_may_be_read_and_a_rule_on_it_costs_programs_nothing() -> None:
    """Not defended by the trees, and said so in the documentation: the exec is the loader's."""
    script = """
    for argv in ([sys.argv[1]], ["/lib64/ld-linux-x86-64.so.2", sys.argv[1]], ["/usr/bin/true"]):
        say(outcome(lambda: os.execve(argv[0], argv, {})))
    """
    with shared_directory() as directory:
        argv = python(script, copy_program("/usr/bin/true", directory / "program"))
        rules = [deny(f"{directory}/**")]
        outcome = run(Request(argv=argv, rules=rules))
        assert outcome.said == ["EPERM", 0, 0]
        assert outcome.denied[-1].firmness == "firm"
        assert outcome.allowed[-2].command_args[1] == f"{directory}/program", "it is in the record"
        assert run(Request(argv=argv, rules=[*rules, deny("**/ld-linux-x86-64.so.2")])).said == ["EPERM", "EPERM", 0]


EXECVE_OF_I386 = """
    import mmap
    PROT, FLAGS = 7, 0x62  # MAP_PRIVATE, MAP_ANONYMOUS, MAP_32BIT: pointers of i386 are of 32 bits
    libc.mmap.restype = ctypes.c_void_p
    base = libc.mmap(None, ctypes.c_size_t(4096), PROT, FLAGS, -1, ctypes.c_long(0))
    path, argv = sys.argv[1].encode(), base + 1024
    def place(at, data):
        ctypes.memmove(at, data, len(data))
        return at
    place(base + 512, path + b"\\0")
    place(argv, struct.pack("<II", base + 512, 0))
    # push rbx; mov eax, 11; mov ebx, PATH; mov ecx, ARGV; xor edx, edx; int 0x80; pop rbx; ret
    code = b"\\x53\\xb8" + struct.pack("<I", 11) + b"\\xbb" + struct.pack("<I", base + 512)
    code += b"\\xb9" + struct.pack("<I", argv) + bytes.fromhex("31d2cd805bc3")
    call = ctypes.CFUNCTYPE(ctypes.c_int)(place(base, code))
    def by_int80():
        failure = -call()
        raise OSError(failure, "")
    say(outcome(by_int80))
    say(outcome(lambda: os.execve(path, ["x"], {})))
"""


@every_reader
def test_an_execve_of_another_architecture_kills_and_runs_nothing(sys_ptrace: bool) -> None:
    """`int 0x80` in a program of 64 bits. The control is the same without the filters: it runs the program."""
    off = ["exec_trap", "memfd_rule", *NO_STATIC_FILTER]
    control = attack(EXECVE_OF_I386, "/usr/bin/false", layers_off=off, sys_ptrace=sys_ptrace)
    if control.said[0] == -signal.SIGSEGV:
        pytest.skip("this kernel has no 32-bit calls")
    assert control.said == [1, 1], "the control did not show the call working"
    for path in ("/usr/bin/false", "/usr/bin/true"):
        outcome = attack(EXECVE_OF_I386, path, sys_ptrace=sys_ptrace)
        assert outcome.said == [-signal.SIGSYS, "EPERM" if path == "/usr/bin/false" else 0]
        assert [event.resolved_path for event in outcome.denied] == ["/usr/bin/false"] * (path == "/usr/bin/false")
        assert outcome.reply.troubles == []


ROOT_OF_ANOTHER = """
    # A child, with a root directory of its own where it is told so (CLONE_NEWUSER), that waits until its pipe ends.
    read_end, write_end = os.pipe()
    ready, told = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(write_end)
        chrooted = sys.argv[1] == "chroot" and libc.unshare(0x10000000) == 0 and libc.chroot(b"/usr/sbin") == 0
        os.write(told, b"y" if chrooted else b"n")
        os.read(read_end, 1)
        os._exit(0)
    chrooted = os.read(ready, 1) == b"y"
    root = f"/proc/{pid}/root"
    path = "/ldconfig" if chrooted else "/usr/sbin/ldconfig"
    execve = lambda name: outcome(lambda: os.execve(name, ["ldconfig", "--version"], {}))
    names = [root + path, f"/proc/{pid}/task/{pid}/root{path}", f"/proc/{pid}/cwd/usr/sbin/ldconfig"]
    say([chrooted, *map(execve, names)])
    os.close(write_end)
    os.waitpid(pid, 0)
"""


@every_reader
@pytest.mark.parametrize("hidepid", [False, True], ids=["", "hidepid"])
@pytest.mark.parametrize("chrooted", [False, True], ids=["same root", "another root"])
def test_a_program_below_the_root_of_another_process_is_not_run(
    chrooted: bool, hidepid: bool, sys_ptrace: bool
) -> None:
    """The control is the same without the rule, and where the root is another, without the trap."""
    off = NO_STATIC_FILTER if chrooted else []
    request = Request(
        argv=python(ROOT_OF_ANOTHER, "chroot" if chrooted else ""),
        rules=[deny("/usr/sbin/ldconfig")],
        layers_off=off,
        hidepid=hidepid,
        sys_ptrace=sys_ptrace,
    )
    outcome = run(request)
    assert outcome.said == [[chrooted, "EPERM", "EPERM", "EPERM"]]
    assert len(outcome.denied) == 3
    request.rules = []
    if chrooted:
        request.layers_off = ["exec_trap", *off]
    assert run(request).said == [[chrooted, 0, 0, 0]]


REACH = """
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]
    libc.ptrace.restype = ctypes.c_long
    TGKILL, PIDFD_GETFD, PROCESS_VM_READV = 234, 438, 310
    PTRACE_SEIZE, PTRACE_DETACH = 0x4206, 17
    flood = os.fork()
    if flood == 0:
        while True:  # the trap's thread has the role's filesystem identity most of the time
            try:
                os.execve("/usr/bin/false", ["x"], {})
            except PermissionError:
                pass

    def vm_read(pid):
        memory = ctypes.create_string_buffer(8)
        here = (ctypes.c_size_t * 2)(ctypes.addressof(memory), 8)
        there = (ctypes.c_size_t * 2)(0x400000, 8)
        try:
            raw(PROCESS_VM_READV, pid, here, ctypes.c_ulong(1), there, ctypes.c_ulong(1), ctypes.c_ulong(0))
        except OSError as error:
            if error.errno != errno.EFAULT:  # of an address that is none: it was let in
                raise

    def seize(thread):
        if libc.ptrace(PTRACE_SEIZE, thread, None, None) != 0:
            raise OSError(ctypes.get_errno(), "")
        os.kill(thread, signal.SIGCONT)
        libc.ptrace(PTRACE_DETACH, thread, None, None)

    def take(pid):
        with os.fdopen(os.pidfd_open(pid)) as handle:
            number = libc.syscall(ctypes.c_long(PIDFD_GETFD), handle.fileno(), 0, 0)
        if number < 0:
            raise OSError(ctypes.get_errno(), "")
        os.close(number)

    def reached(pid):
        # Which of the ways in were open once, over all threads of the process.
        ways = set()
        for thread in map(int, os.listdir(f"/proc/{pid}/task")):
            of_thread = f"/proc/{pid}/task/{thread}/"
            for name, act in {
                "tgkill": lambda: raw(TGKILL, pid, thread, 0),
                "ptrace": lambda: seize(thread),
                "process_vm_readv": lambda: vm_read(thread),
                "pidfd_getfd": lambda: take(pid),
                "mem": lambda: os.close(os.open(of_thread + "mem", os.O_RDWR)),
                "environ": lambda: open(of_thread + "environ", "rb").read(),
                "fd": lambda: os.listdir(of_thread + "fd"),
                "exe": lambda: os.readlink(of_thread + "exe"),
                "maps": lambda: open(of_thread + "maps", "rb").read(),
                "syscall": lambda: open(of_thread + "syscall", "rb").read(),
                "cwd": lambda: os.stat(of_thread + "cwd/"),
            }.items():
                try:
                    act()
                except OSError:
                    continue
                ways.add(name)
        return ways

    supervisor, threads, ways = os.getppid(), set(), set()
    for _ in range(300):
        ways |= reached(supervisor)
        threads |= set(os.listdir(f"/proc/{supervisor}/task"))
    say([len(threads), sorted(ways)])
    say(sorted(reached(flood)))
    os.kill(flood, signal.SIGKILL)
    os.waitpid(flood, 0)
"""
WAYS_IN = [
    "cwd",
    "environ",
    "exe",
    "fd",
    "maps",
    "mem",
    "pidfd_getfd",
    "process_vm_readv",
    "ptrace",
    "syscall",
    "tgkill",
]


@every_reader
def test_the_thread_that_acts_as_the_role_is_no_way_into_the_supervisor(sys_ptrace: bool) -> None:
    """By each of its threads, while the trap has the role's filesystem identity; even without the static filter.

    The control is a process of the role's own, into which every one of the ways leads.
    """
    outcome = attack(REACH, layers_off=["seccomp_static"], sys_ptrace=sys_ptrace)
    (threads, ways), of_its_own = outcome.said
    assert ways == []
    assert threads >= 3, "the main one, the trap's and the one that hashes"
    assert of_its_own == sorted(WAYS_IN)
    assert len(outcome.denied) > 100
    assert (outcome.reply.dumpable, outcome.reply.death_signal) == (1, signal.SIGKILL)
    assert outcome.reply.troubles == []


@every_reader
def test_dots_after_thread_self_and_a_script_closed_to_its_owner_get_past_no_rule(sys_ptrace: bool) -> None:
    """Each once reached what a rule denies, with no swap: a path taken for nothing, a script taken for a program."""
    script = """
        path = f"{sys.argv[1]}/closed-{os.getpid()}"
        with open(path, "w") as file:
            file.write("#!/usr/bin/id -u\\n")
        os.chmod(path, 0o111)
        say([
            outcome(lambda: os.execve("/proc/thread-self/../../root/usr/bin/id", ["id"], {})),
            outcome(lambda: os.execve(path, [path], {})),
        ])
    """
    with shared_directory() as files:
        (files / "own").mkdir()
        (files / "own").chmod(0o777)
        request = Request(argv=python(script, str(files / "own")), layers_off=["landlock_exec"], sys_ptrace=sys_ptrace)
        control = run(request)
        request.rules = [deny("/usr/bin/id")]
        outcome = run(request)
    assert control.said[0][0] == 0
    assert outcome.said == [["EPERM", "EPERM"]]
