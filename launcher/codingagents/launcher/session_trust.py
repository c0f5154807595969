"""SHELL: reads again what a session's servers are trusted by, and follows what becomes of it, one reload at a time.

Reads configuration, trust stores and overrides, and builds each new context as a helper will, so that a set that cannot
be used is sent to nobody. What a change means is decided in `reload_plan`. Sends nothing itself.
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from codingagents.launcher.reload_plan import (
    ReloadReport,
    ServerReload,
    compare,
    outcome,
    remotes_in_common,
    without_pin,
)
from codingagents.rewrite.anchors import read_anchors
from codingagents.rewrite.check import check_expiry
from codingagents.rewrite.config import AnchorSource, Config
from codingagents.rewrite.override_store import OverrideStore
from codingagents.rewrite.plan import with_anchors
from codingagents.rewrite.reading import read_config
from codingagents.rewrite.specs import ControlTrust, RenewedTrust, SessionSpec, TlsSpec
from codingagents.rewrite.upstream_tls import upstream_context
from codingagents.trust.errors import AgentError, ConfigError
from codingagents.trust.vocabulary import Secret

# More than a helper that hangs takes to be noticed and replaced.
PATIENCE_SECONDS = 60.0


class TrustReload:
    """The trust of one session."""

    def __init__(
        self,
        spec: SessionSpec,
        config: Config,
        *,
        overrides: OverrideStore,
        secrets: Callable[[], Mapping[str, Secret]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Know what the session was started with; `secrets` returns those that it has now."""
        self._session = spec.session
        self._config = config
        self._overrides = overrides
        self._secrets = secrets
        self._clock = clock
        # What holds, as far as the session said; None where it did not say.
        self._held: dict[str, TlsSpec | None] = {remote.name: remote.tls for remote in spec.remotes}
        self._sent: dict[str, TlsSpec] = {}  # and not answered
        self._deadline = 0.0
        self._report: ReloadReport | None = None  # of the reload that goes on

    def begin(self) -> list[RenewedTrust]:
        """Read everything again and return what to send, a server each; `finished` has the report, sooner or later.

        Only once the last one is finished.
        """
        try:
            self._report, self._sent = self._read()
        except AgentError as error:
            self._report, self._sent = ReloadReport(session=self._session, problem=str(error)), {}
        except OSError as error:
            problem = f"{error.filename or self._config.file}: {error.strerror}"
            self._report, self._sent = ReloadReport(session=self._session, problem=problem), {}
        self._deadline = self._clock() + PATIENCE_SECONDS
        return [RenewedTrust(servers={server: tls}) for server, tls in self._sent.items()]

    def hear(self, answer: ControlTrust) -> None:
        """Take in what became of one server; of what was not sent, or is too late, nothing."""
        tls = self._sent.pop(answer.server, None)
        if tls is None or self._report is None:
            return
        if answer.problem is None:
            self._held[answer.server] = tls
        self._tell(outcome(answer))

    def finished(self) -> ReloadReport | None:
        """Return the report once all is answered, or will not be any more, and be ready for the next."""
        if self._report is not None and self._clock() >= self._deadline:
            for server in self._sent:
                self._held[server] = None
                self._tell(
                    ServerReload(server=server, outcome="refused", problem="the session did not say what became of it")
                )
            self._sent = {}
        if self._report is None or self._sent:
            return None
        report, self._report = self._report, None
        servers = sorted(report.servers, key=lambda server: server.server)
        return msgspec.structs.replace(report, servers=servers)

    def _tell(self, server: ServerReload) -> None:
        assert self._report is not None
        self._report = msgspec.structs.replace(self._report, servers=[*self._report.servers, server])

    def _read(self) -> tuple[ReloadReport, dict[str, TlsSpec]]:
        now, _ = read_config(Path(self._config.file))
        common = list(remotes_in_common(self._config, now))
        sources: dict[str, AnchorSource] = {each.name: each.anchors for each in common if each.anchors is not None}
        anchors = read_anchors(sources, now.file, self._overrides)
        warnings = [*now.warnings, *(warning for each in anchors.values() for warning in each.warnings)]
        warnings += [*check_expiry(now, datetime.datetime.now(datetime.UTC).date()), *without_pin(now)]
        specs = [with_anchors(now, server, anchors) for server in common]
        found = {spec.name: spec.tls for spec in specs if spec.tls is not None}
        difference = compare(self._config, now, self._held, found)
        for name, tls in difference.trust.items():
            try:
                upstream_context(tls, self._secrets())
            except AgentError as error:
                raise ConfigError(f"{now.file}: [mcp_servers.{name}.tls] cannot be used: {error}") from None
        report = ReloadReport(
            session=self._session,
            servers=[ServerReload(server=name, outcome="unchanged") for name in difference.unchanged],
            needs_session=list(difference.needs_session),
            warnings=warnings,
        )
        return report, dict(difference.trust)
