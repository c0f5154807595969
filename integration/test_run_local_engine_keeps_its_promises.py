"""The local engine with a stub for a supervisor: what its PID 1 gets, and what the launcher makes of it."""

import fcntl
import json
import os
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from codingagents.trust import checkpoint

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="a PID namespace needs root")

DRIVER = Path(__file__).parent / "run_stub" / "driver.py"
SECONDS = 10.0


class Launched:
    """One launcher with its stub, its files below `base`."""

    def __init__(self, base: Path, mode: str, **options: Any) -> None:
        self.base = base
        self.directory = base / "sessions" / "stub"
        self.process = subprocess.Popen(
            [sys.executable, "-I", str(DRIVER), mode, str(base)], **{"stderr": subprocess.PIPE, "text": True, **options}
        )

    def seen(self, key: str) -> Any:
        """Wait until the stub has written `key`."""
        path = self.directory / "seen.json"
        return json.loads(self._until(path.read_text, lambda text: key in text))[key]

    def pid1(self) -> int:
        """Wait for the launcher's one child and return its pid out here."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return int(self._until(children.read_text, lambda text: len(text.split()) == 1))

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def end(self) -> tuple[int, str]:
        """Return exit code and standard error."""
        _, errors = self.process.communicate(timeout=SECONDS)
        return self.process.returncode, errors or ""

    @staticmethod
    def _until(read: Callable[[], str], good: Callable[[str], bool]) -> str:
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            try:
                if good(text := read()):
                    return text
            except FileNotFoundError:
                pass
            time.sleep(0.01)
        raise AssertionError("it did not happen in time")


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Callable[..., Launched]]:
    started: list[Launched] = []

    def start(mode: str, **options: Any) -> Launched:
        started.append(Launched(tmp_path / "base", mode, **options))
        return started[-1]

    yield start
    for each in started:
        if each.process.poll() is None:
            each.process.kill()
        each.process.communicate(timeout=SECONDS)


def test_the_supervisor_is_pid_1_and_gets_its_secrets_over_the_descriptor_and_nothing_else(
    launch: Callable[..., Launched],
) -> None:
    """Its argv, environment and descriptors are listed whole."""
    stray = os.dup(0)
    environment = {
        "PATH": "/tmp/evil",
        "TERM": "dumb",
        "LANG": "C.UTF-8",
        "HOME": "/root",
        "TOKEN": "canary",
        "LD_PRELOAD": "",
    }
    launched = launch("report", env=environment, pass_fds=[stray], cwd=DRIVER.parent)
    os.close(stray)
    assert launched.seen("secrets") == {"TOKEN": "canary-of-the-launcher"}
    assert launched.seen("pid") == 1
    assert launched.seen("argv")[1:] == ["report", "init", "--session", str(launched.directory), "--control-fd", "3"]
    assert launched.seen("environment") == {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "TERM": "dumb",
        "LANG": "C.UTF-8",
    }
    assert launched.seen("fds") == [0, 1, 2, 3]
    assert launched.seen("blocked") == []
    assert launched.seen("session_leader") is False
    assert launched.end()[0] == 7


def test_the_newest_checkpoint_is_kept_outside(
    launch: Callable[..., Launched],
) -> None:
    """Sizes 3, 5 and 4 came; 5 stays, and verifies with the key that lies beside it."""
    launched = launch("report")
    code, errors = launched.end()
    trusted = launched.base / "trusted"
    key = checkpoint.parse_key_line((trusted / "stub.pub").read_text())
    assert checkpoint.open_checkpoint((trusted / "stub.checkpoint").read_text(), key.public_key).size == 5
    assert (code, errors) == (7, "")
    assert list(launched.directory.glob("*.checkpoint")) == []


def test_a_secret_that_changes_in_its_file_is_sent(launch: Callable[..., Launched], tmp_path: Path) -> None:
    """Once, over the descriptor that the first ones came over."""
    file = tmp_path / "base" / "mcp-secrets.env"
    file.parent.mkdir(mode=0o700)
    for text in ("TOKEN=canary-of-the-launcher\n", "TOKEN=renewed\n"):
        file.touch(mode=0o600)
        file.write_text(text)
        if "renewed" not in text:
            launched = launch("renewed")
            assert launched.seen("ready")
    assert launched.seen("renewed") == {"TOKEN": "renewed"}
    assert launched.end() == (0, "")


def test_every_forwarded_signal_arrives_once(launch: Callable[..., Launched]) -> None:
    """Sent to the launcher alone, as `kill` does; it has a terminal, or a hang-up would be its own."""
    master, slave = os.openpty()
    launched = launch("signals", start_new_session=True, preexec_fn=lambda: fcntl.ioctl(slave, termios.TIOCSCTTY, 0))
    assert launched.seen("ready")
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH):
        launched.send(number)
        time.sleep(0.05)
    launched.send(signal.SIGTERM)
    assert launched.seen("got") == ["SIGHUP", "SIGINT", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGWINCH", "SIGTERM"]
    assert launched.end() == (143, "")
    os.close(master)
    os.close(slave)


def test_without_a_terminal_a_hang_up_is_the_launchers_own(launch: Callable[..., Launched]) -> None:
    """It reloads what the session's servers are trusted by; here there is no configuration to read."""
    launched = launch("signals", start_new_session=True)
    assert launched.seen("ready")
    launched.send(signal.SIGHUP)
    time.sleep(0.05)
    launched.send(signal.SIGTERM)
    assert launched.seen("got") == ["SIGTERM"]
    code, said = launched.end()
    missing = f"there is no configuration file {launched.base}/config.toml; write one, or name another"
    assert (code, said) == (143, f"coding-agents: trust reload: nothing was changed: {missing}\n")


