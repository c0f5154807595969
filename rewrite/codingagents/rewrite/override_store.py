"""SHELL: the store of overrides: `~/.config/coding-agents/trust-overrides/`, 0700, two files of mode 0600 for each.

`NAME.pem` holds the certificates, `NAME.toml` what is known of them and the SHA-256 of the first. The second is the
commit point: certificates that no `NAME.toml` names are not there. A replacement is written beside the old certificates
and takes their place after the commit; whichever of the two files the TOML names is the one that counts. So the store
is as it was or as it was asked to be, wherever a writer died (ADR 20), and the next writer clears what was left.

Readers and writers hold flock(2) on the directory. Decides nothing about whom to trust.
"""

from __future__ import annotations

import contextlib
import difflib
import fcntl
import hashlib
import os
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from codingagents.rewrite.certificates import parse_certificates, to_pem
from codingagents.rewrite.overrides import Override, from_toml, parse_name, to_toml
from codingagents.rewrite.private_files import private_directory, read_private, replace_private
from codingagents.rewrite.tables import Table, quoted
from codingagents.trust.errors import AgentError, ConfigError, NotFoundError, UsageError

MAX_PEM = 1024 * 1024  # bytes, of one override
MAX_TOML = 64 * 1024

_PEM, _NEXT, _TOML = ".pem", ".pem-next", ".toml"
_DRAFT = ".new"  # of `replace_private`, after a dot and the file's name


class StoredOverride(NamedTuple):
    """One override with its certificates, as DER; a chain may hold intermediates beside its root."""

    override: Override
    certificates: tuple[bytes, ...]


class OverrideStore:
    """The overrides of one user. A directory that is not there is an empty store."""

    def __init__(self, directory: Path) -> None:
        """`directory` is made with mode 0700 by the first `add`; nothing is touched before."""
        self._directory = directory

    def all(self) -> list[StoredOverride]:
        """Return every override, in order of name. Raises `ConfigError` for a store that cannot be relied on."""
        with self._locked(fcntl.LOCK_SH) as directory:
            return [] if directory is None else [_read(directory, name) for name in _names(directory)]

    def get(self, name: str) -> StoredOverride:
        """Return the override `name`; `NotFoundError` with the nearest name, or `ConfigError`."""
        with self._locked(fcntl.LOCK_SH) as directory:
            _check_known(name, directory)
            assert directory is not None
            return _read(directory, name)

    def add(self, override: Override, certificates: Sequence[bytes], *, replace: bool = False) -> None:
        """Keep `override` with its DER `certificates`, wholly or not at all.

        `UsageError` where the name is taken and `replace` is not set, or where there is more than could be read again;
        `AgentError` where the file system refuses.
        """
        name = parse_name(override.name)
        pem = to_pem(tuple(certificates)).encode()
        toml = to_toml(override, _sha256(pem)).encode()
        if len(pem) > MAX_PEM or len(toml) > MAX_TOML:
            raise UsageError(
                f"{name} is too large to keep: {len(pem)} bytes of certificates, of {MAX_PEM}, and {len(toml)} bytes "
                f"of names and hosts, of {MAX_TOML}; add fewer certificates, or get others"
            )
        with self._locked(fcntl.LOCK_EX, create=True) as directory:
            assert directory is not None
            if name in _names(directory) and not replace:
                raise UsageError(f"there is an override {quoted(name)} already; give --replace, or another name")
            _clear(directory)
            try:
                replace_private(directory / f"{name}{_NEXT}", pem)
                _sync(directory)  # the certificates lie under their name before anything refers to them
                replace_private(directory / f"{name}{_TOML}", toml)
                _sync(directory)  # and the old ones go only once nothing can refer to them any more
            finally:
                with contextlib.suppress(AgentError):  # the next writer does what is left
                    _clear(directory)

    def remove(self, name: str) -> None:
        """Forget `name`, which need not be readable; `NotFoundError` with the nearest name."""
        with self._locked(fcntl.LOCK_EX) as directory:
            _check_known(name, directory)
            assert directory is not None
            try:
                (directory / f"{name}{_TOML}").unlink()
            except OSError as error:
                raise AgentError(f"cannot remove {directory / name}{_TOML}: {error.strerror}") from None
            _sync(directory)
            with contextlib.suppress(AgentError):  # as above
                _clear(directory)

    @contextlib.contextmanager
    def _locked(self, operation: int, *, create: bool = False) -> Iterator[Path | None]:
        """Yield the checked directory while its lock is held, or None where there is none."""
        directory = private_directory(self._directory, create=create)
        try:
            descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            yield None
            return
        except OSError as error:
            raise ConfigError(f"cannot open {directory}: {error.strerror}") from None
        try:
            fcntl.flock(descriptor, operation)
            yield directory
        finally:
            os.close(descriptor)


