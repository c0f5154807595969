"""SHELL: each helper's trust anchors as a file for root: `places.TRUST`/NAME.pem, mode 0400, replaced in one step.

It shows what a helper trusts; helpers have the text over their channels and read no file. Its directory is root's alone
(`rundirs`). Decides nothing: which set holds is `helper_trust`'s.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable

from codingagents.rewrite import places
from codingagents.rewrite.specs import TlsSpec
from codingagents.supervisor.helper_trust import overrides_pins, store_sha256
from codingagents.trust.events import TrustSnapshot


class Snapshots:
    """The files of one session."""

    def __init__(self, complain: Callable[[str], object], directory: str = places.TRUST) -> None:
        """Write into `directory`; `complain` gets a sentence for each file that cannot be written."""
        self._complain = complain
        self._directory = directory

    def write(self, server: str, tls: TlsSpec) -> str | None:
        """Put `tls` in the place of the server's former copy, and return where that is.

        Where there is no room, none is left: the former one would say what is not so any more.
        """
        path = f"{self._directory}/{server}.pem"
        try:
            _replace(path, tls.anchors_pem)
        except OSError as error:
            self._complain(f"there is no copy of what {server} trusts at {path}: {error.strerror}")
            return None
        return path


def snapshot(server: str, tls: TlsSpec, file: str | None) -> TrustSnapshot:
    """Return what is recorded of a set that a helper is given; `file` is where its copy lies by now."""
    return TrustSnapshot(
        server=server,
        store=tls.store,
        store_sha256=store_sha256(tls),
        anchors=tls.anchors_pem.count("-----BEGIN CERTIFICATE-----"),
        overrides=[override.name for override in tls.overrides],
        overrides_pins=overrides_pins(tls),
        file=file,
    )


def _replace(path: str, text: str) -> None:
    draft = f"{path}.new"
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o400)
        with open(descriptor, "w", encoding="ascii") as file:
            os.fchmod(descriptor, 0o400)  # whatever the umask was
            file.write(text)
        os.replace(draft, path)
    except OSError:
        for left in (draft, path):
            with contextlib.suppress(OSError):
                os.unlink(left)
        raise
