"""CORE: the AppArmor profile of a role, as text to be loaded by whoever owns the machine. Pure; loads nothing.

A further layer beside ours, which says by path and label what the seccomp filter says by call, and the masks by mount.
What is no rule here is refused (apparmor.d(5)); `deny` rules are about files and networks, where a broad rule allows
the rest. Which programs run is the trap's and Landlock's matter. Its syntax is tested; that it holds is not, since no
machine with this LSM was at hand.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from codingagents.rewrite import places
from codingagents.trust.vocabulary import Role

_SECRET: Final = (places.RUN_SECRETS, places.RUN_DATA, places.RUN_EXPORT)
# What a role must not see into, of that which a session makes.
_CLOSED: Final[Mapping[Role, tuple[str, ...]]] = {
    Role.AGENT: (*_SECRET, places.TRUST, places.TASK_HOME),
    Role.TASK: (*_SECRET, places.RUN_ROOT, places.RUN_RUNNER),
}
ROLES: Final = tuple(role.value for role in _CLOSED)

# Memory of processes, what changes the kernel, and what shows of it.
_KERNEL: Final = """\
  deny @{PROC}/*/mem rwkl,
  deny @{PROC}/*/task/*/mem rwkl,
  deny @{PROC}/{sys,bus,fs,irq,acpi,scsi}/** wkl,
  deny @{PROC}/{kcore,kmem,kallsyms,kpage*,keys,key-users,sysrq-trigger,timer_list,sched_debug} rwkl,
  deny /sys/** wkl,
  deny /sys/{firmware,kernel/security,kernel/debug,kernel/tracing}/** rwkl,
  deny /dev/{mem,kmem,port,kmsg} rwkl,
"""


def profile_name(role: Role) -> str:
    """Return the name of a role's profile."""
    return f"coding-agents-{role.value}"


TASK_PROFILE: Final = profile_name(Role.TASK)
ASKED_FOR: Final = "asked for"  # outcome of having a profile put on the next exec


def profile_text(role: Role) -> str:
    """Return the profile of a role, for apparmor_parser(8); `KeyError` for a role that has none."""
    name = profile_name(role)
    closed = "".join(f"  deny {path}{{,/**}} rwklmx,\n" for path in _CLOSED[role])
    return f"""\
# AppArmor profile of what coding-agents runs as {role.value}; printed by: coding-agents doctor --apparmor {role.value}
# Its syntax is tested. That it holds is not: no machine with AppArmor was at hand.
# Load it with: apparmor_parser -r FILE

abi <abi/3.0>,
include <tunables/global>

profile {name} flags=(attach_disconnected,mediate_deleted) {{
  # Files by their owners' rights; programs run under this same profile, whatever they are.
  / rw,
  /** rwlkmix,

  # What is the session's, and none of this role's.
{closed}
  # The kernel's and other processes'.
{_KERNEL}
  # Connections as sockets of their own kind; nothing that forges packets. Name resolution asks by netlink.
  network inet stream,
  network inet dgram,
  network inet6 stream,
  network inet6 dgram,
  network netlink raw,
  network netlink dgram,
  unix,
  deny network inet raw,
  deny network inet6 raw,
  deny network packet,

  # Signals to one's own kind, from anybody; the supervisor may look at it, and it at its own kind as ps(1) does.
  signal (send, receive) peer={name},
  signal (receive),
  ptrace (readby, tracedby),
  ptrace (read) peer={name},

  # Refused without a rule; said so that no file that is included can allow it.
  deny capability,
  deny mount,
  deny remount,
  deny umount,
  deny pivot_root,
  deny change_profile,
}}
"""
