"""The store of trust overrides under death, crowds, full disks and other people: it is as it was, or as was asked."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from codingagents.rewrite.override_store import OverrideStore
from codingagents.trust.errors import AgentError, ConfigError, UsageError
from full_disk import fill, small_disk
from override_writer import override
from pki import make_root

WRITER = [sys.executable, "-I", str(Path(__file__).with_name("override_writer.py"))]
OLD, NEW = make_root("Old"), make_root("New")
NOBODY = 65534
WHO = {"old": OLD, "new": NEW}


@pytest.fixture
def pems(tmp_path: Path) -> dict[str, Path]:
    paths = {version: tmp_path / f"{version}.crt" for version in WHO}
    for version, path in paths.items():
        path.write_text(WHO[version].pem)
    return paths


def write(how: str, directory: Path, action: str, pem: Path, *, death: int) -> int:
    command = [*WRITER, how, str(directory), action, "corp", pem.stem, str(pem), str(death)]
    done = subprocess.run(command, input=b"\n", capture_output=True, timeout=60, check=False)
    assert done.returncode in (0, -9), done.stderr
    return done.returncode


def seen(directory: Path, name: str = "corp") -> str:
    """Return which version is there, whole; `none`; or what is wrong."""
    try:
        found = [each for each in OverrideStore(directory).all() if each.override.name == name]
    except AgentError as error:
        return f"broken: {error}"
    if not found:
        return "none"
    ((kept, certificates),) = found
    version = kept.scope[0].removesuffix(".example")
    whole = (override(name, version, WHO[version].der), (WHO[version].der,))
    return version if (kept, certificates) == whole else f"mixed: {kept}"


def is_tidy(directory: Path) -> bool:
    """Whether each file is one of a pair, and nobody else's to read."""
    files = sorted(directory.iterdir())
    return all(file.stat().st_mode & 0o777 == 0o600 for file in files) and [file.name for file in files] == [
        f"{name}{suffix}" for name in sorted({file.stem for file in files}) for suffix in (".pem", ".toml")
    ]


def deaths(how: str, directory: Path, action: str, pem: Path) -> list[str]:
    """Return what is seen after a death at each step of `action`, up to the first run that reaches its end."""
    outcomes = []
    before = "none" if action == "add" else "old"
    store = OverrideStore(directory)
    for death in range(1, 200):
        if before == "old":
            keep(store, "corp", "old")
        elif death > 1 and seen(directory) != "none":
            store.remove("corp")
        assert seen(directory) == before
        code = write(how, directory, action, pem, death=death)
        outcomes.append(seen(directory))
        keep(store, "other", "new")  # the next writer clears what was left
        assert seen(directory) == outcomes[-1]
        assert how != "ours" or is_tidy(directory)
        if code == 0:
            return outcomes
    raise AssertionError("it has no end")


def keep(store: OverrideStore, name: str, version: str) -> None:
    certificate = WHO[version].der
    store.add(override(name, version, certificate), [certificate], replace=True)


@pytest.mark.parametrize(
    ("action", "before", "after"), [("add", "none", "new"), ("replace", "old", "new"), ("remove", "old", "none")]
)
def test_a_death_at_any_step_leaves_the_old_or_the_new(
    tmp_path: Path, pems: dict[str, Path], action: str, before: str, after: str
) -> None:
    """And once it is the new, no later death makes it the old again."""
    outcomes = deaths("ours", tmp_path / "store", action, pems["new"])
    assert len(outcomes) > 5
    assert set(outcomes) == {before, after}
    assert outcomes == sorted(outcomes, key=[before, after].index)


def test_a_store_that_writes_its_files_one_after_the_other_is_found_out(tmp_path: Path, pems: dict[str, Path]) -> None:
    """What the test above is worth."""
    assert any(
        each.startswith(("broken", "mixed")) for each in deaths("naive", tmp_path / "store", "replace", pems["new"])
    )


