"""`coding-agents helper run` as a person runs it: a real process and a real server, on the host and in a container."""

from __future__ import annotations

import contextlib
import datetime
import http.client
import http.server
import json
import os
import signal
import socket
import ssl
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from pki import Issued, make_root

ROOT = make_root()
LEAF = ROOT.issue(["mcp.example.com"])
NOBODY_ELSE: Mapping[str, Any] = {}
SIDES = {"host": "codingagents.launcher", "container": "codingagents.supervisor"}
BODY = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo"}}'
EXPIRES = datetime.datetime.now(datetime.UTC).date() + datetime.timedelta(days=100)
PATIENCE = 30  # seconds, for what takes one; only a hang reaches it


class Upstream(http.server.ThreadingHTTPServer):
    """An MCP server's place; keeps what credential each request had. `gate` holds answers back while it is clear."""

    daemon_threads = True

    def __init__(self, identity: Issued | None = None) -> None:
        self.credentials: list[str | None] = []
        self.arrived = threading.Semaphore(0)
        self.gate = threading.Event()
        self.gate.set()
        super().__init__(("127.0.0.1", 0), _Handler)
        if identity is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            with open(os.memfd_create("identity"), "wb") as file:
                file.write((identity.key_pem + identity.chain_pem).encode())
                file.flush()
                context.load_cert_chain(f"/proc/self/fd/{file.fileno()}")
            self.socket = context.wrap_socket(self.socket, server_side=True)

    def handle_error(self, *_: object) -> None:
        """A client that distrusts us ends the handshake: that is what some tests are about."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Upstream

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.credentials.append(self.headers["Authorization"])
        self.server.arrived.release()
        self.server.gate.wait(PATIENCE)
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    yield from serving(Upstream())


@pytest.fixture
def tls_upstream() -> Iterator[Upstream]:
    yield from serving(Upstream(LEAF))


def serving(server: Upstream) -> Iterator[Upstream]:
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.gate.set()
    server.shutdown()
    thread.join()
    server.server_close()


class Run:
    """One `helper run` with --json, from its first line on."""

    def __init__(
        self, home: Path, *options: str, side: str = "host", user: Mapping[str, Any] = NOBODY_ELSE, **environment: str
    ) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-m", SIDES[side], "helper", "run", "--config", "config.toml", *options],
            cwd=home, env={"PATH": os.environ["PATH"], "HOME": str(home), **environment},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **user,
        )  # fmt: skip
        # A helper that says nothing is ended, so that whoever waits for its line finds out.
        self._watchdog = threading.Timer(2 * PATIENCE, self.process.kill)
        self._watchdog.start()
        self.introduction = self.line()

    def clear_away(self) -> None:
        self._watchdog.cancel()
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()

    def line(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.process.communicate()
        found: dict[str, Any] = json.loads(line)
        return found

    def facts(self, kind: str) -> dict[str, Any]:
        """The next fact of that kind."""
        while (found := self.line())["fact"] != kind:
            pass
        return found

    @property
    def bearer(self) -> str:
        return Path(self.introduction["bearer_file"]).read_text()

    def connect(self) -> http.client.HTTPConnection:
        if self.introduction["socket_path"]:
            connection = http.client.HTTPConnection("localhost", timeout=PATIENCE)
            connection.sock = socket.socket(socket.AF_UNIX)
            connection.sock.connect(self.introduction["socket_path"])
            return connection
        return http.client.HTTPConnection(self.introduction["url"].split("/")[2], timeout=PATIENCE)

    def takes_connections(self) -> bool:
        with contextlib.closing(self.connect()) as connection:
            try:
                connection.connect()
            except ConnectionError:
                return False
            return True

    def post(self, **headers: str) -> tuple[int, dict[str, Any]]:
        with contextlib.closing(self.connect()) as connection:
            connection.request("POST", "/mcp", BODY, {"Content-Type": "application/json", **headers})
            response = connection.getresponse()
            return response.status, json.loads(response.read())

    def end(self, number: int = signal.SIGINT) -> tuple[int, str, str]:
        self.process.send_signal(number)
        output, errors = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, output, errors


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Any]:
    runs: list[Run] = []

    def start(*options: str, home: Path = tmp_path, **more: Any) -> Run:
        runs.append(Run(home, "--json", *options, **more))
        return runs[-1]

    yield start
    for run in runs:
        run.clear_away()


def configure(home: Path, server: Upstream, tls: str = "") -> None:
    scheme = "https" if tls else "http"
    (home / "ca.pem").write_text(ROOT.pem)
    more = f'connect_to = "127.0.0.1:{server.server_port}"\n{tls}' if tls else "allow_plaintext = true\n"
    (home / "config.toml").write_text(
        f"""\
