"""`coding-agents helper run` where it cannot do what it was asked: one sentence, an exit code, and nothing left."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from helper_run_rig import BODY, PATIENCE, SIDES, Upstream, configure

pytest_plugins = ("helper_run_fixtures",)


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
