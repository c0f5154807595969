"""Seen by root from outside: where the upstream's secret is and is not, and each process's identity and descriptors."""

from __future__ import annotations

import base64
import contextlib
import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

import session_rig as rig
from codingagents.trust.events import ExecAllowed, LayerReport
from session_rig import RUN_DIRECTORIES, Session, every_mode
from session_upstream import TOKEN, Upstream

SERVERS = ("one", "two")
FORMS = (TOKEN.encode(), base64.b64encode(TOKEN.encode()).rstrip(b"="))  # as it is, and as an encoder would hide it


@pytest.fixture(scope="module", params=rig.MODES)
def session(request: pytest.FixtureRequest) -> Iterator[Session]:
    """One session with two servers, one of which was asked."""
    with Upstream() as upstream, rig.place() as where:
        config = "".join(map(upstream.server, SERVERS))
        with rig.start(request.param, where, config) as started:
            assert started.answer() == "up"
            assert started.ask("post", "one")["status"] == 200
            # What makes tasks comes last, and tries its layers in processes that end.
            rig.wait_until(lambda: [each for each in started.events(LayerReport) if each.role == "task"], "its report")
            yield started


def processes(session: Session) -> dict[str, int]:
    """Return every process of the session by what it is."""
    found = {
        "supervisor": session.supervisor(),
        "agent": session.of_agent()[0],
        "zygote": session.named("helper zygote"),
        "task parent": session.named("task parent"),
        **{f"helper {name}": session.named(f"helper {name}") for name in SERVERS},
    }
    if session.control is None:
        found["launcher"] = session.process.pid
    assert sorted(found.values()) == sorted(session.pids())
    return found


def holds_secret(data: bytes) -> bool:
    return any(form in data for form in FORMS)


def memory_holds_secret(pid: int) -> bool:
    """Read all of a process's writable memory."""
    maps = re.findall(r"^([0-9a-f]+)-([0-9a-f]+) rw", Path(f"/proc/{pid}/maps").read_text(), re.MULTILINE)
    assert maps
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for begin, end in ((int(low, 16), int(high, 16)) for low, high in maps):
            with contextlib.suppress(OSError):  # [vvar] and its like
                if holds_secret(os.pread(memory.fileno(), end - begin, begin)):
                    return True
    return False


def test_the_secret_is_in_no_argv_and_no_environment(session: Session) -> None:
    """Of no process of the session but the launcher's, whose own environment it came in."""
    for name, pid in processes(session).items():
        assert not holds_secret(Path(f"/proc/{pid}/cmdline").read_bytes()), name
        environment = Path(f"/proc/{pid}/environ").read_bytes()
        assert holds_secret(environment) == (name == "launcher"), name


def test_the_secret_is_in_no_file_of_the_session(session: Session) -> None:
    """Session directory, keys and checkpoints outside, and everything below /run as the session sees it."""
    inside = Path(f"/proc/{session.supervisor()}/root")
    roots = [session.directory, session.directory.parent, *(inside / path[1:] for path in RUN_DIRECTORIES)]
    files = {file for root in roots for file in root.rglob("*") if file.is_file() and not file.is_symlink()}
    assert {"session.json", "events.jsonl", "mcp.json", "config.toml"} <= {file.name for file in files}
    for file in files:
        assert not holds_secret(file.read_bytes()), file


def test_the_secret_is_in_the_memory_of_those_that_use_it_only(session: Session) -> None:
    """Agent and zygote, which helpers are copies of, never had it; the hits elsewhere show that the scan works."""
    holders = {name for name, pid in processes(session).items() if memory_holds_secret(pid)}
    assert holders <= {"launcher", "supervisor", "helper one", "helper two"}
    assert {"supervisor", "helper one"} <= holders


