"""CORE: a typed view of one TOML table: every way a key can be wrong is one `ConfigError` sentence.

A sentence starts with the file and the table (`config.toml: [mcp_servers.github.tls]`) and never repeats a string
value: it may be a secret that was put in the wrong place. What the keys mean is decided by the callers. No I/O here.
"""

from __future__ import annotations

import dataclasses
import datetime
import difflib
import json
from collections.abc import Iterable, Mapping
from typing import TypeVar

from codingagents.trust.errors import ConfigError

_SHOWN = 60  # characters of a foreign name that a message repeats
_LISTED = 20  # known names that a message lists where none is near

_T = TypeVar("_T", bound=str)


def quoted(name: str) -> str:
    """Return `name` in double quotes, shortened, with every control or non-ASCII character escaped."""
    return json.dumps(name if len(name) <= _SHOWN else name[:_SHOWN] + "...")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `; did you mean "X"?` for the nearest of `known`, or what there is to choose from."""
    choices = sorted(known)
    nearest = difflib.get_close_matches(name[:_SHOWN], choices, n=1)
    if nearest:
        return f"; did you mean {quoted(nearest[0])}?"
    return f"; it can have {', '.join(choices)}" if len(choices) <= _LISTED else ""


@dataclasses.dataclass(frozen=True, slots=True)
class Table:
    """One table of one file. `label` is how messages name it; "" is the top of the file."""

    values: Mapping[str, object] = dataclasses.field(repr=False)
    file: str
    label: str = ""

    def sentence(self, problem: str) -> str:
        """Return `problem` with this file and table before it."""
        return f"{self.file}: [{self.label}] {problem}" if self.label else f"{self.file}: {problem}"

    def error(self, problem: str) -> ConfigError:
        """Return (not raise) the error that says `problem` about this table."""
        return ConfigError(self.sentence(problem))

    def only(self, known: Iterable[str]) -> None:
        """Refuse any key that is not in `known`, naming the nearest one that is."""
        known = set(known)
        for key in self.values:
            if key not in known:
                raise self.error(f"has no key {quoted(key)}{did_you_mean(key, known)}")

    def _get(self, key: str, kinds: type | tuple[type, ...], expected: str) -> object | None:
        value = self.values.get(key)
        # bool is an int to Python and a type of its own to TOML.
        if value is not None and (not isinstance(value, kinds) or (isinstance(value, bool) and kinds is not bool)):
            raise self.error(f"{key} must be {expected}")
        return value

    def text(self, key: str, default: str | None = None) -> str | None:
        """Return a string of 1 to 4096 characters without control characters; `default` where the key is absent."""
        value = self._get(key, str, "a string")
        if value is None:
            return default
        assert isinstance(value, str)
        return self._plain(key, value)

    def _plain(self, key: str, value: str, *, empty: bool = False) -> str:
        if not value and not empty:
            raise self.error(f"{key} must not be empty")
        if len(value) > 4096:
            raise self.error(f"{key} is over 4096 characters")
        if any(ord(c) < 0x20 or ord(c) == 0x7F for c in value):
            raise self.error(f"{key} must not hold control characters")
        return value

    def choice(self, key: str, allowed: tuple[_T, ...], default: _T) -> _T:
        """Return one of `allowed`."""
        value = self._get(key, str, "a string")
        if value is None:
            return default
        for candidate in allowed:
            if candidate == value:
                return candidate
        raise self.error(f"{key} must be one of {', '.join(map(quoted, allowed))}")

    def flag(self, key: str, *, default: bool) -> bool:
        """Return a boolean."""
        value = self._get(key, bool, "true or false")
        return default if value is None else bool(value)

    def integer(self, key: str, low: int, high: int, default: int) -> int:
        """Return an integer from `low` to `high`, both included."""
        value = self._get(key, int, f"an integer from {low} to {high}")
        if value is None:
            return default
        assert isinstance(value, int)
        if not low <= value <= high:
            raise self.error(f"{key} must be an integer from {low} to {high}")
        return value

    def number(self, key: str, low: float, high: float, default: float) -> float:
        """Return an integer or a float from `low` to `high`, both included."""
        value = self._get(key, (int, float), f"a number from {low:g} to {high:g}")
        if value is None:
            return default
        assert isinstance(value, int | float)
        if not low <= value <= high:  # false for nan too
            raise self.error(f"{key} must be a number from {low:g} to {high:g}")
        return float(value)

    def date(self, key: str) -> datetime.date | None:
        """Return a TOML local date, e.g. 2027-03-01."""
        value = self._get(key, datetime.date, "a date like 2027-03-01, without quotes")
        if isinstance(value, datetime.datetime):
            raise self.error(f"{key} must be a date like 2027-03-01, without a time")
        assert value is None or isinstance(value, datetime.date)
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        """Return a list of strings (empty ones allowed); () where the key is absent."""
        values = self._get(key, list, "a list of strings")
        if values is None:
            return ()
        assert isinstance(values, list)
        if not all(isinstance(value, str) for value in values):
            raise self.error(f"{key} must be a list of strings")
        return tuple(self._plain(key, value, empty=True) for value in values)

    def choices(self, key: str, allowed: tuple[_T, ...], default: tuple[_T, ...]) -> tuple[_T, ...]:
        """Return a list of distinct members of `allowed`."""
        if key not in self.values:
            return default
        values = self.texts(key)
        if len(set(values)) != len(values) or not set(values) <= set(allowed):
            raise self.error(f"{key} must be a list of {', '.join(map(quoted, allowed))}, each at most once")
        return tuple(candidate for candidate in allowed if candidate in values)

    def table(self, key: str) -> Table:
        """Return the table below `key`, empty where it is absent."""
        value = self._get(key, dict, "a table")
        assert value is None or isinstance(value, dict)
        return Table(value or {}, self.file, f"{self.label}.{key}" if self.label else key)

    def tables(self, key: str) -> tuple[Table, ...]:
        """Return the list of tables below `key`; messages name them `key[0]`, `key[1]`."""
        values = self._get(key, list, "a list of tables")
        assert values is None or isinstance(values, list)
        if not all(isinstance(value, dict) for value in values or ()):
            raise self.error(f"{key} must be a list of tables")
        prefix = f"{self.label}.{key}" if self.label else key
        return tuple(Table(value, self.file, f"{prefix}[{index}]") for index, value in enumerate(values or ()))

    def strings(self, key: str) -> dict[str, str]:
        """Return the table of strings below `key`, empty where it is absent; keys are not checked."""
        table = self.table(key)
        if not all(isinstance(value, str) for value in table.values.values()):
            raise table.error("must hold strings only")
        return {name: str(value) for name, value in table.values.items()}
