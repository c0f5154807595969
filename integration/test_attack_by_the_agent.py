"""What an agent can try on the machine, on its own processes and on ours; each with a control that shows it working.

What it tries on the trap and on Landlock is in `test_attack_on_the_trap`.
"""

from __future__ import annotations

import json
import os
import platform
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

import session_rig as rig
from codingagents.rewrite.specs import RoleLimits
from session_rig import Place, every_mode
from session_upstream import Upstream
from trap_harness import (
    NO_STATIC_FILTER,
    UID,
    Outcome,
    Request,
    copy_program,
    needs_root,
    python,
    run,
    shared_directory,
)

pytest_plugins = ("session_fixtures",)  # where, upstream
pytestmark = [
    needs_root,
    pytest.mark.skipif(platform.machine() != "x86_64", reason="system call numbers of one architecture"),
]

# Without no_new_privs no filter and no Landlock can be put on by who is not root.
WITHOUT_NO_NEW_PRIVS = ["no_new_privs", "landlock_exec", "exec_trap", "memfd_rule", *NO_STATIC_FILTER]
REFUSED = {"EPERM", "EACCES", "ENOENT"}

TRY = """
import ctypes, errno, json, os, sys
libc = ctypes.CDLL(None, use_errno=True)

def call(number, *arguments):
    # "" where it worked
    return "" if libc.syscall(ctypes.c_long(number), *arguments) >= 0 else errno.errorcode[ctypes.get_errno()]

def tried(act, *arguments):
    try:
        act(*arguments)
    except OSError as error:
        return errno.errorcode[error.errno]
    return ""
"""


def attack(script: str, *arguments: str, **options: Any) -> Outcome:
    argv = python(TRY, *arguments)
    argv[3] += python(script)[3].removeprefix(python("")[3])
    return run(Request(argv=argv, **options))


def said(script: str, *arguments: str, **options: Any) -> Any:
    (answer,) = attack(script, *arguments, **options).said
    return answer


FORK_BOMB = """
    made, why, (wait, go) = [], "", os.pipe()
    while len(made) < 100 and not why:
        try:
            child = os.fork()
        except OSError as error:
            why = errno.errorcode[error.errno]
            continue
        if child == 0:
            os.close(go)
            os.read(wait, 1)
            os._exit(0)
        made.append(child)
    os.close(go)
    for child in made:
        os.waitpid(child, 0)
    say([len(made), why])
"""


def test_a_fork_bomb_ends_at_the_limit() -> None:
    """The control makes all the processes that it wants to make."""
    made, why = said(FORK_BOMB, limits=RoleLimits(processes=20))
    assert (made, why) == (19, "EAGAIN")
    assert said(FORK_BOMB, limits=RoleLimits(processes=20), layers_off=["limits"]) == [100, ""]


def test_what_is_limited_cannot_be_raised_or_exceeded() -> None:
    script = """
        import mmap, resource
        def files():
            for _ in range(100):
                os.dup(0)
        say([
            tried(lambda: mmap.mmap(-1, 1 << 30).close()),
            tried(files),
            tried(resource.prlimit, 0, resource.RLIMIT_NPROC, (20, 21)),
            resource.getrlimit(resource.RLIMIT_CORE),
        ])
    """
    limits = RoleLimits(processes=20, memory=256 << 20, open_files=64)
    outcome = attack(script, limits=limits)
    assert outcome.said == [["ENOMEM", "EMFILE", "EPERM", [0, 0]]]
    assert outcome.layer("limits").state == "enforced"
    mapped, opened, *_ = said(script, limits=limits, layers_off=["limits"])
    assert [mapped, opened] == ["", ""]


