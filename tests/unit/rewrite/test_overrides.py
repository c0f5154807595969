"""Overrides: their names, their scope, their file; and the store that keeps them, as long as nobody dies."""

from __future__ import annotations

import datetime
import tomllib
from pathlib import Path
from typing import Any

import pytest

from codingagents.rewrite.addresses import parse_host
from codingagents.rewrite.override_store import MAX_PEM, MAX_TOML, OverrideStore
from codingagents.rewrite.overrides import Override, from_toml, in_scope, is_wide, parse_name, parse_scope, to_toml
from codingagents.rewrite.tables import Table
from codingagents.trust.errors import ConfigError, NotFoundError, UsageError
from pki import make_root

ROOT = make_root("One")
INTERMEDIATE = ROOT.issue_ca("Two")
WHEN = datetime.datetime(2030, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
DIGEST = "ab" * 32


def override(**changes: Any) -> Override:
    given: dict[str, Any] = {
        "name": "corp",
        "sha256": "cd" * 32,
        "spki": ROOT.pin,
        "subject": "CN=\x1b[31mOne",
        "issuer": "",
        "not_after": WHEN,
        "scope": ("mcp.example.com",),
        "added": WHEN,
        "source": "corp.pem",
    }
    return Override(**{**given, **changes})


@pytest.mark.parametrize(
    ("scope", "inside", "outside"),
    [
        (
            "mcp.example.com",
            ["mcp.example.com", "MCP.Example.COM"],
            ["example.com", "a.mcp.example.com", "mcp.example.co"],
        ),
        ("*.example.com", ["a.example.com", "a.b.example.com"], ["example.com", "aexample.com", "example.com.evil"]),
        ("10.0.0.1", ["10.0.0.1"], ["10.0.0.11", "10.0.0.1.example"]),
        ("::1", ["::1"], ["::2"]),
        ("*", ["example.com", "10.0.0.1"], []),
    ],
)
def test_a_scope_covers_what_it_says(scope: str, inside: list[str], outside: list[str]) -> None:
    kept = override(scope=("other.test", parse_scope(scope)))
    assert [host for host in inside if not in_scope(kept, host)] == []
    assert [host for host in outside if in_scope(kept, host)] == []


@pytest.mark.parametrize(
    ("scope", "wide"),
    [
        *((each, True) for each in ("*", "*.com", "*.co.uk", "*.github.io", "*.lan")),
        *((each, False) for each in ("*.example.com", "*.me.github.io", "com", "192.0.2.1")),
    ],
)
def test_a_scope_is_wide_where_it_has_hosts_of_more_than_one_owner(scope: str, wide: bool) -> None:
    """Below a public suffix anybody may have a name; beside a narrow one too."""
    assert is_wide(override(scope=(scope,))) == wide
    assert is_wide(override(scope=("a.example", scope))) == wide


@pytest.mark.parametrize("scope", ["::1", "0:0:0:0:0:0:0:1", "0::0001"])
def test_an_address_is_the_same_however_it_is_written(scope: str) -> None:
    """As the URL's host is, which is made canonical too."""
    assert parse_scope(scope) == "::1"
    assert in_scope(override(scope=(parse_scope(scope),)), parse_host("0:0::1"))


def test_a_scope_is_kept_in_lower_case() -> None:
    assert [parse_scope(each) for each in ("MCP.Example", "*.Corp.EXAMPLE", "*")] == [
        "mcp.example",
        "*.corp.example",
        "*",
    ]


@pytest.mark.parametrize(
    "text", ["", "a b", "*.", "*.10.0.0.1", "*.::1", "a.*.example", "**", "https://a.example", "a:443"]
)
def test_what_is_no_host_is_no_scope(text: str) -> None:
    with pytest.raises(UsageError, match="--scope must be a host name"):
        parse_scope(text)


@pytest.mark.parametrize("text", ["", "-a", "a.b", "../x", "a/b", "a b", "a\n", "ü", "a" * 65])
def test_a_name_is_a_files_name(text: str) -> None:
    with pytest.raises(UsageError, match="an override's name must be 1 to 64"):
        parse_name(text)


@pytest.mark.parametrize(
    "changes", [{}, {"scope": ("*", "a.b", "*.c.d"), "override_pins": True, "subject": "\u202e\u00fc"}]
)
def test_an_override_comes_back_from_its_file(changes: dict[str, Any]) -> None:
    """Whatever its certificate says."""
    kept = override(**changes)
    text = to_toml(kept, DIGEST)
    assert from_toml(Table(tomllib.loads(text), "F"), "corp") == (kept, DIGEST)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ('sha256 = "CD"', "F: sha256 must be 64 hexadecimal digits"),
        ('spki = "sha256/x"', "F: scope and spki must be as `coding-agents trust add` writes them"),
        ('scope = ["a b"]', "F: scope and spki must be as"),
        ("scope = []", "F: scope must list 1 to 64 hosts"),
        ("not_after = 2030-01-01", "F: not_after must be a time with a time zone"),
        ("added = 2030-01-01T00:00:00", "F: added must be a time with a time zone"),
        ("subject = 1", "F: subject must be a string"),
        ('override_pins = "yes"', "F: override_pins must be true or false"),
        ("other = 1", 'F: has no key "other"'),
    ],
)
def test_a_file_that_was_changed_is_refused(change: str, sentence: str) -> None:
    key = change.partition(" ")[0]
    lines = to_toml(override(), DIGEST).replace("[\n    ", "[").replace(",\n]", "]").splitlines()
    text = "\n".join([line for line in lines if line.partition(" ")[0] != key] + [change])
    with pytest.raises(ConfigError) as caught:
        from_toml(Table(tomllib.loads(text), "F"), "corp")
    assert str(caught.value).startswith(sentence)


