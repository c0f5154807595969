"""The file that shows what a helper trusts: whole, private, replaced in one step, and not there where it would lie."""

import hashlib
import os
from pathlib import Path

from codingagents.rewrite.specs import OverrideSpec, TlsSpec
from codingagents.supervisor.trust_snapshot import Snapshots, snapshot
from codingagents.trust.events import TrustSnapshot

PEM = "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n"
OVERRIDES = [OverrideSpec(name="corp", anchors=[], override_pins=True), OverrideSpec(name="lab", anchors=[])]


def tls(pem: str) -> TlsSpec:
    return TlsSpec(server_name="a.test", anchors_pem=pem, store="custom", overrides=OVERRIDES)


def test_the_newest_set_lies_there_whole_and_private(tmp_path: Path) -> None:
    """Whatever the umask is, and though the former file cannot be written."""
    complaints: list[str] = []
    snapshots = Snapshots(complaints.append, str(tmp_path))
    before = os.umask(0)
    try:
        for pem in (PEM, PEM * 2):
            event = snapshot("one", tls(pem), snapshots.write("one", tls(pem)))
    finally:
        os.umask(before)
    path = tmp_path / "one.pem"
    assert event == TrustSnapshot(
        server="one",
        store="custom",
        store_sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        anchors=2,
        overrides=["corp", "lab"],
        overrides_pins=["corp"],
        file=str(path),
    )
    assert path.read_text() == PEM * 2
    assert oct(path.stat().st_mode) == "0o100400"
    assert os.listdir(tmp_path) == ["one.pem"]
    assert complaints == []


def test_where_it_cannot_be_written_none_is_left_and_that_is_said(tmp_path: Path) -> None:
    complaints: list[str] = []
    snapshots = Snapshots(complaints.append, str(tmp_path))
    snapshots.write("one", tls(PEM))
    (tmp_path / "one.pem.new").mkdir()  # also to root in the way
    assert snapshots.write("one", tls(PEM * 2)) is None
    assert not (tmp_path / "one.pem").exists()
    assert complaints == [f"there is no copy of what one trusts at {tmp_path}/one.pem: File exists"]
