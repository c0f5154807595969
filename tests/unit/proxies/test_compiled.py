"""What runs is what is here."""

import hashlib
from pathlib import Path

import pytest

from codingagents.proxies import compiled, exchange, heads, relay, tls_connection
from codingagents.trust.errors import ConfigError


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """Return a directory with two sources and the record of a build from them."""
    lines = []
    for name in ("gate.py", "relay.py"):
        (tmp_path / name).write_text(f"# {name}")
        lines.append(f"{hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()}  {name}\n")
    (tmp_path / compiled.MANIFEST).write_text("".join(lines))
    compiled.check(tmp_path, running="compiled")
    return tmp_path


def test_the_tests_run_what_they_were_asked_to(request: pytest.FixtureRequest) -> None:
    """Else the tests of the compiled modules would be those of the sources once more, or the other way round."""
    wanted = "compiled" if request.config.getoption("--compiled") else "interpreted"
    assert compiled.form() == wanted
    assert {Path(str(module.__file__)).suffix for module in (exchange, heads, relay, tls_connection)} == {
        ".so" if wanted == "compiled" else ".py"
    }


def test_this_build_is_of_these_sources() -> None:
    compiled.check()


def test_a_source_that_changed_after_the_build_is_named(made: Path) -> None:
    (made / "relay.py").write_text("# a fix")
    with pytest.raises(ConfigError, match=r"^relay\.py in .* changed after it was compiled: install .* again"):
        compiled.check(made, running="compiled")


@pytest.mark.parametrize("name", ["gate.py", compiled.MANIFEST])
def test_a_build_of_nobody_knows_what_is_refused(made: Path, name: str) -> None:
    (made / name).unlink()
    with pytest.raises(ConfigError, match=r"^nothing says what the compiled modules in .* were made of"):
        compiled.check(made, running="compiled")


def test_what_is_interpreted_needs_no_record(tmp_path: Path) -> None:
    compiled.check(tmp_path, running="interpreted")