OWN_PROCESSES = """
    secret = ctypes.create_string_buffer(b"of the victim")
    victim = os.fork()
    if victim == 0:
        time.sleep(600)
        os._exit(0)
    here = ctypes.create_string_buffer(13)
    vectors = [(ctypes.c_size_t * 2)(ctypes.addressof(each), 13) for each in (here, secret)]
    one, none = ctypes.c_ulong(1), ctypes.c_ulong(0)
    pidfd = os.pidfd_open(victim)
    answers = {
        "process_vm_readv": call(310, victim, vectors[0], one, vectors[1], one, none),
        "read": here.value.decode(),
        "process_vm_writev": call(311, victim, vectors[0], one, vectors[1], one, none),
        "pidfd_getfd": call(438, pidfd, 0, 0),
        "kcmp": call(312, os.getpid(), victim, 0, ctypes.c_ulong(0), ctypes.c_ulong(0)),
        "PTRACE_SEIZE": call(101, ctypes.c_long(0x4206), ctypes.c_long(victim), None, None),
    }
    with open(f"/proc/{victim}/mem", "rb") as memory:
        memory.seek(ctypes.addressof(secret))
        answers["/proc/PID/mem"] = memory.read(13).decode()
    os.kill(victim, 9)
    os.waitpid(victim, 0)
    say(answers)
"""


def test_its_own_processes_cannot_trace_each_other_by_system_calls() -> None:
    """/proc/PID/mem stays open to its own UID: neither filter nor Landlock closes it, and the documentation says so."""
    calls = ("process_vm_readv", "process_vm_writev", "pidfd_getfd", "kcmp", "PTRACE_SEIZE")
    answers = said(OWN_PROCESSES)
    assert {name: answers[name] for name in calls} == dict.fromkeys(calls, "EPERM")
    assert answers["read"] == ""
    assert answers["/proc/PID/mem"] == "of the victim"
    control = said(OWN_PROCESSES, layers_off=["seccomp_static"])
    assert {name: control[name] for name in calls} == dict.fromkeys(calls, "")
    assert control["read"] == "of the victim"


SUPERVISOR_AND_HELPERS = """
here = ctypes.create_string_buffer(8)
vector = (ctypes.c_size_t * 2)(ctypes.addressof(here), 8)
one, none = ctypes.c_ulong(1), ctypes.c_ulong(0)
number, *pids = map(int, sys.argv[1:])
print(json.dumps([
    {
        "kill": tried(os.kill, pid, number),
        "process_vm_readv": call(310, pid, vector, one, vector, one, none),
        "mem": tried(open, f"/proc/{pid}/mem", "rb"),
        "environ": tried(lambda: open(f"/proc/{pid}/environ", "rb").read()),
        "fd": tried(os.listdir, f"/proc/{pid}/fd"),
        "exe": tried(os.readlink, f"/proc/{pid}/exe"),
        "ptrace": call(101, ctypes.c_long(0x4206), ctypes.c_long(pid), None, None),
    }
    for pid in pids
]))
"""


@every_mode
@pytest.mark.parametrize("layers", ["", 'seccomp_static = "off"'], ids=["all layers", "by its UID alone"])
def test_supervisor_zygote_and_helpers_are_out_of_reach(
    mode: str, layers: str, where: Place, upstream: Upstream
) -> None:
    """Killing, tracing and reading them; the control is the same by root, who kills with signal 0."""
    config = upstream.server("one") + f"[session]\nlayers = {{ {layers} }}\n"
    command = ("/usr/bin/python3", "-I", "-c", TRY + SUPERVISOR_AND_HELPERS)
    with rig.start(mode, where, config) as session:
        assert session.answer() == "up"
        pids = [session.supervisor(), session.named("helper zygote"), session.named("helper one")]
        inside = [rig.fields(pid)["NSpid"].split()[-1] for pid in pids]
        for attempts in json.loads(session.ask("run", *command, "9", *inside)["output"]):
            assert {name: errno for name, errno in attempts.items() if errno not in REFUSED} == {}
        assert [session.supervisor(), session.named("helper zygote"), session.named("helper one")] == pids
        control = subprocess.run([*command, "0", *map(str, pids)], check=True, stdout=subprocess.PIPE)
        for attempts in json.loads(control.stdout):
            assert attempts.pop("process_vm_readv") in ("", "EFAULT")  # permitted; the address may be nothing there
            assert {name: errno for name, errno in attempts.items() if errno} == {}


SET_USER_ID = """
    import subprocess
    lines = subprocess.run([sys.argv[1], "/proc/self/status"], stdout=subprocess.PIPE).stdout.decode().splitlines()
    fields = {key: value.split() for key, _, value in (line.partition(":") for line in lines)}
    say([int(fields["Uid"][1]), int(fields["CapEff"][0], 16) != 0])
"""