def test_each_role_runs_as_itself_and_can_become_nothing_more(session: Session) -> None:
    """One UID and GID each, in all four kinds; no Linux capabilities, no new privileges."""
    found = processes(session)
    status = {name: rig.fields(pid) for name, pid in found.items()}
    names = ["agent", "helper one", "helper two"]
    uids = {name: status[name]["Uid"].split() for name in names}
    assert uids["agent"] == [str(session.uid_base)] * 4
    assert len({uid for four in uids.values() for uid in four}) == len(names)
    for name in names:
        assert status[name]["Gid"].split() == uids[name]
        assert status[name]["NoNewPrivs"] == "1"
        assert {status[name][kind] for kind in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {"0" * 16}
    assert status["agent"]["Groups"] == str(session.uid_base + 2)  # of the workspace
    assert status["helper one"]["Groups"] == status["helper two"]["Groups"] == ""
    assert (status["agent"]["Seccomp"], status["agent"]["CapBnd"]) == ("2", "0" * 16)


# Which kinds of descriptors each process has, and how many; a helper's event loop makes most of its own.
_LOOP = {"anon_inode:[eventpoll]": 1, "anon_inode:[eventfd]": 1, "pipe": 4, "/dev/null": 1}
# Nothing on 0, 1 and 2; its channel; its listening socket; what hears of clients that go while they are not read.
_HELPER = {"/dev/null": 3, "unix": 1, "tcp": 1, "anon_inode:[eventpoll]": 1}
DESCRIPTORS: dict[str, Counter[str]] = {
    "launcher": Counter(
        {
            "stdio": 3,
            "unix": 2,  # the control channel; the socket where it is asked to reload trust
            "session": 1,  # the session's directory, to remove that socket from
            "anon_inode:[signalfd]": 1,
            "anon_inode:[pidfd]": 1,
            "anon_inode:[eventpoll]": 2,  # of the engine's loop, and of that socket's
        }
    ),
    "supervisor": Counter(
        {
            "stdio": 3,
            # the control channel twice; those of stub, zygote, two helpers and task parent; trio's and its signals'
            # wake-up pairs; the operator's socket and the runner's
            "unix": 2 + 1 + 1 + 2 + 1 + 4 + 2,
            "tcp": 2,  # the helpers' listening sockets, which outlive them
            "anon_inode:[pidfd]": 5,
            "anon_inode:seccomp notify": 2,  # of the agent's execs and of all tasks'
            "anon_inode:[eventpoll]": 1,
            "events.jsonl": 1,
            "session": 1,  # its directory, to remove the operator's socket from
        }
    ),
    "agent": Counter({"stdio": 3}),
    "zygote": Counter({"/dev/null": 2, "stdio": 1, "unix": 1}),
    # Its channel; what tells it of ended children.
    "task parent": Counter({"/dev/null": 2, "stdio": 1, "unix": 1, "pipe": 2}),
    "helper one": Counter(_HELPER) + Counter(_LOOP) + Counter({"unix": 2, "netlink": 1, "tcp": 1}),  # one to upstream
    "helper two": Counter(_HELPER) + Counter(_LOOP) + Counter({"unix": 2, "netlink": 1}),
}


def test_each_process_has_the_descriptors_that_it_should(session: Session) -> None:
    """Listed by root, not by the processes themselves."""
    for name, pid in processes(session).items():
        stdio = set(descriptors(session.supervisor())[:3])
        kinds = Counter("stdio" if each in stdio else kind_of(each) for each in descriptors(pid))
        kinds.pop("anon_inode:[io_uring]", None)  # of an event loop, where the kernel has it
        assert kinds == DESCRIPTORS[name], name


def test_no_descriptor_is_shared_but_the_standard_ones_and_the_listening_sockets(session: Session) -> None:
    """An inherited descriptor would be the same pipe or socket in two processes."""
    owners: dict[str, list[str]] = {}
    for name, pid in processes(session).items():
        for target in set(descriptors(pid)):
            if target.startswith(("pipe:", "socket:")):
                owners.setdefault(target, []).append(name)
    stdio = set(descriptors(session.supervisor())[:3])
    shared = {frozenset(names) for target, names in owners.items() if len(names) > 1 and target not in stdio}
    assert shared == {frozenset({"supervisor", "helper one"}), frozenset({"supervisor", "helper two"})}


def descriptors(pid: int) -> list[str]:
    """Return the targets in the order of their numbers."""
    numbers = sorted(os.listdir(f"/proc/{pid}/fd"), key=int)
    return [os.readlink(f"/proc/{pid}/fd/{number}") for number in numbers]


def kind_of(target: str) -> str:
    if target.startswith("socket:["):
        inode = target[8:-1]
        for family, column in (("tcp", 9), ("unix", 6), ("netlink", 9)):
            lines = Path(f"/proc/net/{family}").read_text().splitlines()[1:]
            if any(line.split()[column] == inode for line in lines):
                return family
    if target.startswith("pipe:["):
        return "pipe"
    name = re.sub(r"^session-\d+$", "session", os.path.basename(target))
    return target if target.startswith(("anon_inode:", "/dev/")) else name


@every_mode
def test_a_secret_in_an_argv_is_not_in_the_log(mode: str) -> None:
    """An agent that came to know one, and runs a program with it."""
    with Upstream() as upstream, rig.place() as where, rig.start(mode, where, upstream.server("one")) as started:
        assert started.answer() == "up"
        assert started.ask("run", "/bin/true", f"--token={TOKEN}")["code"] == 0
        started.tell("leave", 0)
        assert started.wait() == 0
        assert not holds_secret(started.log.read_bytes())
        assert any("--token=" in event.command_args[-1] for event in started.events(ExecAllowed))
