"""SHELL: what a helper takes from itself for good, and tries at once: identity, limits, files, ports, system calls.

Every layer is tried in the process that will serve (`attempts`), and `layer_rows` makes the report of it. Fails closed:
where a layer that a helper must have did not take, it raises and nothing is served. What a kernel is too old for
(Landlock) is said in the report. Does not serve; what may stay is told by `needs`.
"""

from __future__ import annotations

import contextlib
import functools
import os
import resource

from codingagents.proxies import attempts, descriptors, layer_rows, name_service
from codingagents.proxies.layer_rows import Tried
from codingagents.proxies.needs import Needs
from codingagents.proxies.syscall_filter import helper_program
from codingagents.trust import linux
from codingagents.trust.errors import ProcessError
from codingagents.trust.events import Layer
from codingagents.trust.landlock import (
    ABSTRACT_UNIX_SOCKETS,
    ALL_OF_FILES,
    NET_ABI,
    READ_DIR,
    READ_FILE,
    SCOPE_ABI,
    SIGNALS,
    TCP_BIND,
    TCP_CONNECT,
    Ruleset,
    abi_version,
)

_THREADS = 64  # of the helper's UID; name resolution makes four. Processes it cannot make at all
_STACK_BYTES = 8 << 20
# Code and data of a helper are some 60 MiB of address space; a connection's buffers stay far below 1 MiB.
_DATA_BYTES, _DATA_BYTES_A_CONNECTION = 256 << 20, 1 << 20


@functools.cache
def _program(resolves: bool) -> bytes:
    return helper_program(linux.machine(), resolves=resolves)


def preload() -> None:
    """Do once, in the zygote, what is the same for every helper or what it could not load any more.

    The clones inherit the empty bounding set, and the zygote never runs a program.
    """
    for resolves in (False, True):
        _program(resolves)
    name_service.preload()
    with contextlib.suppress(PermissionError):  # without CAP_SETPCAP; only an exec could use it, and there is none
        linux.drop_bounding_set()


def die_with_parent() -> None:
    """Ask the kernel for SIGKILL when the parent's *thread* that made this process ends, prctl(2).

    A second line behind EOF on the channel. The supervisor therefore makes the zygote from its main thread. The kernel
    clears the request at every change of credentials: call again after it.
    """
    linux.set_parent_death_signal()


def confine(uid: int, gid: int, needs: Needs, *, sock_diag: bool = False) -> list[Layer]:
    """Become `uid` and `gid` for good, keep nothing but `needs`, and return what was tried of each layer.

    Raises `ProcessError` where a step failed, or where a layer without which no helper may serve did not take.
    """
    if uid == 0 or gid == 0:
        raise ProcessError("a helper never runs as root: give it a UID and GID of its own")
    held = len(descriptors.assert_nothing_foreign(sock_diag=sock_diag))
    tried = [Tried(layer="descriptors", act="open, none of them foreign", outcome=str(held), wanted=str(held))]
    _drop_identity(uid, gid)
    try:
        _give_up_privileges()
        tried += _limit(needs)
        tried += attempts.privileges(uid, gid)
        of_access, absent = _restrict_access(needs)
        tried += of_access
        tried += _restrict_calls(needs)
    except OSError as error:
        raise ProcessError(f"the helper cannot be confined: {error.strerror}") from None
    except NotImplementedError as error:
        raise ProcessError(f"the helper cannot be confined: {error}") from None
    report = layer_rows.rows(tried, absent)
    if unmet := layer_rows.unmet(report):
        seen = "; ".join(f"{row.layer}: {row.probe}" for row in unmet)
        raise ProcessError(f"the helper is not confined and does not serve: {seen}")
    return report


def _drop_identity(uid: int, gid: int) -> None:
    try:
        os.setgroups([])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    except OSError as error:
        raise ProcessError(f"the helper cannot become UID {uid}: {error.strerror}") from None


