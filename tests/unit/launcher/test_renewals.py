"""A secret that is changed on the host reaches the session; what is half written, or wrong, does not."""

import os
from pathlib import Path

import pytest

from codingagents.launcher.renewals import Renewals
from codingagents.rewrite.renewal import SecretFiles
from codingagents.rewrite.secrets import SecretSource, gather, parse_option
from codingagents.rewrite.specs import HeaderTemplate, RenewedSecrets
from codingagents.trust.vocabulary import Secret

NAMES = {"A", "B", "C"}
HEADERS = [HeaderTemplate(name="Authorization", template="Bearer ${A}"), HeaderTemplate(name="X", template="${B}${C}")]


class Host:
    """Three secrets: A in mcp-secrets.env, B in a file of its own, C in the environment."""

    def __init__(self, directory: Path) -> None:
        self.env_file = directory / "mcp-secrets.env"
        self.own = directory / "b"
        self.write("A=a1\n", "b1\n")
        sources: list[SecretSource] = [parse_option(f"B=file:{self.own}"), parse_option("C=env:VARIABLE")]
        current = gather(NAMES, sources, environment={"VARIABLE": "c1"}, env_file=self.env_file)
        assert {name: secret.reveal() for name, secret in current.items()} == {"A": "a1", "B": "b1", "C": "c1"}
        self.complaints: list[str] = []
        self.files = SecretFiles(current, sources=sources, env_file=self.env_file, headers=HEADERS)
        self.renewals = Renewals(self.files, self.complaints.append)

    def write(self, env: str | None = None, own: str | None = None) -> None:
        for path, text in ((self.env_file, env), (self.own, own)):
            if text is not None:
                path.write_text(text)
                path.chmod(0o600)

    def looks(self) -> list[RenewedSecrets]:
        """What three looks in a row say."""
        return [news for news in (self.renewals.look() for _ in range(3)) if news is not None]


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_nothing_is_said_while_nothing_changes(host: Host) -> None:
    assert host.looks() == []
    os.utime(host.env_file)
    assert host.looks() == []  # written anew, and the same


def test_a_change_between_the_first_reading_and_the_first_look_counts(host: Host) -> None:
    host.write(env="A=a2\n")
    watching = Renewals(host.files, host.complaints.append)
    assert [watching.look() for _ in range(3)] == [RenewedSecrets(secrets={"A": Secret("a2")}), None, None]


def test_what_changed_is_sent_once_and_nothing_else(host: Host) -> None:
    host.write(env="A=a2\nUNRELATED=x\n")
    assert host.looks() == [RenewedSecrets(secrets={"A": Secret("a2")})]
    host.write(own="b2")
    assert host.looks() == [RenewedSecrets(secrets={"B": Secret("b2")})]
    host.write("A=a3\n", "b3")
    assert host.looks() == [RenewedSecrets(secrets={"A": Secret("a3"), "B": Secret("b3")})]
    assert host.complaints == []


def test_a_file_that_was_put_in_its_place_counts(host: Host) -> None:
    new = host.env_file.with_suffix(".new")
    new.write_text("A=a9\n")
    new.chmod(0o600)
    new.replace(host.env_file)
    assert host.looks() == [RenewedSecrets(secrets={"A": Secret("a9")})]


def test_a_file_that_is_still_being_written_waits(host: Host) -> None:
    for text in ("A=a", "A=a2", "A=a2-and", "A=a2-and-more\n"):
        host.write(env=text)
        assert host.renewals.look() is None
    assert host.looks() == [RenewedSecrets(secrets={"A": Secret("a2-and-more")})]


def test_a_name_given_by_the_environment_is_not_taken_from_a_file(host: Host) -> None:
    host.write(env="A=a1\nC=other\n")
    assert host.looks() == []
    assert host.complaints == []


@pytest.mark.parametrize("what", ["others may read it", "gone", "no secret", "not for a header", "malformed"])
def test_what_cannot_be_used_is_said_once_and_the_former_values_stay(host: Host, what: str) -> None:
    match what:
        case "others may read it":
            host.write(env="A=hunter2\n")
            host.env_file.chmod(0o644)
        case "gone":
            host.env_file.unlink()
        case "no secret":
            host.write(env="Z=hunter2\n")
        case "not for a header":
            host.write(env='A="hunter2\\nX: y"\n')
        case "malformed":
            host.write(env="A hunter2\n")
    assert host.looks() == []
    assert host.looks() == []
    (complaint,) = host.complaints
    assert complaint.startswith("warning: the former secrets stay in use: ")
    assert "hunter2" not in complaint
    host.write(env="A=a4\n")
    assert host.looks() == [RenewedSecrets(secrets={"A": Secret("a4")})]
    assert len(host.complaints) == 1
