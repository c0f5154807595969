"""A configuration file is replaced whole or not at all: links, owners, other writers, and a kill at each step."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from codingagents.launcher.config_file import rewrite, trusted_target
from codingagents.rewrite.reading import read_text
from codingagents.trust.errors import AgentError, ConfigError, NotFoundError


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.toml"
    path.write_bytes(b"old\r\n")
    return path


def test_the_content_is_replaced_and_its_mode_kept(config: Path) -> None:
    """To the byte, line ends too; nothing else is in the directory."""
    config.chmod(0o604)
    rewrite(config, lambda text: text.replace("old", "new"))
    assert config.read_bytes() == b"new\r\n"
    assert config.stat().st_mode & 0o7777 == 0o604
    assert list(config.parent.iterdir()) == [config]


def test_what_is_the_same_is_not_written(config: Path) -> None:
    """The very file stays."""
    before = config.stat().st_ino
    rewrite(config, lambda text: text)
    assert config.stat().st_ino == before


def test_a_problem_of_the_edit_leaves_all_as_it_is(config: Path) -> None:
    """And is passed on."""

    def edit(_: str) -> str:
        raise ConfigError("no")

    with pytest.raises(ConfigError, match=r"^no$"):
        rewrite(config, edit)
    assert list(config.parent.iterdir()) == [config]
    with pytest.raises(NotFoundError):
        rewrite(config.with_name("none.toml"), str.upper)
    with pytest.raises(ConfigError, match="cannot use"):
        rewrite(config / "x", str.upper)


def test_what_an_editor_wrote_meanwhile_is_not_lost(config: Path) -> None:
    """It holds no lock: the content is compared before it is replaced."""

    def edit(text: str) -> str:
        config.write_text("an editor's\n")
        return text.upper()

    with pytest.raises(AgentError, match="was changed meanwhile"):
        rewrite(config, edit)
    assert config.read_text() == "an editor's\n"
    assert list(config.parent.iterdir()) == [config]


def test_what_is_read_and_replaced_is_in_one_directory(config: Path) -> None:
    """Whoever owns a directory above puts another one there meanwhile: its file is neither read nor written."""
    here = config.parent / "here"
    here.mkdir()
    config = config.rename(here / "config.toml")
    seen = []

    def edit(text: str) -> str:
        seen.append(text)
        here.rename(here.with_name("away"))
        here.mkdir()
        (here / "config.toml").write_text("another's\n")
        return text.upper()

    rewrite(config, edit)
    assert seen == ["old\r\n"]
    assert config.read_text() == "another's\n"
    assert (here.with_name("away") / "config.toml").read_bytes() == b"OLD\r\n"
    assert len(list(here.iterdir())) == 1


def test_a_link_that_comes_into_the_files_place_is_not_followed(config: Path) -> None:
    """It was no link when the way was looked at; what it leads to is not read, so nothing of it is ever copied."""
    other = config.with_name("other")
    other.write_text("a secret")

    def edit(text: str) -> str:
        config.unlink()
        config.symlink_to(other)
        return text.upper()

    with pytest.raises(AgentError, match="must be a regular file"):
        rewrite(config, edit)
    with pytest.raises(ConfigError, match="must be a regular file"), _opened(config.parent) as directory:
        read_text(config, directory)
    assert read_text(config) == "a secret"
    assert other.read_text() == "a secret"


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield directory
    finally:
        os.close(directory)


def test_a_link_of_ours_is_followed_and_kept(config: Path) -> None:
    """As those who keep their configuration elsewhere have it; relative, absolute and over several steps."""
    elsewhere = config.parent / "dotfiles" / "agents"
    elsewhere.mkdir(parents=True)
    real = elsewhere / "real.toml"
    config.rename(real)
    config.symlink_to("dotfiles/../link.toml")
    (config.parent / "link.toml").symlink_to(real)
    rewrite(config, str.upper)
    assert real.read_bytes() == b"OLD\r\n"
    assert config.is_symlink()
    assert list(elsewhere.iterdir()) == [real]
    assert trusted_target(config) == real.resolve()


def test_a_link_that_others_could_replace_is_not_followed(config: Path) -> None:
    """In a directory that others may write; a sticky one keeps them off ours. A file that is no link is as it is."""
    shared = config.parent / "shared"
    shared.mkdir()
    link = shared / "link.toml"
    link.symlink_to(config)
    for mode in (0o777, 0o775):
        shared.chmod(mode)
        with pytest.raises(ConfigError, match="a symbolic link that others could replace"):
            rewrite(link, str.upper)
    shared.chmod(0o1777)
    rewrite(link, str.upper)
    assert config.read_bytes() == b"OLD\r\n"
    shared.chmod(0o777)
    plain = shared / "plain.toml"
    plain.write_text("x")
    rewrite(plain, str.upper)
    assert plain.read_text() == "X"


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a link to another user: needs root")
def test_another_users_link_is_not_followed(config: Path) -> None:
    """Wherever on the way it stands."""
    shared = config.parent / "shared"
    shared.mkdir()
    (shared / "way").symlink_to(config.parent)
    os.lchown(shared / "way", 1234, 1234)
    with pytest.raises(ConfigError, match="way is another user's symbolic link"):
        rewrite(shared / "way" / "config.toml", str.upper)
    assert config.read_bytes() == b"old\r\n"


def test_links_in_a_circle_and_what_is_no_file_are_refused(config: Path) -> None:
    """In a sentence."""
    config.with_name("a").symlink_to("b")
    config.with_name("b").symlink_to("a")
    with pytest.raises(ConfigError, match="too many symbolic links"):
        rewrite(config.with_name("a"), str.upper)
    with pytest.raises(ConfigError, match="must be a regular file"):
        rewrite(config.parent, str.upper)


def test_a_limit_of_the_file_system_leaves_it_as_it_was(config: Path) -> None:
    """The kernel's own refusal, by the size of files."""
    code = (
        "import resource, sys; from pathlib import Path; from codingagents.launcher.config_file import rewrite\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (3, 3))\n"
        "rewrite(Path(sys.argv[1]), lambda text: text * 9)"
    )
    done = subprocess.run([sys.executable, "-c", code, config], capture_output=True, text=True, check=False)
    assert "cannot write" in done.stderr.splitlines()[-1]
    assert "it is as it was" in done.stderr.splitlines()[-1]
    assert config.read_bytes() == b"old\r\n"
    assert list(config.parent.iterdir()) == [config]


@pytest.mark.parametrize(
    ("step", "after"),
    [("fchown", b"old\r\n"), ("fsync", b"old\r\n"), ("replace", b"old\r\n"), ("fsync:2", b"NEW\r\n")],
)
def test_a_kill_at_any_step_leaves_old_or_new(config: Path, step: str, after: bytes) -> None:
    """Killed before the step; whatever is left beside the file is no hindrance for the next writer."""
    name, _, count = step.partition(":")
    code = (
        "import os, signal, sys; from pathlib import Path; from codingagents.launcher.config_file import rewrite\n"
        f"steps, real = [], os.{name}\n"
        "def killed(*a, **k):\n"
        "    steps.append(a)\n"
        f"    return os.kill(os.getpid(), signal.SIGKILL) if len(steps) == {count or 1} else real(*a, **k)\n"
        f"os.{name} = killed\n"
        "rewrite(Path(sys.argv[1]), lambda text: text.replace('old', 'NEW'))"
    )
    done = subprocess.run([sys.executable, "-c", code, config], capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL
    assert config.read_bytes() == after
    rewrite(config, lambda text: text.replace("old", "next").replace("NEW", "next"))
    assert config.read_bytes() == b"next\r\n"
    assert list(config.parent.iterdir()) == [config]