def _give_up_privileges() -> None:
    # Leaving UID 0 keeps the inheritable set, which some engines fill.
    linux.drop_capabilities()
    linux.set_no_new_privs()
    linux.prctl(linux.PR_SET_DUMPABLE, 0)
    die_with_parent()
    os.umask(0o077)
    os.chdir("/")
    os.environ.clear()


def _limit(needs: Needs) -> list[Tried]:
    """Put limits on, for good; what the hard limit does not allow is not to be had, and shows for descriptors."""
    limits = {
        "core": (resource.RLIMIT_CORE, 0),
        "fsize": (resource.RLIMIT_FSIZE, 0),
        "memlock": (resource.RLIMIT_MEMLOCK, 0),
        "msgqueue": (resource.RLIMIT_MSGQUEUE, 0),
        "nproc": (resource.RLIMIT_NPROC, _THREADS),
        "stack": (resource.RLIMIT_STACK, _STACK_BYTES),
        "data": (resource.RLIMIT_DATA, _DATA_BYTES + needs.connections * _DATA_BYTES_A_CONNECTION),
        "nofile": (resource.RLIMIT_NOFILE, needs.descriptors),
    }
    tried = []
    for name, (which, wanted) in limits.items():
        hard = resource.getrlimit(which)[1]
        value = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(which, (value, value))
        least = wanted if which == resource.RLIMIT_NOFILE else value
        tried.append(Tried(layer="rlimits", act=name, outcome=str(resource.getrlimit(which)[0]), wanted=str(least)))
    return tried


def _restrict_access(needs: Needs) -> tuple[list[Tried], dict[str, str]]:
    """Put Landlock on as far as the kernel has it; return what was tried, and why what was not."""
    abi = abi_version()
    if abi == 0:
        why = "the kernel has no Landlock, or it is switched off or forbidden"
        return [], dict.fromkeys(("landlock_fs", "landlock_net", "landlock_scope"), why)
    tried = []
    absent = {
        layer: f"Landlock's ABI is {abi} here, and this needs {least}"
        for layer, least in (("landlock_net", NET_ABI), ("landlock_scope", SCOPE_ABI))
        if abi < least
    }
    receiver = attempts.abstract_receiver()
    acts = {
        "landlock_fs": attempts.FILES,
        "landlock_net": attempts.NETWORK,
        "landlock_scope": attempts.scope(receiver),
    }
    before = {layer: attempts.outcomes(acts[layer]) for layer in acts.keys() - absent.keys()}
    _landlock(needs)
    for layer, outcomes in before.items():
        wanted = "EPERM" if layer == "landlock_scope" else "EACCES"
        tried += attempts.compared(layer, acts[layer], outcomes, wanted=wanted)
    receiver.close()
    return tried, absent


def _landlock(needs: Needs) -> None:
    with Ruleset(files=ALL_OF_FILES, network=TCP_BIND | TCP_CONNECT, scopes=ABSTRACT_UNIX_SOCKETS | SIGNALS) as rules:
        rules.allow_beneath(os.devnull, READ_FILE)  # libuv keeps one open, to close it when descriptors run out
        rules.allow_beneath("/proc/self/fd", READ_DIR)  # for the listing in `facts.Ready`
        for path in name_service.readable_paths() if needs.resolves else ():
            rules.allow_beneath(path, READ_FILE)
        for port in needs.ports:
            rules.allow_port(port, TCP_CONNECT)
        rules.restrict_self()


def _restrict_calls(needs: Needs) -> list[Tried]:
    before = attempts.outcomes(attempts.CALLS)
    linux.install_filter(_program(needs.resolves))
    mode = linux.prctl(linux.PR_GET_SECCOMP)
    return [
        Tried(layer="seccomp", act="PR_GET_SECCOMP", outcome=str(mode), wanted=str(linux.SECCOMP_MODE_FILTER)),
        *attempts.compared("seccomp", attempts.CALLS, before, wanted="EPERM"),
    ]
