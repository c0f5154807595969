"""Helpers on https with the session's own authority, and on unix sockets: for the agent, and for nobody else."""

from __future__ import annotations

import os
import socket
import ssl
import stat
import subprocess
from pathlib import Path

import pytest

import session_rig as rig
from codingagents.trust.events import HelperReady, HelperRefused
from session_rig import Place, Session, every_mode
from session_upstream import Upstream

pytest_plugins = ("session_fixtures",)  # where, upstream

CONFIG = {"tls": 'listen = "https"', "local": 'listen = "unix"\nclient_auth = ["uid"]', "plain": ""}
STRANGER = 58_077  # of no account and no session
CA = "/run/coding-agents/session-ca.pem"
SOCKET = "/run/coding-agents/mcp/local.sock"


def config(upstream: Upstream) -> str:
    return "".join(upstream.server(name, keys=keys) for name, keys in CONFIG.items())


def inside(session: Session, path: str) -> Path:
    """Return a path of the session's own mount namespace as root sees it from here."""
    return Path(f"/proc/{session.supervisor()}/root{path}")


@every_mode
def test_the_agent_reaches_each_kind_of_listener(mode: str, where: Place, upstream: Upstream) -> None:
    with rig.start(mode, where, config(upstream)) as session:
        assert session.answer() == "up"
        for name in CONFIG:
            answer = session.ask("post", name)
            assert (answer["status"], answer["body"]) == (200, "ok")
        listens = {ready.server: ready.listen for ready in session.events(HelperReady)}
        assert listens["tls"].startswith("https://127.0.0.1:")
        assert listens["plain"].startswith("http://127.0.0.1:")
        assert listens["local"] == f"unix:{SOCKET}"
        for path, mode_bits in ((CA, 0o644), (SOCKET, 0o660)):
            found = inside(session, path).lstat()
            assert (found.st_uid, stat.S_IMODE(found.st_mode)) == (0, mode_bits)
            for act in (("unlink", path), ("rename", path, f"{path}.old"), ("chmod", path, 0o777)):
                assert session.ask("call", *act) in {"EACCES", "EPERM"}, "whoever replaces it speaks as the helper"
        session.tell("leave", 0)
        assert session.wait() == 0
    session.assert_nothing_is_left()


@every_mode
def test_an_https_helper_is_trusted_by_the_sessions_authority_alone(
    mode: str, where: Place, upstream: Upstream
) -> None:
    with rig.start(mode, where, config(upstream)) as session:
        assert session.answer() == "up"
        port = int(session.event(HelperReady, server="tls").listen.rpartition(":")[2])

        def greet(trust: ssl.SSLContext) -> None:
            with socket.create_connection(("127.0.0.1", port), 10) as plain:
                trust.wrap_socket(plain, server_hostname="127.0.0.1").close()

        with pytest.raises(ssl.SSLCertVerificationError, match=r"unable to get local issuer|self-signed"):
            greet(ssl.create_default_context())
        greet(ssl.create_default_context(cadata=inside(session, CA).read_text()))


def test_no_other_user_connects_to_a_unix_socket(where: Place, upstream: Upstream) -> None:
    """By its mode; and where that is opened, by who they are."""
    with rig.start("subreaper", where, config(upstream), prefix=rig.DOCKER_CAPABILITIES) as session:
        assert session.answer() == "up"
        ask = f"""
import socket


client = socket.socket(socket.AF_UNIX)
client.connect({SOCKET!r})
client.sendall(b"POST /mcp HTTP/1.1\\r\\nHost: localhost\\r\\nContent-Length: 2\\r\\n\\r\\n{{}}")
print(client.recv(100).split(b" ")[1].decode())
"""

        def as_user(uid: int) -> str:
            identity = ("setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups")
            done = subprocess.run(
                [*identity, "/usr/bin/python3", "-I", "-c", ask], check=False, capture_output=True, text=True
            )
            return done.stdout.strip() or done.stderr.splitlines()[-1]

        assert as_user(STRANGER) == "PermissionError: [Errno 13] Permission denied"
        assert as_user(session.uid_base) == "200", "the control"
        os.chmod(SOCKET, 0o666)
        assert as_user(STRANGER) == "403"
        assert session.event(HelperRefused).peer_user_id == STRANGER
        session.tell("leave", 0)
        assert session.wait() == 0  # a plain directory is not for the next test to find
    session.assert_nothing_is_left()


def test_without_an_https_helper_there_is_no_authority(where: Place, upstream: Upstream) -> None:
    with rig.start("subreaper", where, upstream.server("one")) as session:
        assert session.answer() == "up"
        assert inside(session, "/run/coding-agents").exists()
        assert not inside(session, CA).exists()
