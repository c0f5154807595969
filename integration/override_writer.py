"""A process that writes to a store of overrides and dies where it is told to: `python -I override_writer.py …`.

    override_writer.py HOW DIRECTORY ACTION NAME VERSION PEM DEATH

`HOW` is `ours`, or `naive` for a store that writes its two files one after the other: what the tests must catch.
`ACTION` is add, replace, remove, or `forever`, which replaces without end, one line of output for each. At step number
DEATH (0: never) the process kills itself; steps are CPython's audit events for files, each just before it is done.
"""

from __future__ import annotations

import datetime
import itertools
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from codingagents.rewrite.certificates import parse_certificates, to_pem
from codingagents.rewrite.override_store import OverrideStore
from codingagents.rewrite.overrides import Override, to_toml
from codingagents.rewrite.private_files import replace_private
from codingagents.trust.der import certificate_sha256, spki_pin
from codingagents.trust.errors import AgentError

STEPS = frozenset({"open", "os.mkdir", "os.rename", "os.remove", "os.listdir", "os.scandir", "fcntl.flock"})
_WHEN = datetime.datetime(2100, 1, 1, tzinfo=datetime.UTC)


def override(name: str, version: str, certificate: bytes) -> Override:
    """An override that tells its version by its scope."""
    return Override(
        name=name,
        sha256=certificate_sha256(certificate),
        spki=spki_pin(certificate),
        subject="CN=Test",
        issuer="CN=Test",
        not_after=_WHEN,
        scope=(f"{version}.example",),
        added=_WHEN,
        source="a test",
    )


class NaiveStore(OverrideStore):
    """Each file is replaced as one step, and the entry in two."""

    def add(self, override: Override, certificates: Sequence[bytes], *, replace: bool = False) -> None:
        del replace
        pem = to_pem(tuple(certificates)).encode()
        replace_private(self._directory / f"{override.name}.pem", pem)
        digest = certificate_sha256(pem)  # the same hash, of other bytes
        replace_private(self._directory / f"{override.name}.toml", to_toml(override, digest).encode())


def die_at(step: int) -> None:
    left = itertools.count(step, -1)

    def hook(event: str, _: tuple[object, ...]) -> None:
        if event in STEPS and next(left) == 1:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def main() -> None:
    how, directory, action, name, version, pem, death = sys.argv[1:]
    store = (NaiveStore if how == "naive" else OverrideStore)(Path(directory))
    (certificate,) = parse_certificates(Path(pem).read_bytes(), pem)
    sys.stdin.readline()  # those that race start together
    if int(death):
        die_at(int(death))
    try:
        match action:
            case "remove":
                store.remove(name)
            case "forever":
                for number in itertools.count():
                    kept = override(name, ("old", "new")[number % 2], certificate)
                    store.add(kept, [certificate], replace=True)
                    os.write(1, b"\n")
            case _:
                store.add(override(name, version, certificate), [certificate], replace=action == "replace")
    except AgentError as error:
        sys.exit(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
