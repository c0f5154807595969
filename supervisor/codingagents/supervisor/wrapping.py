"""SHELL: wraps a client's program and puts it back; finds what has become of those that are wrapped.

Each step is one link(2) or rename(2), so that whenever it is killed, the path leads to the vendor's program or to a
whole wrapper, and the next run goes on from there. What may be wrapped, says `wrap_rules`.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import stat
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from codingagents.rewrite import places
from codingagents.supervisor import wrap_rules, wrapper
from codingagents.supervisor.wrap_rules import Candidate, Found, Owned, State, Wrapped, Wrappers
from codingagents.trust import wire
from codingagents.trust.errors import AgentError, NotFoundError, WireError
from codingagents.trust.terminal import printable

_MAX_LINKS: Final = 40  # as the kernel has it
_PIECE: Final = 1024 * 1024
_STATE_BYTES: Final = 1024 * 1024


def vendor_of(path: str, owner: int = 0) -> str | None:
    """Return the vendor's program behind the wrapper that `path` leads to; None where it leads to no wrapper.

    A file that is neither root's nor `owner`'s is none: whoever owns it could put another program beside it.
    """
    real = os.path.realpath(path)
    return wrap_rules.vendor_beside(real) if _is_wrapper(real, owner) else None


def changed_wrappers() -> list[str]:
    """Return a sentence for each wrapped program that is no longer what it was when it was wrapped.

    Cheap: a vendor's program is read only where its size is as it was and its time is not.
    """
    try:
        return [sentence for _, state, sentence in Wrapping().survey(thorough=False) if state != "wrapped"]
    except AgentError as error:
        return [str(error)]


@dataclass(frozen=True, slots=True)
class Wrapping:
    """The wrapped programs that `record` knows. `owner` may own them beside root: who runs the tests."""

    record: Path = Path(places.WRAPPERS)
    owner: int = 0

    def install(self, path: str) -> str:
        """Have a wrapper at `path`, as `locate` returned it; returns what was done, as a sentence.

        `AgentError` where that must not or cannot be.
        """
        with self._locked():
            recorded = self._recorded(path)
            real = os.path.realpath(path)
            if real != path and _is_wrapper(real, self.owner):
                return f"{path} leads to {real}, which is wrapped"
            if not os.path.lexists(path):
                raise NotFoundError(f"{printable(path)} is not there")
            if not _is_wrapper(path, self.owner):
                return self._wrap(path, f"{path} was wrapped anew" if recorded else f"{path} is wrapped now")
            vendor = wrap_rules.vendor_beside(path)
            if not os.path.exists(vendor):
                raise AgentError(wrap_rules.sentence(path, "vendor missing"))
            text, new = self._prepare(path, vendor)
            if recorded == new and _digest(path) == new.wrapper_sha256:
                return f"{path} is wrapped already"
            self._write_record(path, new)
            self._put_wrapper(path, vendor, text)
            changed = recorded is not None and recorded.vendor_sha256 != new.vendor_sha256
            return f"{path} was wrapped anew" + (": the vendor's program had changed" if changed else "")

    def remove(self, path: str) -> str:
        """Have the vendor's program at `path` again; returns what was done, as a sentence."""
        vendor = wrap_rules.vendor_beside(path)
        with self._locked():
            recorded = self._recorded(path)
            try:
                done = self._unwrap(path, vendor)
            except OSError as error:
                raise _failed(path, error) from None
            if recorded:
                self._write_record(path, None)
            return done or f"{path} is not wrapped"

    def survey(self, *, thorough: bool = True) -> Iterator[tuple[Wrapped, State, str]]:
        """Yield each record, what has become of it, and that as a sentence."""
        for recorded in self._read_record().wrappers:
            state = wrap_rules.state(recorded, self._look(recorded, thorough=thorough))
            yield recorded, state, wrap_rules.sentence(recorded.path, state)

    # -- steps -------------------------------------------------------------------------------------------------------

    def _wrap(self, path: str, done: str) -> str:
        """Give what stands at `path` its second name, and put a wrapper there."""
        vendor = wrap_rules.vendor_beside(path)
        text, new = self._prepare(path, path)
        self._write_record(path, new)
        try:
            if not (os.path.lexists(vendor) and os.path.samestat(os.lstat(path), os.lstat(vendor))):
                draft = vendor + wrap_rules.DRAFT_SUFFIX
                _remove(draft)
                # The link itself where it is one. On file systems that have no second names this is refused.
                os.link(path, draft, follow_symlinks=False)
                os.rename(draft, vendor)
        except OSError as error:
            raise _failed(path, error) from None
        self._put_wrapper(path, vendor, text)
        return done

    def _unwrap(self, path: str, vendor: str) -> str:
        for name in (path, vendor):
            _remove(name + wrap_rules.DRAFT_SUFFIX)
        if not _is_wrapper(path, self.owner) and os.path.lexists(path):
            # The vendor's update put another program there, or an installation never got further.
            had = os.path.lexists(vendor)
            _remove(vendor)
            return f"{path} is not wrapped any more; what stands there stays" if had else ""
        if not os.path.lexists(vendor):
            if not os.path.lexists(path):
                return ""
            os.unlink(path)
            return f"the wrapper {path} was removed; the vendor's program is gone"
        os.rename(vendor, path)
        return f"{path} is the vendor's program again"

    def _put_wrapper(self, path: str, vendor: str, text: bytes) -> None:
        like = os.stat(vendor)
        draft = path + wrap_rules.DRAFT_SUFFIX
        try:
            _remove(draft)
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(text)
                file.flush()
                os.fchown(descriptor, -1, like.st_gid)
                os.fchmod(descriptor, wrap_rules.wrapper_mode(like.st_mode))
                os.fsync(descriptor)
            os.rename(draft, path)
        except OSError as error:
            raise _failed(path, error) from None

    def _prepare(self, path: str, program: str) -> tuple[bytes, Wrapped]:
        """Return the wrapper of `path` and its record for the vendor's `program`; `AgentError` where it must not be."""
        try:
            seen = _look_at(path, program)
            if why := wrap_rules.why_not(seen, self.owner):
                raise AgentError(f"{printable(path)} must not be wrapped: {why}")
            found = os.stat(program)
            digest = _digest(program)
        except OSError as error:
            raise _failed(path, error) from None
        text = wrap_rules.wrapper_text(
            path, interpreter=seen.interpreter, source=Path(wrapper.__file__).read_text(), python=sys.executable
        )
        return text, Wrapped(
            path=path,
            wrapper_sha256=hashlib.sha256(text).hexdigest(),
            vendor_sha256=digest,
            vendor_bytes=found.st_size,
            vendor_mtime=int(found.st_mtime),
        )

    def _look(self, recorded: Wrapped, *, thorough: bool) -> Found:
        path, vendor = recorded.path, wrap_rules.vendor_beside(recorded.path)
        is_wrapper = _is_wrapper(path, self.owner)
        digest = ""
        with contextlib.suppress(OSError):
            found = os.stat(vendor)
            if stat.S_ISREG(found.st_mode):
                same_size, same_time = (
                    found.st_size == recorded.vendor_bytes,
                    int(found.st_mtime) == recorded.vendor_mtime,
                )
                digest = "of another size"
                if thorough or (same_size and not same_time):
                    digest = _digest(vendor)
                elif same_size:
                    digest = recorded.vendor_sha256
        return Found(
            is_wrapper=is_wrapper,
            there=os.path.lexists(path),
            wrapper_sha256=_digest(path) if is_wrapper else "",
            vendor_sha256=digest,
        )

    # -- record ------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Have the record's directory, and be alone in working on it."""
        try:
            self.record.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            descriptor = os.open(self.record.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise AgentError(f"cannot use {self.record.parent}: {error.strerror}") from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _read_record(self) -> Wrappers:
        try:
            with self.record.open("rb") as file:
                wrappers: Wrappers = wire.decode(Wrappers, file.read(_STATE_BYTES))
        except FileNotFoundError:
            return Wrappers(wrappers=[])
        except (OSError, WireError) as error:
            cause = error.strerror if isinstance(error, OSError) else error
            raise AgentError(
                f"{self.record} cannot be read: {cause}; delete it, and run coding-agents wrap install for each client"
            ) from None
        return wrappers

    def _recorded(self, path: str) -> Wrapped | None:
        return next((each for each in self._read_record().wrappers if each.path == path), None)

    def _write_record(self, path: str, new: Wrapped | None) -> None:
        kept = [each for each in self._read_record().wrappers if each.path != path]
        wrappers = sorted([*kept, *([] if new is None else [new])], key=lambda each: each.path)
        draft = self.record.with_name(f".{self.record.name}.new")
        try:
            _remove(str(draft))
            if not wrappers:  # as before the first
                _remove(str(self.record))
                return
            with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644), "wb") as file:
                file.write(msgspec.json.format(wire.encode(Wrappers(wrappers=wrappers)), indent=2) + b"\n")
                file.flush()
                os.fsync(file.fileno())
            draft.replace(self.record)
        except OSError as error:
            raise AgentError(f"cannot write {self.record}: {error.strerror}") from None


