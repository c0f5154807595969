"""Listening sockets as the configuration wants them: where they are, whose they are, and what clients are told."""

import os
import socket
import stat
from pathlib import Path

import pytest

from codingagents.rewrite import places
from codingagents.rewrite.specs import RemoteSpec
from codingagents.supervisor.slots import bind_slot
from codingagents.trust.errors import ProcessError
from codingagents.trust.vocabulary import Secret

BEARER = Secret("bearer")


def remote(listen: str) -> RemoteSpec:
    return RemoteSpec(name="github", scheme="https", host="example.test", port=443, path="/mcp?a=b", listen=listen)  # type: ignore[arg-type]  # parametrized


@pytest.mark.parametrize("listen", ["http", "https"])
def test_a_loopback_slot_tells_its_port(listen: str) -> None:
    slot = bind_slot(remote(listen), 1234, BEARER)
    assert slot.origin == f"{listen}://127.0.0.1:{slot.port}"
    assert slot.url == f"{listen}://127.0.0.1:{slot.port}/mcp?a=b"
    assert slot.socket_path == ""
    with socket.create_connection(("127.0.0.1", slot.port)):
        pass
    port = slot.port
    slot.close()
    with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
        pass


def test_a_unix_slot_is_for_root_and_the_agents_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "SOCKETS", str(tmp_path))
    slot = bind_slot(remote("unix"), 1234, BEARER, agent_gid=os.getegid())
    path = tmp_path / "github.sock"
    assert (slot.port, slot.socket_path, slot.origin) == (0, str(path), f"unix:{path}")
    assert slot.url == "http://localhost/mcp?a=b"
    found = path.stat()
    assert (found.st_gid, stat.S_IMODE(found.st_mode)) == (os.getegid(), 0o660)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    with pytest.raises(ProcessError, match="cannot bind the socket of server github: Address already in use"):
        bind_slot(remote("unix"), 1234, BEARER)
    slot.close()
    assert not path.exists()
    slot.close()  # its directory may have gone first