def test_a_set_user_id_program_of_roots_gives_nothing() -> None:
    """Without no_new_privs it is root, without securebits and bounding set with root's Linux capabilities."""
    with shared_directory() as files:
        program = copy_program("/usr/bin/cat", files / "cat")
        Path(program).chmod(0o4755)
        assert Path(program).stat().st_mode & stat.S_ISUID

        def became(*off: str) -> Any:
            return said(SET_USER_ID, program, trees=[str(files)], layers_off=list(off))

        assert became() == [UID, False]
        assert became(*WITHOUT_NO_NEW_PRIVS) == [0, False]
        assert became(*WITHOUT_NO_NEW_PRIVS, "caps_bounding") == [0, False]  # by securebits
        assert became(*WITHOUT_NO_NEW_PRIVS, "securebits") == [0, False]  # by the bounding set
        assert became(*WITHOUT_NO_NEW_PRIVS, "securebits", "caps_bounding") == [0, True]


NAMESPACES = """
    def unshared(flags):
        return outcome(lambda: os._exit(0) if libc.unshare(flags) == 0 else raw(272, ctypes.c_ulong(flags)))
    def cloned():
        made = libc.syscall(ctypes.c_long(56), ctypes.c_ulong(0x10000000 | 17), None, None, None, None)
        if made == 0:
            os._exit(0)
        return os.waitpid(made, 0)[1] if made > 0 else errno.errorcode[ctypes.get_errno()]
    NEWUSER, NEWNS, NEWNET, FILES = 0x10000000, 0x20000, 0x40000000, 0x400
    def mounted():
        if libc.unshare(NEWUSER | NEWNS) or libc.mount(b"none", b"/mnt", b"tmpfs", 0, None):
            raise OSError(ctypes.get_errno(), "")
        os._exit(0)
    say({
        "unshare user": unshared(NEWUSER),
        "unshare user, network": unshared(NEWUSER | NEWNET),
        "clone": cloned(),
        "clone3": call(435, None, ctypes.c_size_t(0)),
        "mount in it": outcome(mounted),
        "unshare files": unshared(FILES),
    })
"""


def test_a_user_namespace_is_refused() -> None:
    """It would give every Linux capability over what is made in it: a mount, for one (Landlock is off for that)."""
    names = ("unshare user", "unshare user, network", "clone", "clone3", "mount in it", "unshare files")
    by_layers = {
        (): ["EPERM", "EPERM", "EPERM", "ENOSYS", "EPERM", 0],
        ("seccomp_static",): ["EPERM", "EPERM", "EPERM", "ENOSYS", "EPERM", 0],
        ("userns",): [0, "EPERM", 0, "ENOSYS", "EPERM", 0],
        ("seccomp_static", "userns"): [0, 0, 0, "EINVAL", 0, 0],
    }
    for off, expected in by_layers.items():
        answers = said(NAMESPACES, layers_off=["landlock_exec", *off])
        assert [answers[name] for name in names] == expected, off


KERNEL = """
    say({
        "add_key": call(248, b"user", b"attack", b"x", ctypes.c_size_t(1), -2),
        "keyctl": call(250, 0, -2, 0),
        "request_key": call(249, b"user", b"attack", None, -2),
        "open_tree": call(428, -100, b"/", 0),
        "setns": call(308, os.open("/proc/self/ns/uts", os.O_RDONLY), 0x20000),
        "io_uring_setup": call(425, 1, None),
        "perf_event_open": call(298, None, 0, -1, -1, ctypes.c_ulong(0)),
        "userfaultfd": call(323, 1),
        "bpf": call(321, 0, None, 0),
    })
"""


def test_keys_mounts_and_large_interfaces_of_the_kernel_are_refused() -> None:
    """The control's answers are the kernel's own."""
    assert set(said(KERNEL).values()) == {"EPERM"}
    control = said(KERNEL, layers_off=["seccomp_static"])
    assert [control[name] for name in ("add_key", "keyctl", "request_key", "open_tree")] == [""] * 4
    assert control["setns"] == "EINVAL"
    assert control["io_uring_setup"] in ("EFAULT", "EPERM", "ENOSYS")