[mcp_servers.dev]
url = "{scheme}://{"mcp.example.com" if tls else f"127.0.0.1:{server.server_port}"}/mcp"
bearer_token_env_var = "TOKEN"
{more}"""
    )


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


@pytest.mark.parametrize("side", SIDES)
def test_output_that_cannot_be_written_ends_it_with_a_sentence(tmp_path: Path, upstream: Upstream, side: str) -> None:
    configure(tmp_path, upstream)
    with quiet(tmp_path, ">/dev/full", side) as process:
        _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert said == b"coding-agents: standard output cannot be written: No space left on device; ending\n"


@pytest.mark.parametrize("redirection", [">&-", "<&- >&- 2>&-"])
def test_who_closed_its_streams_is_served_without_a_word(tmp_path: Path, upstream: Upstream, redirection: str) -> None:
    """What is opened next would take their place, and an event loop does not close such a descriptor: it aborts."""
    configure(tmp_path, upstream)
    with quiet(tmp_path, redirection, "host") as process:
        connection = http.client.HTTPConnection("localhost", timeout=PATIENCE)
        with contextlib.closing(connection), socket.socket(socket.AF_UNIX) as connection.sock:
            while connection.sock.connect_ex(str(tmp_path / "helper.sock")) != 0:
                assert process.poll() is None
                time.sleep(0.01)
            connection.request("POST", "/mcp", BODY, {"Content-Type": "application/json"})
            assert connection.getresponse().status == 200
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=PATIENCE)
    assert (process.returncode, said) == (0, b"")


@contextlib.contextmanager
def quiet(home: Path, redirection: str, side: str) -> Iterator[subprocess.Popen[bytes]]:
    """A `helper run` on a unix socket whose streams a shell redirects."""
    options = ["--config", "config.toml", "--server", "dev", "--secret", "TOKEN=env:T", "--client-auth", "uid"]
    process = subprocess.Popen(
        ["sh", "-c", f'exec "$@" {redirection}', "sh", sys.executable, "-I", "-m", SIDES[side], "helper", "run",
         *options, "--listen", f"unix:{home}/helper.sock"],
        cwd=home, env={"PATH": os.environ["PATH"], "HOME": str(home), "T": "x"},
        stdin=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    watchdog = threading.Timer(2 * PATIENCE, process.kill)
    watchdog.start()
    try:
        yield process
    finally:
        watchdog.cancel()
        process.kill()
        process.communicate()


MISTAKES: dict[str, tuple[list[str], int, str]] = {
    "no server": ([], 2, "the following arguments are required: --server; see: coding-agents helper run --help"),
    "unknown server": (["--server", "dve"], 3, 'config.toml has no server "dve"; did you mean "dev"?'),
    "no file": (
        ["--config", "no.toml", "--server", "dev"],
        3,
        "there is no configuration file no.toml; write one, or name another",
    ),
    "no secret": (
        ["--server", "dev"],
        2,
        (
            "config.toml: [mcp_servers.dev] needs the secret TOKEN; "
            "give it with --secret TOKEN=env:VARIABLE or in mcp-secrets.env"
        ),
    ),
    "a secret as an argument": (
        ["--server", "dev", "--secret", "TOKEN=hunter2"],
        2,
        "--secret TOKEN: write NAME=env:VARIABLE or NAME=file:PATH; the value is never an argument",
    ),
    "an address that others reach": (
        ["--server", "dev", "--listen", "0.0.0.0:80"],
        2,
        "--listen must be 127.0.0.1:PORT or unix:/PATH: a helper is for this machine alone",
    ),
    "no such authentication": (
        ["--server", "dev", "--client-auth", "all"],
        2,
        "--client-auth must be one of none uid bearer uid,bearer",
    ),
    "events that cannot be": (
        ["--server", "dev", "--secret", "TOKEN=env:T", "--events", "no/facts"],
        2,
        "--events: cannot write {home}/no/facts: No such file or directory",
    ),
    "events for a pipe without a reader": (
        ["--server", "dev", "--secret", "TOKEN=env:T", "--events", "facts.pipe"],
        2,
        "--events: cannot write {home}/facts.pipe: nobody reads it; start its reader first",
    ),
    "events in a file that cannot be named": (
        ["--server", "dev", "--secret", "TOKEN=env:T", "--events", os.fsdecode(b"facts.\xff")],
        2,
        "--events: a path that is not UTF-8 cannot be passed on; use another",
    ),
    "a secret in a file that cannot be named": (
        ["--server", "dev", "--secret", os.fsdecode(b"TOKEN=file:token.\xff")],
        2,
        "--secret TOKEN: a path that is not UTF-8 cannot be passed on; use another",
    ),
    "a secret that is no header": (
        ["--server", "dev", "--secret", "TOKEN=env:LINES"],
        2,
        "the value of header Authorization is empty, not ASCII, or holds a control character or line break",
    ),
}


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_sentence(tmp_path: Path, upstream: Upstream, side: str, mistake: str) -> None:
    """The same on both sides, nothing on the output, and nothing is left."""
    options, code, sentence = MISTAKES[mistake]
    configure(tmp_path, upstream)
    os.mkfifo(tmp_path / "facts.pipe")
    with open(os.open(tmp_path / os.fsdecode(b"token.\xff"), os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
        file.write("hunter2")
    before = sorted(tmp_path.rglob("*"))
    done = subprocess.run(
        [sys.executable, "-I", "-m", SIDES[side], "helper", "run", *options]
        if "--config" in options
        else [sys.executable, "-I", "-m", SIDES[side], "helper", "run", "--config", "config.toml", *options],
        cwd=tmp_path, env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "T": "hunter2", "LINES": "a\nb"},
        capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr == f"coding-agents: {sentence.format(home=tmp_path)}\n"
    assert sorted(tmp_path.rglob("*")) == before


def test_an_account_without_a_home_is_told_so() -> None:
    """A container's user may be a number that no account has."""
    user: dict[str, Any] = {"user": 54_321, "group": 54_321, "extra_groups": []} if os.geteuid() == 0 else {}
    done = subprocess.run(
        [sys.executable, "-I", "-m", SIDES["container"], "helper", "run", "--server", "dev"],
        env={"PATH": os.environ["PATH"]}, capture_output=True, text=True, timeout=PATIENCE, check=False, **user,
    )  # fmt: skip
    sentence = "there is no home directory to look for configuration and secrets in; set HOME"
    if user:
        assert (done.returncode, done.stderr) == (2, f"coding-agents: {sentence}\n")
    else:  # whoever runs the tests has one
        assert done.returncode == 3


@pytest.mark.parametrize("side", SIDES)
def test_help_is_there(side: str) -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-m", SIDES[side], "helper", "run", "--help"],
        capture_output=True, text=True, timeout=PATIENCE, check=True,
    )  # fmt: skip
    assert done.stdout.startswith("usage: coding-agents helper run [OPTION]… --server NAME\n")
    assert "--client-auth HOW" in done.stdout


def test_the_program_itself_is_not_for_people() -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-m", "codingagents.proxies.foreground"],
        capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (2, "coding-agents: this is started by: coding-agents helper run\n")