def _names(directory: Path) -> list[str]:
    return sorted(each.name.removesuffix(_TOML) for each in directory.glob(f"[!.]*{_TOML}"))


def _check_known(name: str, directory: Path | None) -> None:
    names = [] if directory is None else _names(directory)
    if name not in names:
        nearest = difflib.get_close_matches(name, names, n=1)
        remedy = f"did you mean {quoted(nearest[0])}?" if nearest else "see: coding-agents trust list"
        raise NotFoundError(f"there is no trust override {quoted(name)}; {remedy}")


def _read(directory: Path, name: str) -> StoredOverride:
    remedy = f"run: coding-agents trust remove {name}, and add it again"
    try:
        parse_name(name)
        table = _table(directory, name)
    except (UsageError, ValueError, FileNotFoundError):
        raise ConfigError(f"{directory / name}{_TOML} is not as it was written; {remedy}") from None
    try:
        override, digest = from_toml(table, name)
    except ConfigError as error:
        raise ConfigError(f"{error}; {remedy}") from None
    content = next((found for found in _candidates(directory, name) if _sha256(found) == digest), None)
    if content is None:
        raise ConfigError(f"{directory / name}{_PEM} is not what {name}{_TOML} names; {remedy}")
    return StoredOverride(override, tuple(parse_certificates(content, f"{name}{_PEM}")))


def _table(directory: Path, name: str) -> Table:
    """Return what `NAME.toml` holds; `ValueError` where it is no TOML, `ConfigError` where others may touch it."""
    path = directory / f"{name}{_TOML}"
    text = read_private(path, limit=MAX_TOML).decode()
    try:
        return Table(tomllib.loads(text), str(path))
    except RecursionError:
        raise ValueError from None


def _candidates(directory: Path, name: str) -> Iterator[bytes]:
    """Yield the certificates in their place, and those on the way there."""
    for suffix in (_PEM, _NEXT):
        with contextlib.suppress(FileNotFoundError):
            yield read_private(directory / f"{name}{suffix}", limit=MAX_PEM)


def _clear(directory: Path) -> None:
    """Finish or undo what a writer left, one that died or this one: every file of certificates is named, or goes."""
    names = set(_names(directory))
    try:
        for path in sorted(directory.iterdir()):
            is_draft = path.name[0] == "." and path.suffix == _DRAFT
            if path.suffix == _NEXT and path.stem in names:
                _settle(path)
            elif is_draft or (path.suffix in (_PEM, _NEXT) and path.stem not in names):
                path.unlink()
    except OSError as error:
        raise AgentError(f"cannot clear {directory}: {error.strerror}") from None


def _settle(path: Path) -> None:
    """Put certificates into their place if the TOML beside them names them, else remove them."""
    try:
        named = _table(path.parent, path.stem).values.get("pem_sha256")
    except (AgentError, ValueError):
        return  # nobody can tell: a person has to look at the TOML first
    if _sha256(read_private(path, limit=MAX_PEM)) == named:
        os.replace(path, path.with_suffix(_PEM))
    else:
        path.unlink()


def _sync(directory: Path) -> None:
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise AgentError(f"cannot write {directory}: {error.strerror}") from None


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
