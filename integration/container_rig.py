"""A Docker Engine of our own, and sessions in its containers.

    with Engine(directory) as engine:
        engine.build_image(say)
        with Upstream(engine) as upstream:
            session = Session(engine, upstream, ["--cap-add", "SYS_ADMIN"])
            with session.start(["python3", "agent.py"]) as running: ...

The engine (dockerd with its containerd, shims and containers) lives in a PID and a mount namespace of its own: it meets
no engine that the machine already runs, and whatever happens, nothing of it outlives the test run.
"""

from __future__ import annotations

import contextlib
import datetime
import glob
import hashlib
import json
import os
import pty
import select
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import container_image
import pki
from codingagents.rewrite import places
from codingagents.rewrite.overrides import Anchors
from codingagents.rewrite.parse import parse_config
from codingagents.rewrite.plan import plan_session, uid_plan
from codingagents.rewrite.specs import SessionSecrets, SessionSpec
from codingagents.trust import checkpoint, wire
from codingagents.trust.encoding import decode_line
from codingagents.trust.events import AnyEvent, Layer, LayerReport
from codingagents.trust.logfile import read_lines
from codingagents.trust.verify import Verified, verify_log
from codingagents.trust.vocabulary import Secret, SessionId

IMAGE = "coding-agents-test:1"
PATIENCE = 60.0  # seconds; only a failing test waits that long
SCRIPTS = Path(__file__).parent / "container"
UID_BASE = 52000
AGENT_UID = UID_BASE
UPSTREAM_NAME = "upstream.test"
GOOD_PORT, WRONG_PORT = 8443, 8444
TOKEN = "upstream-token-of-the-container-test"
_NAMESPACES = (
    *("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "private"),
)
# dockerd starts a containerd of its own where it finds none in the usual place. Images and containers, some 400 MB, lie
# in memory: nothing of them is worth a disk's time, and they go with the mount namespace. Where nothing is forwarded
# the client warns of each container, which tests would take for the container's own words.
_ENTER = """
mount -o remount,rw /proc/sys 2>/dev/null; echo 1 >/proc/sys/net/ipv4/ip_forward
if [ -d /run/containerd ]; then mount -t tmpfs none /run/containerd; fi
mkdir "$1" && mount -t tmpfs none "$1" && shift && exec "$@"
"""


_EXEC_TABLE = """
[exec]
rules = [{ deny = "/usr/bin/tac" }]
"""


def _server_table(name: str, port: int, pin: str, backup_pin: str) -> str:
    expires = datetime.datetime.now(datetime.UTC).date() + datetime.timedelta(days=180)
    return f"""
[mcp_servers.{name}]
url = "https://{UPSTREAM_NAME}/mcp"
connect_to = "127.0.0.1:{port}"
allow_private = true
bearer_token_env_var = "TOKEN"
[mcp_servers.{name}.tls]
ca = "custom"
ca_file = "/not/read/here"
[mcp_servers.{name}.tls.pins]
expires = {expires}
pin = [{{ spki = "{pin}" }}, {{ spki = "{backup_pin}", backup = true }}]
"""


class Engine:
    """A running dockerd; `engine("run", …)` is the docker client talking to it."""

    name = "docker"
    run_flags: tuple[str, ...] = ()  # of every container
    rm: tuple[str, ...] = ("rm", "--force")

    def __init__(self, directory: Path) -> None:
        """Use `directory` for everything; its path must be short, for sockets lie below it."""
        self._directory = directory
        self._socket = directory / "docker.sock"
        self._cgroup = f"coding-agents-{os.getpid()}"
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("DOCKER_")},
            "DOCKER_HOST": f"unix://{self._socket}",
            "DOCKER_CONFIG": str(directory / "client"),
        }

    def __enter__(self) -> Self:
        for program in ("dockerd", "docker"):
            if shutil.which(program) is None:
                raise SystemExit(f"there is no {program}; run integration/setup.sh test")
        data = f"{self._directory}/data"
        config = self._directory / "daemon.json"
        config.write_text("{}")  # or it reads the machine's own in /etc/docker
        command = [
            *("dockerd", "--data-root", data, "--exec-root", f"{self._directory}/exec"),
            *("--host", f"unix://{self._socket}", "--pidfile", f"{self._directory}/dockerd.pid"),
            *(
                "--config-file",
                str(config),
                "--bridge=none",
                "--iptables=false",
                "--ip6tables=false",
                "--ip-forward=false",
            ),
            *("--exec-opt", "native.cgroupdriver=cgroupfs", "--cgroup-parent", f"/{self._cgroup}"),
        ]
        with open(self._directory / "dockerd.log", "wb") as log:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *_NAMESPACES, "sh", "-c", _ENTER, "sh", data, *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        try:
            deadline = time.monotonic() + PATIENCE
            while self("version", check=False).returncode != 0:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit(
                        f"dockerd does not start:\n{(self._directory / 'dockerd.log').read_text()[-3000:]}"
                    )
                time.sleep(0.05)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            left = self("ps", "--all", "--quiet", check=False).stdout.split()
            if left:
                self(*self.rm, *left, check=False)
            # dockerd is the one child: `unshare` itself passes no signal on.
            children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
            for child in children:
                os.kill(int(child), signal.SIGTERM)
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()  # takes the namespace's init, and so all of it, along
                self._process.wait()
        for path in (*glob.glob(f"/sys/fs/cgroup/{self._cgroup}"), *glob.glob(f"/sys/fs/cgroup/*/{self._cgroup}")):
            with contextlib.suppress(OSError):
                os.rmdir(path)

    def client(self, *arguments: str) -> list[str]:
        """Return the command line of the engine's client."""
        return ["docker", *arguments]

    def popen(self, *arguments: str, **options: Any) -> subprocess.Popen[bytes]:
        return subprocess.Popen(self.client(*arguments), env=self._environment, **options)

    def __call__(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            self.client(*arguments),
            check=False,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
        assert not check or done.returncode == 0, (
            f"{self.name} {arguments} exited with {done.returncode}: {done.stderr}"
        )
        return done

    def build_image(self, say: Callable[[str], None]) -> None:
        """Make IMAGE; `say` gets a line where that takes long."""
        self("import", str(container_image.base_root(say)), "coding-agents-base:1")
        with tempfile.TemporaryDirectory(prefix="context-", dir=self._directory) as context:
            container_image.make_context(Path(context))
            self("build", "--build-arg", "BASE=coding-agents-base:1", "--tag", IMAGE, context)

    def run(self, flags: Sequence[str], *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run `command` in a new container without a network, to its end."""
        return self("run", "--rm", "--network=none", *self.run_flags, *flags, IMAGE, *command, check=check)

    @contextlib.contextmanager
    def running(self, flags: Sequence[str], *command: str, **options: Any) -> Iterator[Running]:
        """Start `command` in a new container, the client attached; when the block ends, the container is removed.

        Not by `--rm`: what it left in its file system can be looked at before.
        """
        name = f"c{os.urandom(6).hex()}"
        options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
        process = self.popen("run", "--name", name, *self.run_flags, *flags, IMAGE, *command, **options)
        try:
            yield Running(self, name, process)
        finally:
            self(*self.rm, name, check=False)
            process.wait(PATIENCE)
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None:
                    stream.close()

    @contextlib.contextmanager
    def on_terminal(self, flags: Sequence[str], *command: str) -> Iterator[Terminal]:
        """Start `command` with `--interactive --tty`, the client on a terminal of ours."""
        ours, theirs = pty.openpty()
        try:
            with self.running(
                ["--interactive", "--tty", *flags], *command, stdin=theirs, stdout=theirs, stderr=theirs
            ) as running:
                yield Terminal(running, ours)
        finally:
            os.close(ours)
            os.close(theirs)


class Running:
    """A container that runs, and the docker client that is attached to it."""

    def __init__(self, engine: Engine, name: str, process: subprocess.Popen[bytes]) -> None:
        self.engine = engine
        self.name = name
        self.process = process

    def until(self, condition: Callable[[], Any], what: str) -> Any:
        """Return the first true value of `condition()`; fails with `what`."""
        deadline = time.monotonic() + PATIENCE
        while not (value := condition()):
            assert self.process.poll() is None, f"it ended before: {what}"
            assert time.monotonic() < deadline, f"waited in vain: {what}"
            time.sleep(0.05)
        return value

    def line(self) -> str:
        """Return the next line of its standard output; fails where it ends instead."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise AssertionError(f"it ended with {self.process.wait(PATIENCE)}: {self.errors()}")
        return line.decode().rstrip("\n")

    def errors(self) -> str:
        assert self.process.stderr is not None
        return self.process.stderr.read().decode()

    def wait(self) -> int:
        return self.process.wait(PATIENCE)

    def exec(self, *command: str) -> str:
        """Run a command in the container, beside what runs there, as root; return its output."""
        return self.engine("exec", self.name, *command).stdout

    def stop(self, *options: str) -> float:
        """`docker stop`; return how many seconds it took."""
        before = time.monotonic()
        self.engine("stop", *options, self.name)
        return time.monotonic() - before


class Terminal:
    """What a person at the docker client's terminal types and sees."""

    def __init__(self, running: Running, descriptor: int) -> None:
        self.running = running
        self._descriptor = descriptor
        self.seen = ""

    def type(self, text: str) -> None:
        os.write(self._descriptor, text.encode())

    def expect(self, text: str) -> str:
        """Return what is shown up to and including `text`; fails where it does not come."""
        deadline = time.monotonic() + PATIENCE
        while text not in self.seen:
            ready, _, _ = select.select([self._descriptor], [], [], max(0, deadline - time.monotonic()))
            assert ready, f"{text!r} does not come; pending: {self.seen!r}"
            self.seen += os.read(self._descriptor, 65536).decode(errors="replace")
        before, _, self.seen = self.seen.partition(text)
        return before + text


class Upstream:
    """The upstream server's container. Sessions share its network, which has nothing but a loopback interface."""

    def __init__(self, engine: Engine, directory: Path) -> None:
        self._engine = engine
        self._directory = directory
        self.root = pki.make_root()
        self.leaf = self.root.issue([UPSTREAM_NAME])
        directory.mkdir()
        (directory / "chain.pem").write_text(self.leaf.chain_pem)
        (directory / "key.pem").write_text(self.leaf.key_pem)
        (directory / "token.sha256").write_text(hashlib.sha256(TOKEN.encode()).hexdigest())

    def __enter__(self) -> Self:
        flags = ["--network=none", "--volume", f"{self._directory}:/upstream", "--volume", f"{SCRIPTS}:/scripts:ro"]
        ports = [str(GOOD_PORT), str(WRONG_PORT)]
        command = ("/usr/bin/python3", "-I", "/scripts/upstream.py", "/upstream", *ports)
        self._stack = contextlib.ExitStack()
        running = self._stack.enter_context(self._engine.running(flags, *command))
        self.name = running.name
        assert {running.line(), running.line()} == set(ports)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def take_record(self) -> list[dict[str, int]]:
        """Return one entry for each connection since the last call."""
        path = self._directory / "record.jsonl"
        lines = path.read_text().splitlines()
        path.write_text("")
        return [json.loads(line) for line in lines]


class Session:
    """A session's directory and workspace on the host, and the keys that stay outside.

    `tables` is the part of config.toml that is not about servers; `planned` replaces what `plan_session` is given.
    """

    def __init__(self, upstream: Upstream, directory: Path, *, tables: str = _EXEC_TABLE, **planned: Any) -> None:
        self._upstream = upstream
        self.directory = directory / "session"
        self.workspace = directory / "workspace"
        self.id = SessionId(f"container-{os.urandom(4).hex()}")
        self._key = checkpoint.new_key(os.urandom(32))
        self.directory.mkdir(mode=0o700, parents=True)
        self.workspace.mkdir()
        shutil.copy(SCRIPTS / "agent.py", self.workspace)
        shutil.copyfile("/usr/bin/true", self.workspace / "outside")
        (self.workspace / "outside").chmod(0o755)
        self.spec = self._plan(tables, planned)
        self.write_spec()

    def _plan(self, tables: str, planned: Mapping[str, Any]) -> SessionSpec:
        right, other, unused = self._upstream.leaf.pin, pki.make_root("Other").pin, pki.make_root("Backup").pin
        servers = [_server_table("good", GOOD_PORT, right, unused), _server_table("wrong", WRONG_PORT, other, unused)]
        text = "\n".join([tables, *servers])
        config = parse_config(text, "config.toml")
        usual: dict[str, Any] = {
            "agent": "codex",
            "command": ["/usr/bin/python3", "-I", "agent.py"],
            "working_directory": "/workspace",
            "environment": {},
        }
        return plan_session(
            config,
            session=self.id,
            engine="docker",
            uids=uid_plan(UID_BASE, [server.name for server in config.active]),
            secret_names_available=["TOKEN"],
            anchors={server.name: Anchors(pem=self._upstream.root.pem) for server in config.active},
            public_key=checkpoint.public_key(self._key),
            config_sha256=hashlib.sha256(text.encode()).hexdigest(),
            today=datetime.datetime.now(datetime.UTC).date(),
            **{**usual, **planned},
        )

    def write_spec(self) -> None:
        """Put `spec` where the supervisor reads it."""
        (self.directory / places.SESSION_SPEC).write_bytes(wire.encode(self.spec))

    @property
    def secrets_line(self) -> bytes:
        """What a launcher sends over the control channel."""
        secrets = SessionSecrets(secrets={"TOKEN": Secret(TOKEN)}, signing_key=self._key)
        return wire.encode(secrets, reveal_secrets=True)

    @property
    def volumes(self) -> list[str]:
        return ["--volume", f"{self.directory}:/session", "--volume", f"{self.workspace}:{self.spec.working_directory}"]

    @property
    def network(self) -> str:
        return f"--network=container:{self._upstream.name}"

    @contextlib.contextmanager
    def start(self, engine: Engine, flags: Sequence[str], *command: str) -> Iterator[Running]:
        """Run the session in a container with `flags`, its secrets on standard input."""
        init = ("coding-agents", "init", "--session", "/session", "--control-fd", "0", "--", *command)
        options = ["--interactive", self.network, *self.volumes, *flags]
        with engine.running(options, *init, stdin=subprocess.PIPE) as running:
            assert running.process.stdin is not None
            # A container that cannot start closes it; what it says then is in `errors`.
            with contextlib.suppress(BrokenPipeError):
                running.process.stdin.write(self.secrets_line)
                running.process.stdin.flush()
            yield running

    def verify(self) -> Verified:
        """Prove the log with the key that never was in the container; `ChainError` where it does not hold."""
        lines = read_lines(str(self.directory / places.EVENT_LOG))
        return verify_log(lines, checkpoint.public_key(self._key), expect_session=self.id)

    def events(self) -> list[AnyEvent]:
        return [decode_line(line).event for line in (self.directory / places.EVENT_LOG).read_bytes().splitlines()]

    def layers(self) -> Mapping[str, Layer]:
        """Return the layer report of the agent."""
        (report,) = [each for each in self.events() if isinstance(each, LayerReport) and each.role == "agent"]
        return {row.layer: row for row in report.layers}