def test_what_is_read_while_another_writes_and_is_killed_is_whole(tmp_path: Path, pems: dict[str, Path]) -> None:
    """A writer that never rests, read all the time, and killed wherever it is just then."""
    directory = tmp_path / "store"
    versions = set()
    for round_ in range(20):
        command = [*WRITER, "ours", str(directory), "forever", "corp", "-", str(pems["new"]), "0"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
            assert writer.stdin is not None
            assert writer.stdout is not None
            writer.stdin.write(b"\n")
            writer.stdin.flush()
            writer.stdout.readline()
            for _ in range(round_):
                versions.add(OverrideStore(directory).get("corp").override.scope)
            writer.kill()
        versions.add(OverrideStore(directory).get("corp").override.scope)
    assert versions == {("old.example",), ("new.example",)}
    keep(OverrideStore(directory), "other", "new")
    assert is_tidy(directory)


def test_all_who_add_at_once_are_kept_and_one_name_is_given_once(tmp_path: Path, pems: dict[str, Path]) -> None:
    """Forty processes, half of them after the same name, on a store that none of them finds made."""
    directory = tmp_path / "store"
    names = [f"n{number}" for number in range(20)] + ["same"] * 20
    writers = [
        subprocess.Popen(
            [*WRITER, "ours", str(directory), "add", name, "new", str(pems["new"]), "0"],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for name in names
    ]
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write(b"\n")
        writer.stdin.flush()
    said = [writer.communicate(timeout=120)[1] for writer in writers]
    codes = [writer.returncode for writer in writers]
    assert codes[:20] == [0] * 20
    assert sorted(codes[20:]) == [0] + [1] * 19
    assert {text for text in said if text} == {
        b'UsageError: there is an override "same" already; give --replace, or another name\n'
    }
    assert {seen(directory, name) for name in names} == {"new"}
    assert is_tidy(directory)


@pytest.mark.parametrize("pages", range(5))
def test_a_full_disk_leaves_the_old_or_the_new(pages: int) -> None:
    """However much room there is: whoever is told of no error finds the new, everybody else the old."""
    with small_disk() as disk:
        store = OverrideStore(disk / "store")
        keep(store, "corp", "old")
        ballast = fill(disk)
        os.truncate(ballast, ballast.stat().st_size - 4096 * pages)
        try:
            keep(store, "corp", "new")
            expected = "new"
        except AgentError as error:
            assert "No space left on device" in str(error)  # noqa: PT017 -- either way is right, with some room
            expected = "old"
        assert seen(disk / "store") == expected
        assert is_tidy(disk / "store")
        assert expected == ("old" if pages < 2 else "new" if pages > 3 else expected)
        ballast.unlink()
        keep(store, "corp", "new")
        assert seen(disk / "store") == "new"


def as_link(store: Path) -> None:
    store.rename(store.with_name("elsewhere"))
    store.symlink_to("elsewhere")


def toml_as_link(store: Path) -> None:
    (store / "corp.toml").rename(store.parent / "corp.toml")
    (store / "corp.toml").symlink_to("../corp.toml")


def pem_as_link(store: Path) -> None:
    (store / "corp.pem").rename(store.parent / "corp.pem")
    (store / "corp.pem").symlink_to("../corp.pem")


def as_pipe(store: Path) -> None:
    (store / "corp.toml").unlink()
    os.mkfifo(store / "corp.toml", 0o600)
    os.chown(store / "corp.toml", store.stat().st_uid, -1)


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (as_link, "must be a directory, not a symbolic link"),
        (toml_as_link, "corp.toml must be a regular file"),
        (pem_as_link, "corp.pem must be a regular file"),
        (lambda store: os.chmod(store, 0o770), "has mode 0770; run: chmod 700"),
        (lambda store: os.chmod(store, 0o755), "has mode 0755; run: chmod 700"),
        (lambda store: os.chmod(store.parent, 0o775), "may be written by others"),
        (lambda store: os.chmod(store.parent, 0o757), "may be written by others"),
        (lambda store: os.chmod(store / "corp.pem", 0o640), "corp.pem has mode 0640; run: chmod 600"),
        (lambda store: os.chmod(store / "corp.toml", 0o602), "corp.toml has mode 0602; run: chmod 600"),
        (lambda store: os.chown(store, 4321, -1), "belongs to UID 4321"),
        (lambda store: os.chown(store.parent, 4321, -1), "belongs to UID 4321, who could replace"),
        (
            lambda store: os.chown(store / "corp.pem", 4321, -1),
            "corp.pem (belongs to UID 4321|cannot be read: Permission denied)",
        ),
        (
            lambda store: os.chown(store / "corp.toml", 4321, -1),
            "corp.toml (belongs to UID 4321|cannot be read: Permission denied)",
        ),
        (as_pipe, "corp.toml must be a regular file"),
    ],
    ids=range(14),
)
def test_a_store_that_others_could_have_touched_is_refused(
    tmp_path_factory: pytest.TempPathFactory, spoil: Callable[[Path], None], sentence: str
) -> None:
    """For root and for an ordinary user alike; before it was spoilt it was read."""
    for owner in (0, NOBODY):
        home = tmp_path_factory.mktemp("home")
        directory = home / "config" / "trust-overrides"
        for above in (home, *home.parents):
            if above.stat().st_uid == 0 and "pytest" in str(above):
                os.chmod(above, 0o755)
        (home / "config").mkdir(mode=0o700)
        os.chown(home / "config", owner, owner)
        as_user(owner, lambda: keep(OverrideStore(directory), "corp", "old"))  # noqa: B023 -- called at once
        assert as_user(owner, lambda: len(OverrideStore(directory).all())) == 1  # noqa: B023 -- likewise
        spoil(directory)
        with pytest.raises(ConfigError, match=sentence):
            as_user(owner, lambda: OverrideStore(directory).all())  # noqa: B023 -- likewise


def as_user(uid: int, act: Callable[[], object]) -> object:
    """Do something with the rights of `uid`."""
    os.setegid(uid)
    os.seteuid(uid)
    try:
        return act()
    finally:
        os.seteuid(0)
        os.setegid(0)


def test_a_name_that_is_taken_is_kept(tmp_path: Path) -> None:
    store = OverrideStore(tmp_path / "store")
    keep(store, "corp", "old")
    with pytest.raises(UsageError, match="give --replace, or another name"):
        store.add(override("corp", "new", NEW.der), [NEW.der])
    assert seen(tmp_path / "store") == "old"
