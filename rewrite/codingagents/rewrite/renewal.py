"""SHELL: secrets that are read again from the files they came from, while what they were given to runs on.

Reads, compares and judges whether a value fits its headers; sends nothing and waits for nothing. A secret that came
from the environment stays as it is: nobody can change the environment of a process that runs.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from codingagents.rewrite.placeholders import expand_header
from codingagents.rewrite.secrets import SecretSource, gather
from codingagents.rewrite.specs import HeaderTemplate
from codingagents.trust.errors import ConfigError
from codingagents.trust.vocabulary import Secret

Signature = tuple[tuple[int, ...] | None, ...]


class SecretFiles:
    """The files that the secrets of one session, or of one helper, came from."""

    def __init__(
        self,
        current: Mapping[str, Secret],
        *,
        sources: Sequence[SecretSource],
        env_file: Path,
        headers: Sequence[HeaderTemplate],
    ) -> None:
        """Know `current`, which `gather` returned for `sources` and `env_file`, and the `headers` that carry them."""
        fixed = {source.name for source in sources if source.kind == "env"}
        self._current = dict(current)
        self._renewable = current.keys() - fixed
        self._sources = [source for source in sources if source.name in self._renewable]
        self._env_file = env_file
        self._headers = headers
        self._paths = [Path(source.place) for source in self._sources]
        if self._renewable > {source.name for source in self._sources}:
            self._paths.append(env_file)

    @property
    def current(self) -> Mapping[str, Secret]:
        """All secrets, with the values that count now."""
        return self._current

    def signature(self) -> Signature:
        """Return what changes as soon as one of the files is written, replaced, removed or given other rights."""
        return tuple(map(_signature, self._paths))

    def changed(self) -> dict[str, Secret]:
        """Return the secrets whose values are other than before; these count from now on.

        Raises `ConfigError` or `UsageError`, as `gather` does at the start, for a file that cannot be used, for a
        secret that is gone and for one that its header cannot carry: then all stay as they were.
        """
        found = gather(self._renewable, self._sources, environment={}, env_file=self._env_file)
        if missing := sorted(self._renewable - found.keys()):
            raise ConfigError(f"{self._env_file} does not give {missing[0]} any more; put it back")
        renewed = self._current | found
        for header in self._headers:
            expand_header(header.name, header.template, renewed)
        news = {name: secret for name, secret in found.items() if secret != self._current[name]}
        self._current = renewed
        return news


def _signature(path: Path) -> tuple[int, ...] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    # The change time is of every write, rename and change of rights, and no program can set it.
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
