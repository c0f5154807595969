"""Trust that is read again, sent, and answered: what holds after each, and what is sent the next time."""

import datetime
from collections.abc import Callable
from pathlib import Path

import pytest

import pki
from codingagents.launcher.companion import Beside
from codingagents.launcher.session_trust import PATIENCE_SECONDS, TrustReload
from codingagents.rewrite.anchors import read_anchors
from codingagents.rewrite.override_store import OverrideStore
from codingagents.rewrite.plan import anchor_sources, with_anchors
from codingagents.rewrite.reading import read_config
from codingagents.rewrite.specs import ControlTrust, RenewedTrust, SessionSpec, UidPlan

ROOT, BACKUP, OTHER = (pki.make_root(name) for name in ("Root", "Backup", "Other"))
EXPIRES = datetime.datetime.now(datetime.UTC).date() + datetime.timedelta(days=100)


class Host:
    """A configuration of two servers, and the trust of a session that was started with it."""

    def __init__(self, directory: Path) -> None:
        self.file = directory / "config.toml"
        self.write()
        (directory / "root.pem").write_text(ROOT.pem)
        config, digest = read_config(self.file)
        overrides = OverrideStore(directory / "overrides")
        anchors = read_anchors(anchor_sources(config), config.file, overrides)
        spec = SessionSpec(
            session="s-1",
            agent="claude",
            engine="local",
            config_sha256=digest,
            uids=UidPlan(agent=1, task=2, workspace_gid=3, servers={"one": 4, "two": 5}),
            remotes=[with_anchors(config, server, anchors) for server in config.remotes],
            command=["true"],
            working_directory="/",
            environment={},
            public_key="",
        )
        self.now = 1000.0
        self.reload = TrustReload(spec, config, overrides=overrides, secrets=dict, clock=lambda: self.now)

    def write(self, *, one: str = BACKUP.pin, two: str = BACKUP.pin, store: str = "root.pem") -> None:
        self.file.write_text(
            "".join(
                f"""
                [mcp_servers.{name}]
                url = "https://{name}.example/mcp"
                tls.ca = "custom"
                tls.ca_file = "{store}"
                tls.pins.expires = {EXPIRES}
                tls.pins.pin = [ {{ spki = "{ROOT.pin}" }}, {{ spki = "{pin}", backup = true }} ]
                """
                for name, pin in (("one", one), ("two", two))
            )
        )

    def sent(self) -> dict[str, str]:
        """Begin, and return the second pin that is sent to each server."""
        news = self.reload.begin()
        assert all(len(each.servers) == 1 for each in news)
        return {name: tls.pins[1].spki for each in news for name, tls in each.servers.items()}

    def answer(self, server: str, problem: str | None = None) -> None:
        self.reload.hear(ControlTrust(server=server, store_sha256="0", kept=1, problem=problem))

    def report(self) -> list[tuple[str, str]]:
        report = self.reload.finished()
        assert report is not None
        assert report.problem is None
        return [(server.server, server.outcome) for server in report.servers]


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_what_is_taken_holds_and_is_not_sent_again(host: Host) -> None:
    host.write(one=OTHER.pin)
    assert host.sent() == {"one": OTHER.pin}
    assert host.reload.finished() is None
    host.answer("two")  # nobody asked
    host.answer("one")
    host.answer("one", "too late")
    assert host.report() == [("one", "taken"), ("two", "unchanged")]
    assert host.reload.finished() is None
    assert host.sent() == {}
    assert host.report() == [("one", "unchanged"), ("two", "unchanged")]


def test_what_is_refused_is_sent_again_and_its_former_is_not(host: Host) -> None:
    host.write(one=OTHER.pin, two=OTHER.pin)
    assert host.sent() == {"one": OTHER.pin, "two": OTHER.pin}
    host.answer("one", "no anchors")
    host.answer("two")
    assert host.report() == [("one", "refused"), ("two", "taken")]
    assert host.sent() == {"one": OTHER.pin}
    host.answer("one", "no anchors")
    assert host.report() == [("one", "refused"), ("two", "unchanged")]
    host.write(two=OTHER.pin)
    assert host.sent() == {}


def test_what_is_not_answered_is_refused_at_last_and_sent_again_whatever_it_is(host: Host) -> None:
    host.write(one=OTHER.pin)
    host.sent()
    host.now += PATIENCE_SECONDS - 1
    assert host.reload.finished() is None
    host.now += 1
    assert host.report() == [("one", "refused"), ("two", "unchanged")]
    host.answer("one")
    host.write()
    assert host.sent() == {"one": BACKUP.pin}, "what holds is not known"


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda host: host.file.write_text("[[["), "is not valid TOML"),
        (lambda host: host.file.unlink(), "there is no configuration file"),
        (lambda host: host.write(store="none.pem"), "which does not exist"),
        (lambda host: host.write(store="."), "regular file"),
        (lambda host: host.write(one="sha256/AAAA"), "spki"),
        (lambda host: host.file.write_text(host.file.read_text().replace(str(EXPIRES), "2020-01-01")), "is past"),
    ],
)
def test_what_cannot_be_used_is_said_and_sends_nothing(host: Host, spoil: Callable[[Host], object], says: str) -> None:
    spoil(host)
    assert host.reload.begin() == []
    report = host.reload.finished()
    assert report is not None
    assert says in str(report.problem)
    assert report.servers == []
    host.write()
    assert host.sent() == {}
    assert host.report() == [("one", "unchanged"), ("two", "unchanged")]


def test_a_set_that_makes_no_context_is_sent_to_nobody(host: Host, tmp_path: Path) -> None:
    """A store without the pinned root, whose pins all stand at the root."""
    (tmp_path / "other.pem").write_text(OTHER.pem)
    host.write(store="other.pem")
    host.file.write_text(
        host.file.read_text().replace('" }', '", at = "root" }').replace('", backup', '", at = "root", backup')
    )
    assert host.reload.begin() == []
    report = host.reload.finished()
    assert report is not None
    assert "[mcp_servers.one.tls]" in str(report.problem)


class Quiet:
    """Callers and secrets, of which there are none."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def fileno(self) -> int:
        return 0

    def attend(self) -> list[object]:
        return []

    def look(self) -> None:
        return None


def test_hang_ups_in_a_row_are_one_reload_and_one_after_it(host: Host) -> None:
    quiet = Quiet()
    beside = Beside(None, quiet, host.reload, quiet, quiet.said.append)  # type: ignore[arg-type]  # not used here
    host.write(one=OTHER.pin)
    for _ in range(5):
        beside.hung_up()
    (news,) = beside.attend()
    assert isinstance(news, RenewedTrust)
    assert beside.attend() == []
    beside.hear(ControlTrust(server="one", store_sha256="0"))
    assert beside.attend() == []
    assert quiet.said == [
        "trust reload: one: taken, 0 connections kept, 0 closed",
        "trust reload: two: unchanged",
        "trust reload: one: unchanged",
        "trust reload: two: unchanged",
    ]
