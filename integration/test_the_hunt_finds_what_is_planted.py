"""A hunt that finds nothing is evidence only if it finds what is there: each kind of place and form, as another UID."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import secrets
import shutil
import string
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

UID = 58991
PREFIX = "canary_"
LENGTH = 47
SCRIPTS = Path(__file__).parent / "demo"

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="becoming another UID needs root")


@pytest.fixture
def home() -> Iterator[Path]:
    """A directory of the other UID's, with the scripts beside it in one that it can only read."""
    with tempfile.TemporaryDirectory(prefix="hunt-") as made:
        top = Path(made)
        top.chmod(0o755)
        for name in ("hunt.py", "plant.py"):
            shutil.copy(SCRIPTS / name, top)
        directory = top / "home"
        directory.mkdir()
        os.chown(directory, UID, UID)
        yield directory


def make_secret() -> str:
    return PREFIX + "".join(secrets.choice(string.ascii_letters) for _ in range(LENGTH - len(PREFIX)))


def run(
    home: Path, script: str, *, targets: dict[str, str], under: str | None = None, since: float = 0.0
) -> dict[str, Any]:
    """Run `script` as the other UID with only what it may see, and return its report."""
    command = ["/usr/bin/python3", "-I", str(home.parent / script), "--prefix", PREFIX, "--length", str(LENGTH)]
    for name, secret in targets.items():
        command += ["--target", f"{name}={hashlib.sha256(secret.encode()).hexdigest()}"]
    command += ["--under", str(under or home), "--since", str(since)]
    done = subprocess.run(
        command, user=UID, group=UID, extra_groups=[], cwd=home, env={}, capture_output=True, check=True
    )
    assert not done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    assert report["uid"] == UID
    return report


def places(report: dict[str, Any], target: str) -> set[tuple[str, str]]:
    return {(finding["kind"], finding["form"]) for finding in report["found"] if finding["target"] == target}


KINDS = ["own-environ", "own-argv", "cmdline", "environ", "mem", "fd", "file"]


def test_a_canary_is_found_in_each_kind_of_place_and_an_absent_secret_in_none(home: Path) -> None:
    report = run(home, "plant.py", targets={"absent": make_secret()})
    assert [kind for kind in KINDS if (kind, "raw") not in places(report, f"canary-in-{kind}")] == []
    assert places(report, "absent") == set()
    assert list(report["searched"]) == KINDS
    assert list(home.iterdir()) == [], "plant.py must leave nothing behind"


def test_a_secret_in_the_memory_of_another_process_is_in_nothing_else_of_it(home: Path) -> None:
    """The canary of this kind tests `mem` alone: no environment, argv or file betrays it."""
    report = run(home, "plant.py", targets={"absent": make_secret()})
    assert {kind for kind, _ in places(report, "canary-in-mem")} == {"mem"}


@pytest.mark.parametrize(
    ("form", "encode"),
    [
        ("raw", lambda secret: secret.encode()),
        ("utf-16", lambda secret: secret.encode("utf-16-le")),
        ("utf-32", lambda secret: secret.encode("utf-32-le")),
        ("hex", lambda secret: secret.encode().hex().encode()),
        ("hex", lambda secret: secret.encode().hex().upper().encode()),
        *(
            ("base64", lambda secret, before=before, encoder=encoder: encoder(before + secret.encode() + b"\xff\xfe"))
            for before in (b"", b"u", b"u:", b"us:", b"use:", b"\xfb\xff\xbf:")
            for encoder in (base64.b64encode, base64.urlsafe_b64encode)
        ),
        ("base64", lambda secret: base64.b64encode(secret.encode())),
        ("base64", lambda secret: base64.b64encode(secret.encode()).rstrip(b"=")),
    ],
)
@pytest.mark.parametrize("offset", [0, 1, 1024 * 1024 - 20])
def test_every_form_is_recognized_wherever_it_stands_in_a_file(
    home: Path, form: str, encode: Callable[[str], bytes], offset: int
) -> None:
    """The last offset lays the secret across the border of two reads."""
    secret = make_secret()
    (home / "notes").write_bytes(b"." * offset + encode(secret) + b" and more")
    assert ("file", form) in places(run(home, "hunt.py", targets={"it": secret}), "it")


def test_a_file_that_the_uid_cannot_read_is_counted_and_not_found(home: Path) -> None:
    secret = make_secret()
    file = home / "roots"
    file.write_text(secret)
    file.chmod(0o600)
    report = run(home, "hunt.py", targets={"it": secret})
    assert places(report, "it") == set()
    assert report["searched"]["file"]["unreadable"] == 1


def test_a_secret_that_only_looks_alike_is_not_taken_for_it(home: Path) -> None:
    (home / "notes").write_text(make_secret())
    report = run(home, "hunt.py", targets={"it": make_secret()})
    assert report["found"] == []
    assert report["searched"]["file"] == {"places": 1, "bytes": LENGTH, "unreadable": 0, "capped": 0, "older": 0}


def test_setting_back_the_modification_time_hides_nothing(home: Path) -> None:
    secret = make_secret()
    since = time.time() - 1
    (home / "notes").write_text(secret)
    os.utime(home / "notes", (0, 0))
    assert places(run(home, "hunt.py", targets={"it": secret}, since=since), "it") == {("file", "raw")}


def test_a_fifo_and_a_link_do_not_stop_the_hunt(home: Path) -> None:
    os.mkfifo(home / "fifo", 0o666)
    (home / "link").symlink_to("fifo")
    (home / "loop").symlink_to(".")
    secret = make_secret()
    (home / "notes").write_text(secret)
    report = run(home, "hunt.py", targets={"it": secret})
    assert places(report, "it") == {("file", "raw")}
    assert report["searched"]["file"]["places"] == 1


def test_an_open_file_is_found_though_its_directory_is_closed(home: Path) -> None:
    secret = make_secret()
    closed = home / "closed"
    closed.mkdir(mode=0o700)
    (closed / "file").write_text(secret)
    with (closed / "file").open() as inherited:
        child = subprocess.Popen(["/usr/bin/sleep", "60"], user=UID, group=UID, pass_fds=[inherited.fileno()])
    try:
        assert ("fd", "raw") in places(run(home, "hunt.py", targets={"it": secret}), "it")
    finally:
        child.kill()
        child.wait()


def test_the_whole_machine_is_searched_in_seconds(home: Path) -> None:
    """A secret in a place that nobody told it about; the figure of the budget, three times over."""
    secret = make_secret()
    with tempfile.NamedTemporaryFile(dir="/var/tmp") as hidden:
        since = time.time() - 1
        os.fchmod(hidden.fileno(), 0o644)
        hidden.write(secret.encode())
        hidden.flush()
        report = run(home, "hunt.py", targets={"it": secret}, under="/", since=since)
    assert [(finding["kind"], finding["place"]) for finding in report["found"]] == [("file", hidden.name)]
    assert report["searched"]["file"]["older"] > 1000
    assert report["seconds"] < 45