def test_a_signal_before_pid_1_can_take_it_waits_for_it(launch: Callable[..., Launched]) -> None:
    """The kernel would drop it: PID 1 has no handler yet."""
    launched = launch("slow")
    assert launched.seen("ready") is False
    launched.send(signal.SIGTERM)
    assert launched.seen("got") == ["SIGTERM"]
    assert launched.end() == (143, "")


def test_control_the_kernel_drops_such_a_signal(launch: Callable[..., Launched]) -> None:
    """Without this the test above could not fail."""
    launched = launch("slow")
    assert launched.seen("ready") is False
    os.kill(launched.pid1(), signal.SIGTERM)
    time.sleep(0.6)
    launched.send(signal.SIGUSR1)
    launched.send(signal.SIGTERM)
    assert launched.seen("got") == ["SIGUSR1", "SIGTERM"]


def test_an_ignored_hang_up_stays_ignored(launch: Callable[..., Launched]) -> None:
    """`nohup coding-agents run …`."""
    launched = launch("signals", preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    assert launched.seen("ready")
    launched.send(signal.SIGHUP)
    time.sleep(0.05)
    launched.send(signal.SIGTERM)
    assert launched.seen("got") == ["SIGTERM"]


def test_a_terminals_interrupt_arrives_once(launch: Callable[..., Launched]) -> None:
    """The terminal signals the whole foreground group, PID 1 in it; a second one from us would be a second Ctrl-C."""
    master, slave = os.openpty()
    launched = launch(
        "signals",
        stdin=slave,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(slave)
    assert launched.seen("ready")
    os.write(master, b"\x03")
    time.sleep(0.2)
    launched.send(signal.SIGTERM)
    assert launched.seen("got") == ["SIGINT", "SIGTERM"]
    assert launched.end()[0] == 143
    os.close(master)


def test_the_launchers_death_is_an_end_of_file(launch: Callable[..., Launched]) -> None:
    """SIGKILL leaves it no time to say anything."""
    launched = launch("orphan")
    assert launched.seen("ready")
    watched = os.pidfd_open(launched.pid1())
    launched.process.kill()
    assert launched.seen("eof")
    assert select.select([watched], [], [], SECONDS)[0]
    os.close(watched)


@pytest.mark.parametrize(("how", "code"), [("crash", 139), ("kill", 137)])
def test_death_by_a_signal_is_128_and_its_number(launch: Callable[..., Launched], how: str, code: int) -> None:
    """As shells and engines have it."""
    launched = launch("crash" if how == "crash" else "orphan")
    if how == "kill":
        assert launched.seen("ready")
        os.kill(launched.pid1(), signal.SIGKILL)
    assert launched.end() == (code, "")


def test_a_line_that_is_no_message_ends_the_session(launch: Callable[..., Launched]) -> None:
    """The channel is closed, which the supervisor answers by ending; our own failure is 125."""
    launched = launch("garbage")
    code, errors = launched.end()
    assert (code, errors.count("\n")) == (125, 1)
    assert errors.startswith("coding-agents: the session was ended: its supervisor sent what is no control message")
    assert launched.seen("eof")
