"""`driver.py MODE BASE`: the launcher's way from a plan to an exit code, with `pid1.py MODE` for a supervisor."""

import os
import sys
from pathlib import Path

from codingagents.launcher import session_dir
from codingagents.launcher.companion import beside
from codingagents.launcher.engines.local import LocalEngine
from codingagents.launcher.renewals import Renewals
from codingagents.launcher.session_trust import TrustReload
from codingagents.launcher.terminal import say
from codingagents.rewrite.override_store import OverrideStore
from codingagents.rewrite.parse import parse_config
from codingagents.rewrite.renewal import SecretFiles
from codingagents.rewrite.secrets import SecretSource
from codingagents.rewrite.specs import SessionSecrets, SessionSpec, UidPlan
from codingagents.trust import checkpoint
from codingagents.trust.errors import AgentError
from codingagents.trust.vocabulary import Secret, SecretName, SessionId

SESSION = SessionId("stub")


def main(mode: str, base: Path) -> int:
    key = checkpoint.new_key(bytes(32))
    spec = SessionSpec(
        session=SESSION,
        agent="claude",
        engine="local",
        config_sha256="0" * 64,
        uids=UidPlan(agent=1, task=2, workspace_gid=3, servers={}),
        remotes=[],
        command=["true"],
        working_directory="/",
        environment={},
        public_key=checkpoint.public_key(key),
    )
    files = session_dir.place(SESSION, base=base, directory=None)
    pid1 = Path(__file__).with_name("pid1.py")
    engine = LocalEngine(os.environ, [sys.executable, "-I", str(pid1), mode])
    engine.prepare()
    session_dir.create(files, spec)
    secrets = SessionSecrets(secrets={"TOKEN": Secret("canary-of-the-launcher")}, signing_key=key)
    env_file = base / "mcp-secrets.env"
    sources = [] if env_file.exists() else [SecretSource(name=SecretName("TOKEN"), kind="env", place="-")]
    renewals = Renewals(SecretFiles(secrets.secrets, sources=sources, env_file=env_file, headers=[]), say)
    config = parse_config("", str(base / "config.toml"))
    reload = TrustReload(spec, config, overrides=OverrideStore(base / "trust-overrides"), secrets=dict)
    try:
        with beside(files, spec, renewals, reload) as companion:
            return engine.start(files.directory, secrets, companion)
    except AgentError as error:
        say(str(error))
        return error.exit_code


sys.exit(main(sys.argv[1], Path(sys.argv[2])))
