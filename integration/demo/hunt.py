"""Looks for secrets everywhere that this process's UID can read, knowing only what they look like and their SHA-256.

Run as the UID in question, standard library only: `python3 -I hunt.py --prefix P --length N --target NAME=SHA256 …`.
The hunter never holds the secret, so that nothing it finds is its own doing: a candidate is `length` characters that
start with `prefix`, and its hash decides. Places: its own environment and argv; every process's `cmdline`, `environ`,
readable mappings (through `mem`) and open regular files (`fd`: deleted ones and memfds too); every regular file below
`--under` whose status changed since `--since`, a time that no unprivileged user can set back (files on tmpfs whatever
their time: a write through a mapping leaves no mark there). Forms: as it is, UTF-16, UTF-32, hex, base64 at any offset.

It does not look into pipes and sockets, System V and POSIX queues, keyrings, compressed or encrypted data, base64
broken into lines, or beyond `MAX_BYTES` of one file or mapping (counted as `capped`). It changes nothing and prints one
JSON object.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import contextlib
import hashlib
import json
import os
import stat
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

MAX_BYTES = 512 * 1024 * 1024  # of one file or mapping
CHUNK = 1024 * 1024
MAX_FINDINGS = 1000
KINDS = ("own-environ", "own-argv", "cmdline", "environ", "mem", "fd", "file")

Decode = Callable[[bytes, int], bytes]


@dataclass
class Count:
    """What was searched of one kind of place."""

    places: int = 0
    bytes: int = 0
    unreadable: int = 0
    capped: int = 0
    older: int = 0  # files passed over: they have not changed since the secret came to be


@dataclass(frozen=True)
class Quarry:
    """What is looked for: the shape of a secret, and the names of those whose SHA-256 is known."""

    prefix: bytes
    length: int
    names: dict[str, str]  # SHA-256 in hex: name

    def needles(self) -> list[tuple[str, bytes, Decode]]:
        """Return (form, bytes that betray the prefix in this form, how to get a candidate from their position)."""
        found: list[tuple[str, bytes, Decode]] = [("raw", self.prefix, lambda data, at: data[at : at + self.length])]
        for form, width in (("utf-16", 2), ("utf-32", 4)):
            found.append((form, self.prefix.decode().encode(f"{form}-le"), self._every(width)))
        lower = self.prefix.hex().encode()
        found += [("hex", text, self._hex) for text in (lower, lower.upper())]
        for shift in range(3):
            # Characters that also hold bits of what stands before or after the prefix are not known: leave them out.
            first, last = -(-shift * 8 // 6), (shift + len(self.prefix)) * 8 // 6
            known = base64.b64encode(b"\0" * shift + self.prefix)[first:last]
            found.append(("base64", known, self._base64(shift, first)))
        return found

    def _hex(self, data: bytes, at: int) -> bytes:
        return binascii.unhexlify(data[at : at + 2 * self.length])

    def _every(self, width: int) -> Decode:
        return lambda data, at: data[at : at + width * self.length : width]

    def _base64(self, shift: int, first: int) -> Decode:
        def decode(data: bytes, at: int) -> bytes:
            start = at - first
            text = data[max(start, 0) : start + 4 * -(-(shift + self.length) // 3)]
            text = b"A" * -min(start, 0) + text.translate(bytes.maketrans(b"-_", b"+/")).rstrip(b"=")
            text = text[: -(-(shift + self.length) * 8 // 6)]
            return base64.b64decode(text + b"=" * (-len(text) % 4))[shift : shift + self.length]

        return decode


@dataclass
class Hunt:
    """One hunt: its quarry, and what was searched and found so far."""

    quarry: Quarry
    counts: dict[str, Count] = field(default_factory=lambda: {kind: Count() for kind in KINDS})
    found: dict[tuple[str, str, str, str], None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._needles = self.quarry.needles()
        # A match is complete within this many bytes of its needle, and begins at most four before it.
        self._overlap = 4 * self.quarry.length + 8

    def look(self, kind: str, place: str, data: bytes) -> None:
        """Search `data`, which is (a piece of) `place`."""
        self.counts[kind].bytes += len(data)
        for form, needle, decode in self._needles:
            at = data.find(needle)
            while at >= 0:
                with contextlib.suppress(ValueError):
                    digest = hashlib.sha256(decode(data, at)).hexdigest()
                    if digest in self.quarry.names and len(self.found) < MAX_FINDINGS:
                        self.found[self.quarry.names[digest], kind, place, form] = None
                at = data.find(needle, at + 1)

    def look_through(self, kind: str, place: str, pieces: Iterator[bytes]) -> None:
        """Search consecutive `pieces` of one place, matches across their borders included."""
        self.counts[kind].places += 1
        tail = b""
        try:
            for piece in pieces:
                self.look(kind, place, tail + piece)
                self.counts[kind].bytes -= len(tail)
                tail = (tail + piece)[-self._overlap :]
        except OSError:
            self.counts[kind].unreadable += 1

    def pieces(self, kind: str, fd: int, start: int, size: int | None) -> Iterator[bytes]:
        """Yield what `fd` holds from `start`, at most `MAX_BYTES`."""
        end = start + MAX_BYTES if size is None else start + min(size, MAX_BYTES)
        at = start
        while at < end and (piece := os.pread(fd, min(CHUNK, end - at), at)):
            yield piece
            at += len(piece)
        if at - start == MAX_BYTES:
            self.counts[kind].capped += 1

    def look_at_file(self, kind: str, path: str, place: str, *, follow: bool = False) -> None:
        """Search the regular file or /proc file at `path`; anything else is passed over."""
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
        try:
            fd = os.open(path, flags)
        except OSError:
            self.counts[kind].unreadable += 1
            return
        try:
            if stat.S_ISREG(os.fstat(fd).st_mode):
                self.look_through(kind, place, self.pieces(kind, fd, 0, None))
        finally:
            os.close(fd)


def look_at_oneself(hunt: Hunt) -> None:
    """Search the environment and argv that this very process was given, as it sees them."""
    environ = b"\0".join(key + b"=" + value for key, value in os.environb.items())
    hunt.look_through("own-environ", "self", iter([environ]))
    hunt.look_through("own-argv", "self", iter([b"\0".join(map(os.fsencode, sys.orig_argv))]))


def look_at_processes(hunt: Hunt, *, memory: bool = True) -> None:
    """Search what /proc shows of every process, this one included; `memory` says whether its mappings, too."""
    seen: set[tuple[int, int]] = set()
    for pid in sorted(int(name) for name in os.listdir("/proc") if name.isdigit()):
        hunt.look_at_file("cmdline", f"/proc/{pid}/cmdline", f"pid {pid}")
        hunt.look_at_file("environ", f"/proc/{pid}/environ", f"pid {pid}")
        if memory:
            look_at_memory(hunt, pid)
        look_at_descriptors(hunt, pid, seen)


def look_at_memory(hunt: Hunt, pid: int) -> None:
    """Search every readable mapping of `pid`."""
    try:
        fd = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        hunt.counts["mem"].unreadable += 1
        return
    try:
        with open(f"/proc/{pid}/maps", encoding="utf-8", errors="surrogateescape") as maps:
            mappings = maps.read().splitlines()
        for mapping in mappings:
            addresses, permissions = mapping.split(" ", 2)[:2]
            start, end = (int(address, 16) for address in addresses.split("-"))
            kernels = end >= 1 << 63 or mapping.endswith(("[vvar]", "[vvar_vclock]"))  # no process's, nor to be read
            if permissions.startswith("r") and not kernels:
                hunt.look_through("mem", f"pid {pid}", hunt.pieces("mem", fd, start, end - start))
    except OSError:
        hunt.counts["mem"].unreadable += 1
    finally:
        os.close(fd)


def look_at_descriptors(hunt: Hunt, pid: int, seen: set[tuple[int, int]]) -> None:
    """Search the regular files that `pid` holds open: deleted ones, memfds, and those in directories closed to us."""
    try:
        descriptors = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        hunt.counts["fd"].unreadable += 1
        return
    for descriptor in descriptors:
        path = f"/proc/{pid}/fd/{descriptor}"
        with contextlib.suppress(OSError):
            status = os.stat(path)
            identity = status.st_dev, status.st_ino
            if stat.S_ISREG(status.st_mode) and status.st_dev != _PROC and identity not in seen:
                seen.add(identity)
                hunt.look_at_file("fd", path, f"pid {pid} fd {descriptor}", follow=True)


_PROC = os.stat("/proc").st_dev  # what is open there was searched by name, and reading it may block


def look_at_files(hunt: Hunt, under: str, since: float) -> None:
    """Search the regular files below `under` that changed at or after `since` (seconds since 1970)."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as mounts:
        fields = [line.split() for line in mounts]
    skip = {row[4] for row in fields if row[row.index("-") + 1] in {"proc", "sysfs", "cgroup", "cgroup2"}}
    timeless = {os.makedev(*map(int, row[2].split(":"))) for row in fields if row[row.index("-") + 1] == "tmpfs"}
    directories = [under]
    while directories:
        directory = directories.pop()
        try:
            entries = os.scandir(directory)
        except OSError:
            hunt.counts["file"].unreadable += 1
            continue
        with entries:
            for entry in entries:
                try:
                    if entry.is_dir(follow_symlinks=False):
                        if entry.path not in skip:
                            directories.append(entry.path)
                    elif entry.is_file(follow_symlinks=False):
                        status = entry.stat(follow_symlinks=False)
                        if status.st_ctime >= since or status.st_dev in timeless:
                            hunt.look_at_file("file", entry.path, entry.path)
                        else:
                            hunt.counts["file"].older += 1
                except OSError:
                    hunt.counts["file"].unreadable += 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--prefix", required=True, help="how every secret looked for begins; ASCII letters, digits, - or _"
    )
    parser.add_argument("--length", required=True, type=int, help="of the whole secret, in bytes, prefix included")
    parser.add_argument(
        "--target", required=True, action="append", help="NAME=SHA256 of one secret", metavar="NAME=SHA256"
    )
    parser.add_argument("--since", type=float, default=0.0, help="when the secrets came to be, seconds since 1970")
    parser.add_argument("--not-in-memory", action="store_true", help="leave out what processes have mapped")
    parser.add_argument("--under", default="/", help="where files are looked for")
    parser.add_argument("ignored", nargs="*", help="a place to be searched like any other: this process's argv")
    arguments = parser.parse_args()
    names = {digest: name for name, _, digest in (target.rpartition("=") for target in arguments.target)}
    started = time.monotonic()
    hunt = Hunt(Quarry(arguments.prefix.encode("ascii"), arguments.length, names))
    # Files last: what is read from them passes through this process's own memory.
    look_at_oneself(hunt)
    look_at_processes(hunt, memory=not arguments.not_in_memory)
    look_at_files(hunt, arguments.under, arguments.since)
    report = {
        "uid": os.geteuid(),
        "seconds": round(time.monotonic() - started, 2),
        "searched": {kind: vars(count) for kind, count in hunt.counts.items()},
        "found": [dict(zip(("target", "kind", "place", "form"), finding, strict=True)) for finding in hunt.found],
    }
    print(json.dumps(report))
    return 0


if __name__ == "__main__":
    sys.exit(main())
