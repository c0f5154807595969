"""`coding-agents helper run` as a person runs it: a real process and a real server, on the host and in a container."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import json
import os
import signal
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from helper_run_rig import BODY, EXPIRES, LEAF, PATIENCE, SIDES, Upstream, configure

pytest_plugins = ("helper_run_fixtures",)


# A server that says how it was authorized, after it has printed its port.
OWN_SERVER = """
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"seen": "%s"}' % self.headers["Authorization"].encode())
server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
"""


def test_ones_own_server_is_given_the_credential(started: Any) -> None:
    """In a session a loopback server that runs as the agent is refused; here there is no agent."""
    user: dict[str, Any] = {"user": 65534, "group": 65534, "extra_groups": []} if os.geteuid() == 0 else {}
    with tempfile.TemporaryDirectory(prefix="helper-run-", dir="/tmp") as home:
        server = subprocess.Popen([sys.executable, "-I", "-c", OWN_SERVER], stdout=subprocess.PIPE, text=True, **user)
        assert server.stdout is not None
        with server:
            try:
                url = f"http://127.0.0.1:{int(server.stdout.readline())}/mcp"
                config = f'[mcp_servers.dev]\nurl = "{url}"\nallow_plaintext = true\nbearer_token_env_var = "TOKEN"\n'
                Path(home, "config.toml").write_text(config)
                Path(home).chmod(0o755)
                run = started("--server", "dev", "--secret", "TOKEN=env:T", home=Path(home), user=user, T="sesame")
                assert run.introduction["user_id"] in (65534, os.getuid())
                if user:  # root is another user: the uid gate lets nobody else in, nor may anybody read the bearer
                    assert run.post()[1]["error"]["data"]["code"] == "uid_refused"
                    code = ASK.format(url=run.introduction["url"], file=run.introduction["bearer_file"])
                    asked = subprocess.run(
                        [sys.executable, "-I", "-c", code], stdout=subprocess.PIPE, check=True, **user
                    )
                    assert json.loads(asked.stdout) == {"seen": "Bearer sesame"}
                else:
                    assert run.post(Authorization=f"Bearer {run.bearer}") == (200, {"seen": "Bearer sesame"})
                assert run.end()[0] == 0
            finally:
                server.kill()


ASK = """
import urllib.request
bearer = open({file!r}).read()
request = urllib.request.Request({url!r}, b"{{}}", {{"Authorization": "Bearer " + bearer}})
print(urllib.request.urlopen(request).read().decode())
"""


@pytest.mark.parametrize("side", SIDES)
def test_a_server_can_be_tried_out(tmp_path: Path, upstream: Upstream, started: Any, side: str) -> None:
    """The credential is attached, the caller shows its own bearer, and all of it is on the record."""
    configure(tmp_path, upstream)
    events = tmp_path / "facts.jsonl"
    run = started(
        "--server", "dev", "--secret", "TOKEN=env:T", "--events", "facts.jsonl", side=side, T="sesame", OTHER="kept-out"
    )
    assert run.introduction["client_auth"] == ["uid", "bearer"]
    assert run.introduction["user_id"] == os.getuid()
    assert run.post(Authorization=f"Bearer {run.bearer}") == (200, {})
    request = run.facts("request")
    assert (request["status"], request["server"], request["method"]) == (200, "dev", "POST")
    status, body = run.post()
    assert (status, body["error"]["data"]["code"]) == (401, "bearer_refused")
    assert upstream.credentials == ["Bearer sesame"]
    bearer_file = Path(run.introduction["bearer_file"])
    assert stat.S_IMODE(bearer_file.stat().st_mode) == 0o600
    assert stat.S_IMODE(bearer_file.parent.stat().st_mode) == 0o700
    bearer = run.bearer
    process = Path("/proc", str(run.process.pid))
    for name in ("environ", "cmdline"):
        text = (process / name).read_bytes()
        assert not [word for word in (b"sesame", b"kept-out", bearer.encode()) if word in text]
    code, output, errors = run.end()
    assert (code, errors) == (0, "")
    assert not bearer_file.parent.exists()
    recorded = [json.loads(line) for line in events.read_text().splitlines()]
    assert [fact["fact"] for fact in recorded] == ["request", "refused"]
    assert recorded[0] == request
    assert json.loads(output) == recorded[1]
    assert stat.S_IMODE(events.stat().st_mode) == 0o600
    assert not [word for word in ("sesame", bearer) if word in events.read_text() + output]


def test_control_a_pipe_that_is_read_is_a_place_for_events(tmp_path: Path, upstream: Upstream, started: Any) -> None:
    """Without a reader it is a mistake: see below."""
    configure(tmp_path, upstream)
    os.mkfifo(tmp_path / "facts.pipe")
    with open(os.open(tmp_path / "facts.pipe", os.O_RDONLY | os.O_NONBLOCK), encoding="utf-8") as pipe:
        options = ("--client-auth", "none", "--events", "facts.pipe", "--secret", "TOKEN=env:T")
        run = started("--server", "dev", *options, T="x")
        assert run.post() == (200, {})
        run.facts("request")
        assert json.loads(pipe.readline())["fact"] == "request"


def test_a_unix_socket_is_gone_at_the_end(tmp_path: Path, upstream: Upstream, started: Any) -> None:
    """Only its owner may use it, and nothing is left of it."""
    configure(tmp_path, upstream)
    (tmp_path / "token").write_text("one\n")
    (tmp_path / "token").chmod(0o600)
    path = tmp_path / "dev.sock"
    run = started(
        "--server", "dev", "--secret", "TOKEN=file:token", "--listen", f"unix:{path}", "--client-auth", "none"
    )  # fmt: skip
    assert run.introduction["bearer_file"] is None
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert run.post() == (200, {})
    second = subprocess.run(
        [*run.process.args[:-1], "none"], cwd=tmp_path, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert second.returncode == 2
    assert second.stderr == f"coding-agents: --listen: cannot listen on {path}: Address already in use\n"
    assert run.end(signal.SIGTERM)[0] == 0
    assert not path.exists()


def test_a_changed_file_counts_after_sighup(tmp_path: Path, upstream: Upstream, started: Any) -> None:
    """From the next request on; a value that cannot be used leaves the former one."""
    configure(tmp_path, upstream)
    secrets = tmp_path / ".config/coding-agents/mcp-secrets.env"
    secrets.parent.mkdir(parents=True)
    secrets.write_text("TOKEN=one\n")
    secrets.chmod(0o600)
    run = started("--server", "dev", "--client-auth", "uid")
    for text, problem in (("TOKEN=one\n", None), ("TOKEN=two\n", None), ("T OKEN=three\n", "expected KEY=VALUE")):
        secrets.write_text(text)
        run.process.send_signal(signal.SIGHUP)
        taken = run.facts("secrets-taken")
        assert problem in (taken["problem"] or "") if problem else taken["problem"] is None
        assert run.post() == (200, {})
    assert upstream.credentials == ["Bearer one", "Bearer two", "Bearer two"]
    assert run.end()[0] == 0


def test_changed_pins_count_after_sighup(tmp_path: Path, tls_upstream: Upstream, started: Any) -> None:
    """From the next request on; what cannot be used, or is of a server elsewhere, leaves the former ones."""

    def pinned(pin: str, more: str = "") -> None:
        backup = "sha256/" + "E" * 43 + "="
        pins = f'[{{ spki = "{pin}" }}, {{ spki = "{backup}", backup = true }}]'
        tls = f'tls = {{ ca = "custom", ca_file = "ca.pem", pins = {{ expires = {EXPIRES}, pin = {pins} }} }}\n'
        configure(tmp_path, tls_upstream, tls + more)

    pinned(LEAF.pin)
    run = started("--server", "dev", "--secret", "TOKEN=env:T", "--client-auth", "uid", T="sesame")
    wrong = "sha256/" + "A" * 43 + "="
    steps: list[tuple[Callable[[], None], str | None, int]] = [
        (lambda: pinned(LEAF.pin), None, 200),
        (lambda: pinned("sha256/x"), "spki must be", 200),
        (lambda: pinned(wrong, "proxy = 'http://127.0.0.1:9'\n"), "is at another place now", 200),
        ((tmp_path / "config.toml").unlink, "config.toml", 200),
        (lambda: pinned(wrong), None, 502),
        (lambda: pinned(LEAF.pin), None, 200),
    ]
    for change, problem, status in steps:
        change()
        run.process.send_signal(signal.SIGHUP)
        taken = run.facts("trust-taken")
        assert (problem or "") in (taken["problem"] or "")
        assert (problem is None) == (taken["problem"] is None)
        assert run.post()[0] == status
    assert run.end()[0] == 0


def test_what_is_in_flight_is_finished_and_a_second_ctrl_c_does_not_wait(
    tmp_path: Path, upstream: Upstream, started: Any
) -> None:
    """Both from the same start; the file of the bearer goes either way."""
    configure(tmp_path, upstream)
    for impatient in (False, True):
        upstream.gate.clear()
        run = started("--server", "dev", "--secret", "TOKEN=env:T", T="x")
        with contextlib.closing(run.connect()) as connection:
            headers = {"Content-Type": "application/json", "Authorization": f"Bearer {run.bearer}"}
            connection.request("POST", "/mcp", BODY, headers)
            assert upstream.arrived.acquire(timeout=PATIENCE)
            run.process.send_signal(signal.SIGINT)
            if impatient:
                while run.takes_connections():
                    pass  # the first signal has not arrived
                assert run.end()[0] == 130
            else:
                upstream.gate.set()
                response = connection.getresponse()
                assert (response.status, response.read()) == (200, b"{}")
                assert run.process.wait(PATIENCE) == 0
        assert not Path(run.introduction["bearer_file"]).exists()


def test_a_pin_mismatch_shows_the_pins_that_were_seen(tmp_path: Path, tls_upstream: Upstream) -> None:
    """A person compares them by another way and copies one; the server was sent nothing."""
    wrong = "sha256/" + "A" * 43 + "="
    pins = f"""\