@pytest.mark.parametrize(
    "key", ["pem_sha256", "sha256", "spki", "subject", "issuer", "not_after", "scope", "added", "source"]
)
def test_nothing_may_be_missing(key: str) -> None:
    values = tomllib.loads(to_toml(override(), DIGEST))
    del values[key]
    with pytest.raises(ConfigError, match=r"^F: "):
        from_toml(Table(values, "F"), "corp")


@pytest.fixture
def store(tmp_path: Path) -> OverrideStore:
    return OverrideStore(tmp_path / "trust-overrides")


def test_what_is_added_is_found_again(store: OverrideStore, tmp_path: Path) -> None:
    """In two files, which only their owner may read."""
    assert store.all() == []
    assert not (tmp_path / "trust-overrides").exists()
    store.add(override(), [ROOT.der, INTERMEDIATE.der])
    store.add(override(name="another"), [ROOT.der])
    assert store.get("corp") == (override(), (ROOT.der, INTERMEDIATE.der))
    assert [found.override.name for found in store.all()] == ["another", "corp"]
    assert (tmp_path / "trust-overrides" / "corp.pem").read_text() == ROOT.pem + INTERMEDIATE.pem
    assert {path.stat().st_mode & 0o777 for path in (tmp_path / "trust-overrides").iterdir()} == {0o600}
    assert (tmp_path / "trust-overrides").stat().st_mode & 0o777 == 0o700


def test_a_name_is_taken_until_it_is_replaced_or_removed(store: OverrideStore) -> None:
    store.add(override(), [ROOT.der])
    with pytest.raises(UsageError, match='there is an override "corp" already; give --replace, or another name'):
        store.add(override(), [INTERMEDIATE.der])
    store.add(override(source="new"), [INTERMEDIATE.der], replace=True)
    assert store.get("corp") == (override(source="new"), (INTERMEDIATE.der,))
    store.remove("corp")
    store.add(override(), [ROOT.der])


def test_what_could_not_be_read_again_is_not_kept(store: OverrideStore) -> None:
    """Names that are long, and certificates that are larger as text than they were; the others stay readable."""
    store.add(override(name="other"), [ROOT.der])
    for changes, certificates in (({"subject": "\x01" * MAX_TOML}, [ROOT.der]), ({}, [ROOT.der + bytes(MAX_PEM)])):
        with pytest.raises(UsageError, match="corp is too large to keep"):
            store.add(override(**changes), certificates)
    assert [found.override.name for found in store.all()] == ["other"]


@pytest.mark.parametrize("action", ["get", "remove"])
def test_a_name_that_there_is_not_is_told_with_the_nearest(store: OverrideStore, action: str) -> None:
    with pytest.raises(NotFoundError, match='there is no trust override "x"; see: coding-agents trust list'):
        getattr(store, action)("x")
    store.add(override(name="corp-root"), [ROOT.der])
    with pytest.raises(NotFoundError, match=r'no trust override "corp_root"; did you mean "corp-root"\?'):
        getattr(store, action)("corp_root")
    with pytest.raises(NotFoundError, match="no trust override"):
        getattr(store, action)("../trust-overrides/corp-root")


def test_an_entry_that_was_tampered_with_is_refused_and_can_be_removed(store: OverrideStore, tmp_path: Path) -> None:
    """Certificates that its TOML does not name, no certificates, a TOML that is none, a name that is none."""
    directory = tmp_path / "trust-overrides"
    remedy = "run: coding-agents trust remove corp, and add it again"
    for spoil, sentence in (
        (
            lambda: (directory / "corp.pem").write_text(INTERMEDIATE.pem),
            f"corp.pem is not what corp.toml names; {remedy}",
        ),
        ((directory / "corp.pem").unlink, f"corp.pem is not what corp.toml names; {remedy}"),
        (lambda: (directory / "corp.toml").write_text("x ="), f"corp.toml is not as it was written; {remedy}"),
        (
            lambda: (directory / "corp.toml").write_text("x=" + "[" * 9999),
            f"corp.toml is not as it was written; {remedy}",
        ),
        (lambda: (directory / "corp.toml").write_bytes(b"\xff"), f"corp.toml is not as it was written; {remedy}"),
        (lambda: (directory / "corp.toml").write_text("x = 1"), f'has no key "x".*; {remedy}'),
        (lambda: (directory / "corp.toml").write_text("scope = []"), f"; {remedy}"),
    ):
        store.add(override(), [ROOT.der])
        spoil()
        with pytest.raises(ConfigError, match=sentence):
            store.get("corp")
        with pytest.raises(ConfigError, match=sentence):
            store.all()
        store.remove("corp")
    (directory / "a.b.toml").touch(0o600)
    with pytest.raises(ConfigError, match=r"a\.b\.toml is not as it was written"):
        store.all()
    store.remove("a.b")
    assert store.all() == []


def test_what_nobody_can_tell_is_left_for_a_person(store: OverrideStore, tmp_path: Path) -> None:
    """Certificates on their way to a place whose TOML cannot be read."""
    directory = tmp_path / "trust-overrides"
    store.add(override(), [ROOT.der])
    (directory / "corp.pem").rename(directory / "corp.pem-next")
    (directory / "corp.toml").chmod(0o644)
    store.add(override(name="other"), [ROOT.der])
    (directory / "corp.toml").chmod(0o600)
    assert store.get("corp").certificates == (ROOT.der,)
    store.add(override(name="other"), [ROOT.der], replace=True)
    assert not (directory / "corp.pem-next").exists()
    assert store.get("corp").certificates == (ROOT.der,)
