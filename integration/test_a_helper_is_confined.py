"""Helpers as processes: what each says it tried, how it looks from outside, and what follows where a layer fails."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Iterator

import pytest

from codingagents.proxies.layer_rows import LAYER_NAMES
from codingagents.rewrite.specs import RemoteSpec
from codingagents.supervisor.helper_layers import look
from codingagents.supervisor.helper_rows import contradicted, report
from codingagents.trust import facts
from helper_rig import HELPER_UID, Helper, Zygote, closing_children, read_all
from scripted_upstream import Upstream

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="helpers take UIDs of their own: needs root")

REMOTE = RemoteSpec(name="quiet", scheme="http", host="127.0.0.1", port=9, path="/mcp")
# Makes one system call fail with one errno, for good, as an engine's profile would, and becomes the zygote.
WITHOUT = """
import os, sys
from codingagents.trust import linux
from codingagents.trust.bpf import ALLOW, assemble, errno_action, give, on_call
machine = linux.machine()
code = give(errno_action(int(sys.argv[1])))
calls = [on_call(machine.number(name), code) for name in sys.argv[2].split(",")]
load = [(0x20, 0, 0, 0)]
linux.set_no_new_privs()
linux.install_filter(assemble(load, *calls, give(ALLOW)))
os.execv(sys.argv[3], sys.argv[3:])
"""
EPERM, ENOSYS = "1", "38"


def without(code: str, *calls: str) -> tuple[str, ...]:
    return (sys.executable, "-I", "-c", WITHOUT, code, ",".join(calls))


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    with closing_children(), Zygote() as started:
        yield started


def states(ready: facts.Ready) -> dict[str, str]:
    return {row.layer: row.state for row in ready.layers}


def test_every_layer_was_tried_and_holds(zygote: Zygote) -> None:
    """On the kernel of this machine all of them are there; the rows say what was tried and what it was before."""
    with Helper(zygote, REMOTE) as helper:
        assert states(helper.ready) == dict.fromkeys(LAYER_NAMES, "enforced")
        probes = {row.layer: row.probe for row in helper.ready.layers}
        assert "execve: EPERM (before: ENOENT)" in probes["seccomp"]
        assert "open / for reading: EACCES (before: succeeded)" in probes["landlock_fs"]
        assert "bind a TCP port: EACCES (before: succeeded)" in probes["landlock_net"]
        assert "setresuid(0, 0, 0): EPERM" in probes["uid_drop"]


def test_what_is_seen_from_outside_agrees(zygote: Zygote) -> None:
    """The kernel's own word on the same process, marked as observed; also with a client connected."""
    with Helper(zygote, REMOTE) as helper, helper.connect() as client:
        client.sendall(b"GET /")
        rows = report(helper.ready, look(helper.pid), HELPER_UID)
        observed = {row.layer: row for row in rows if row.observed_by == "observed"}
        assert {row.state for row in observed.values()} == {"enforced"}
        assert observed.keys() == {
            "uid_drop", "capabilities", "no_new_privs", "seccomp", "non_dumpable", "rlimits", "descriptors",
        }  # fmt: skip
        assert "CapBnd 0000000000000000" in observed["capabilities"].probe
        assert [row.layer for row in rows if row.observed_by == "self-reported"] == list(LAYER_NAMES)
        assert contradicted(rows) == []


def test_the_wrong_uid_is_seen_from_outside(zygote: Zygote) -> None:
    """The control of the test above: another UID than the one it was given does not pass."""
    with Helper(zygote, REMOTE) as helper:
        assert contradicted(report(helper.ready, look(helper.pid), HELPER_UID + 1)) == ["uid_drop"]


def test_a_helper_without_landlock_serves_and_says_so() -> None:
    """As on an old kernel, or under an engine's profile that does not know it."""
    prefix = without(ENOSYS, "landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self")
    with Zygote(prefix) as zygote, Upstream() as upstream, Helper(zygote, upstream.remote()) as helper:
        missing = {row.layer: row for row in helper.ready.layers if row.state != "enforced"}
        assert missing.keys() == {"landlock_fs", "landlock_net", "landlock_scope"}
        assert {row.state for row in missing.values()} == {"unavailable"}
        assert all(row.why and row.consequence and row.remedy for row in missing.values())
        with helper.connect() as client:
            client.sendall(helper.head(length=0))
            assert client.recv(4096).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    ("code", "call", "reason"),
    [
        (EPERM, "seccomp", b"the helper cannot be confined: Operation not permitted"),
        (ENOSYS, "seccomp", b"the helper cannot be confined: Function not implemented"),
        (EPERM, "capset", b"the helper cannot be confined: Operation not permitted"),
        (EPERM, "setgroups", b"cannot become UID"),
    ],
)
def test_a_helper_that_cannot_be_confined_does_not_serve(code: str, call: str, reason: bytes) -> None:
    """It says why and ends; nobody is answered meanwhile."""
    with Zygote(without(code, call)) as zygote, Helper(zygote, REMOTE, start=False) as helper:
        helper.send_spec(REMOTE)
        said = read_all(helper.channel)
        assert said.startswith(b'{"fact":"failed"')
        assert reason in said
        assert helper.wait() == 1


def test_fewer_descriptors_than_its_connections_need_is_partial() -> None:
    """The hard limit is whoever started the session's; the helper serves, and says what it lacks."""
    prefix = ("prlimit", "--nofile=256:256", "setpriv", "--bounding-set=-sys_resource")
    with Zygote(prefix) as zygote, Helper(zygote, REMOTE) as helper:
        row = next(row for row in helper.ready.layers if row.layer == "rlimits")
        assert row.state == "partial"
        assert "nofile: 256" in row.probe
        assert row.remedy


@pytest.mark.parametrize("host", ["localhost", "no-such-name.invalid"])
def test_a_confined_helper_resolves_names(zygote: Zygote, host: str) -> None:
    """From the files that it may read: a name of /etc/hosts is dialed, one that is nowhere is said to be."""
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    remote = RemoteSpec(name="named", scheme="http", host=host, port=port, path="/mcp")
    with Helper(zygote, remote) as helper, helper.connect() as client:
        client.sendall(helper.head(length=0))
        answer = client.recv(4096)
        assert (b"connect_failed" if host == "localhost" else b"dns_failed") in answer
        failed = helper.fact(facts.UpstreamFailed)
        assert failed.error_type == ("connect_failed" if host == "localhost" else "dns_failed")


def test_a_confined_helper_drains_and_can_be_killed(zygote: Zygote) -> None:
    """The scope of signals is about those that it sends."""
    with Helper(zygote, REMOTE) as helper:
        helper.signal(signal.SIGTERM)
        assert helper.wait() == 0