def locate(binary: str, search: str) -> str:
    """Return the absolute path of `binary`, found in the PATH `search` where it is a mere name.

    Its directory's links are resolved, its own are not. `NotFoundError` where nothing is there; a path that was
    wrapped and is gone may be given by its directory.
    """
    if "/" not in binary:
        found = [f"{directory}/{binary}" for directory in search.split(":") if directory.startswith("/")]
        existing = [path for path in found if os.path.lexists(path)]
        if not existing:
            raise NotFoundError(f"{printable(binary)} is not in PATH; give its path")
        binary = existing[0]
    directory, name = os.path.split(os.path.abspath(binary))
    return f"{os.path.realpath(directory).rstrip('/')}/{name}"


def _look_at(path: str, program: str) -> Candidate:
    directories: dict[str, Owned] = {}
    here = program
    for _ in range(_MAX_LINKS):
        here = f"{os.path.realpath(os.path.dirname(here)).rstrip('/')}/{os.path.basename(here)}"
        for directory in map(str, Path(here).parents):
            found = os.stat(directory)
            directories[directory] = Owned(directory, found.st_uid, found.st_mode)
        if not os.path.islink(here):
            break
        here = os.path.join(os.path.dirname(here), os.readlink(here))
    found = os.stat(here)
    return Candidate(
        path=path,
        directories=tuple(directories.values()),
        program=Owned(here, found.st_uid, found.st_mode),
        is_file=stat.S_ISREG(found.st_mode),
        has_capabilities="security.capability" in os.listxattr(here) if stat.S_ISREG(found.st_mode) else False,
        known_shells=_known_shells(),
        interpreter=os.path.realpath(sys.executable),
    )


def _known_shells() -> frozenset[str]:
    with contextlib.suppress(OSError):
        lines = Path("/etc/shells").read_text(errors="replace").splitlines()
        return frozenset(os.path.realpath(line) for line in lines if line.startswith("/"))
    return frozenset()


def _is_wrapper(path: str, owner: int) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    with open(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        return (
            stat.S_ISREG(found.st_mode)
            and found.st_uid in (0, owner)
            and wrap_rules.is_wrapper(file.read(wrap_rules.HEAD_BYTES))
        )


def _digest(path: str) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()


def _remove(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def _failed(path: str, error: OSError) -> AgentError:
    return AgentError(f"{printable(path)} cannot be wrapped or put back: {error.strerror}: {error.filename}")