TYPING = """
    import fcntl, termios
    ours, theirs = os.openpty()
    def typed(request):
        child = os.fork()
        if child == 0:
            os.setsid()
            fcntl.ioctl(theirs, termios.TIOCSCTTY, 0)
            answer = call(16, theirs, ctypes.c_ulong(request), b"x")
            os._exit(errno.__dict__.get(answer, 0) if answer else 0)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        return errno.errorcode[code] if code else ""
    lines = termios.tcgetattr(theirs)
    lines[3] &= ~(termios.ICANON | termios.ECHO)
    lines[6][termios.VMIN] = 0
    termios.tcsetattr(theirs, termios.TCSANOW, lines)
    say([typed(int(sys.argv[1], 0)), os.read(theirs, 10).decode()])
"""


@pytest.mark.parametrize("request_", ["0x5412", "0x100005412"], ids=["TIOCSTI", "with a high half that nobody reads"])
def test_nothing_is_typed_into_a_terminal(request_: str) -> None:
    """Whoever reads there next, a shell of the operator's perhaps, would take it for the operator's words."""
    if Path("/proc/sys/dev/tty/legacy_tiocsti").read_text().strip() != "1":
        pytest.skip("this kernel lets nobody type (dev.tty.legacy_tiocsti)")
    assert said(TYPING, request_) == ["EPERM", ""]
    assert said(TYPING, request_, layers_off=["seccomp_static"]) == ["", "x"]


X32 = """
    import struct
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]
    GETPID = 0x40000000 | 39
    child = os.fork()
    if child == 0:
        # A filter of one's own tells a tracer of the call, unless a stricter answer comes before it.
        code = [(0x20, 0, 0, 0), (0x15, 0, 1, GETPID), (0x06, 0, 0, 0x7FF00000), (0x06, 0, 0, 0x7FFF0000)]
        program = ctypes.create_string_buffer(b"".join(struct.pack("<HBBI", *each) for each in code))
        libc.ptrace(0, 0, None, None)
        os.kill(os.getpid(), 19)
        libc.syscall(ctypes.c_long(317), 1, 0, struct.pack("<HxxxxxxQ", len(code), ctypes.addressof(program)))
        answer = libc.syscall(ctypes.c_long(GETPID))
        os._exit(0 if answer == os.getpid() else ctypes.get_errno())
    os.waitpid(child, 0)
    assert libc.ptrace(0x4200, child, None, 0x80 | 0x100000) == 0  # PTRACE_O_TRACESECCOMP, EXITKILL
    libc.ptrace(7, child, None, None)
    _, status = os.waitpid(child, 0)
    reached = status >> 8 == (5 | 7 << 8)  # PTRACE_EVENT_SECCOMP
    while not os.WIFEXITED(status):
        libc.ptrace(7, child, None, None)
        _, status = os.waitpid(child, 0)
    say([reached, errno.errorcode.get(os.WEXITSTATUS(status), "")])
"""


def test_a_call_of_x32_is_not_there() -> None:
    """Few kernels have them and all others answer the same: a tracer tells whether the call came past our filter."""
    assert said(X32, layers_off=["seccomp_static"]) == [False, "ENOSYS"]
    reached, answer = said(X32, layers_off=["exec_trap", "memfd_rule", *NO_STATIC_FILTER])
    assert reached
    assert answer in ("", "ENOSYS")


def test_ordinary_programs_notice_nothing() -> None:
    """Threads and spawns: the C library goes back to clone(2) where there is no clone3(2)."""
    script = """
        threads = [threading.Thread(target=lambda: done.append(os.posix_spawn("/bin/true", ["true"], {})))
                   for done in [[]] * 10]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        import subprocess
        say([len(threads), subprocess.run(["/bin/sh", "-c", "true | true & wait; git --version >/dev/null; exit 3"],
             stderr=subprocess.DEVNULL).returncode])
    """
    assert said(script) == [10, 3]


def test_node_makes_threads_and_processes() -> None:
    from conformance import parts  # noqa: PLC0415 -- only this test needs what is fetched

    node = parts.node()
    script = (
        "const {Worker} = require('worker_threads'), {execFileSync} = require('child_process');"
        "execFileSync('/bin/true'); require('fs').readFileSync('/etc/hostname');"
        "new Worker('', {eval: true}).on('exit', code => console.log(JSON.stringify(code)));"
    )
    outcome = run(Request(argv=[str(node), "-e", script], trees=[os.path.dirname(os.path.realpath(node))]))
    assert outcome.said == [0]