tls = {{ ca = "custom", ca_file = "ca.pem", pins = {{ expires = {EXPIRES}, pin = [
  {{ spki = "{wrong}" }}, {{ spki = "{wrong.replace("A=", "E=")}", backup = true }} ] }} }}
"""
    configure(tmp_path, tls_upstream, pins)
    process = subprocess.Popen(
        [sys.executable, "-I", "-m", SIDES["host"], "helper", "run", "--config", "config.toml", "--server", "dev",
         "--secret", "TOKEN=env:T", "--client-auth", "uid"],
        cwd=tmp_path, env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "T": "sesame"},
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    watchdog = threading.Timer(2 * PATIENCE, process.kill)
    watchdog.start()
    lines = iter(process.stdout.readline, "")
    try:
        url = next(line.split()[-1] for line in lines if line.startswith("  listens on"))
        with contextlib.closing(http.client.HTTPConnection(url.split("/")[2], timeout=PATIENCE)) as connection:
            connection.request("POST", "/mcp", BODY, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            assert (answer.status, json.loads(answer.read())["error"]["data"]["code"]) == (502, "pin_mismatch")
        shown = []
        for line in lines:
            shown.append(line.rstrip())
            if "put it into" in line:
                break
        text = "\n".join(shown)
        assert "pin mismatch at 127.0.0.1 port" in text
        assert f"           {LEAF.pin} at leaf\n" in text
        assert f"expected {wrong}" in text
    finally:
        watchdog.cancel()
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    assert tls_upstream.credentials == []


def test_control_with_the_right_pins_the_server_is_reached(
    tmp_path: Path, tls_upstream: Upstream, started: Any
) -> None:
    """Without this the test above would pass where TLS never worked."""
    pins = f"""\
tls = {{ ca = "custom", ca_file = "ca.pem", pins = {{ expires = {EXPIRES}, pin = [
  {{ spki = "{LEAF.pin}" }}, {{ spki = "sha256/{"A" * 43}=", backup = true }} ] }} }}
"""
    configure(tmp_path, tls_upstream, pins)
    run = started("--server", "dev", "--secret", "TOKEN=env:T", "--client-auth", "uid", T="sesame")
    assert run.post() == (200, {})
    assert tls_upstream.credentials == ["Bearer sesame"]
    assert run.end()[0] == 0


def test_a_reader_who_leaves_ends_it(tmp_path: Path, upstream: Upstream, started: Any) -> None:
    """As `helper run | head -1` does; the bearer's file goes with it."""
    configure(tmp_path, upstream)
    run = started("--server", "dev", "--secret", "TOKEN=env:T", T="x")
    bearer = run.bearer
    run.process.stdout.close()
    assert run.post(Authorization=f"Bearer {bearer}") == (200, {})
    assert run.process.wait(PATIENCE) == 1
    assert not Path(run.introduction["bearer_file"]).exists()
    run.process.stdout = None
