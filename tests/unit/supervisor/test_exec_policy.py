"""What a rule matches, which rule wins, and what stands behind a denial."""

import time

import pytest

from codingagents.rewrite.specs import ExecRule, ExecSpec
from codingagents.supervisor.exec_policy import ExecPolicy, first_of, glob_pattern, loads_code, rule_text, why_advisory
from codingagents.supervisor.exec_routes import OwnProgram, Routes
from codingagents.trust.vocabulary import Firmness, Role

FIRM, ADVISORY = Firmness.FIRM, Firmness.ADVISORY
TREES = ["/usr", "/bin", "/opt", "/usr/bin"]  # /bin is a symlink to /usr/bin, and both are given


def deny(path: str, **more: object) -> ExecRule:
    return ExecRule(action="deny", path=path, **more)  # type: ignore[arg-type]  # as the caller wrote them


def allow(path: str, **more: object) -> ExecRule:
    return ExecRule(action="allow", path=path, **more)  # type: ignore[arg-type]  # likewise


def policy(*rules: ExecRule, mode: str = "observe", landlock: bool = True, memfd_closed: bool = True) -> ExecPolicy:
    spec = ExecSpec(mode=mode, rules=list(rules))  # type: ignore[arg-type]  # "observe" or "enforce"
    return ExecPolicy.compile(spec, TREES, landlock=landlock, memfd_closed=memfd_closed)


@pytest.mark.parametrize(
    ("glob", "path", "matches"),
    [
        ("/usr/bin/nc", "/usr/bin/nc", True),
        ("/usr/bin/nc", "/usr/bin/nc2", False),
        ("/usr/bin/nc", "/x/usr/bin/nc", False),
        ("/usr/bin/n.", "/usr/bin/nc", False),  # a dot is a dot
        ("/usr/bin/*", "/usr/bin/nc", True),
        ("/usr/bin/*", "/usr/bin/", True),
        ("/usr/bin/*", "/usr/bin/a/b", False),
        ("/usr/bin/n?", "/usr/bin/nc", True),
        ("/usr/bin/n?", "/usr/bin/n", False),
        ("/usr/bin/n?", "/usr/bin/n/", False),
        ("/usr/*/nc", "/usr/bin/nc", True),
        ("/usr/*/nc", "/usr/local/bin/nc", False),
        ("/usr/**", "/usr/local/bin/nc", True),
        ("/usr/**", "/usr/", True),
        ("/usr/**", "/usr", False),
        ("/usr/**", "/usrx", False),
        ("**/nc", "/usr/local/bin/nc", True),
        ("**/nc", "/usr/local/bin/xnc", False),
        ("/usr/**/nc", "/usr/a/b/nc", True),
        ("/usr/**/nc", "/usr/nc", False),
        ("/a/**/b/**/c", "/a/b/b/x/c", True),
        ("/a/**/b/**/c", "/a/c/b", False),
        ("/**a*b", "/a/ab", True),  # the first `a` is a blind alley
        ("/a*b?c*d", "/aXbYbZcd", True),
        ("/a*b*b", "/abb", True),  # the first star must not take what the second needs
        ("/a*b*b", "/ab", False),
        ("/**ab**ab", "/xabab", True),
        ("/**ab**ab", "/xab", False),
        ("/usr/bin/nc*", "/usr/bin/nc\n", True),
        ("/usr/**", "/usr/\n\xff", True),
        ("/usr/bin/[n]c", "/usr/bin/nc", False),
        ("/usr/bin/[n]c", "/usr/bin/[n]c", True),
        ("/é*", "/éa", True),
    ],
)
def test_globs(glob: str, path: str, matches: bool) -> None:
    assert bool(glob_pattern(glob).fullmatch(path.encode())) is matches


@pytest.mark.parametrize(
    ("glob", "path"),
    [
        ("/**a**a**a**a**a**a**a**b", "/" + "a" * 4000),
        ("/*a*a*a*a*a*a*a*a*b", "/" + "a" * 4000),
        ("**/*/**/*/**/*/**/x", "/a" * 2000),
        ("/**?**?**?**?**b", "/" + "a" * 4000),
    ],
)
def test_a_hostile_path_cannot_make_matching_explode(glob: str, path: str) -> None:
    """With the obvious translation (`.*` for `**`) the first of these would take years; the bound here is generous."""
    begun = time.process_time()
    assert glob_pattern(glob).fullmatch(path.encode()) is None
    assert time.process_time() - begun < 2


@pytest.mark.parametrize(
    ("path", "resolved"),
    [
        (b"/usr/bin/nc", b"/usr/bin/nc"),
        (b"/usr/bin/nc", None),
        (b"/usr/bin/nc", b"/opt/else"),  # as written
        (b"/usr/lib/../bin/./nc", None),  # without its dots
        (b"//usr//bin/nc", None),  # POSIX leaves two leading slashes alone, Linux does not
        (b"///usr/bin/nc", None),
        (b"/tmp/innocent", b"/usr/bin/nc"),  # where it leads
    ],
)
def test_a_deny_rule_covers_every_name_of_a_program(path: bytes, resolved: bytes | None) -> None:
    verdict = policy(deny("/usr/bin/nc")).decide(Role.AGENT, path, resolved, [b"nc"])
    assert (verdict.allow, verdict.rule, verdict.reason) == (False, "deny /usr/bin/nc", "rule matched")


@pytest.mark.parametrize(
    ("path", "resolved", "allowed"),
    [
        (b"/usr/bin/git", b"/usr/bin/git", True),
        (b"/tmp/link", b"/usr/bin/git", True),
        (b"/usr/../tmp/evil", b"/tmp/evil", False),
        (b"/usr/bin/link", b"/tmp/evil", False),
        (b"/usr/../tmp/evil", None, False),
        (b"/usr/bin/none", None, True),
        (b"//usr/bin/none", None, True),
    ],
)
def test_an_allow_rule_covers_only_where_the_path_leads(path: bytes, resolved: bytes | None, allowed: bool) -> None:
    verdict = policy(allow("/usr/**"), mode="enforce").decide(Role.AGENT, path, resolved, [])
    assert verdict.allow is allowed
    assert verdict.rule == ("allow /usr/**" if allowed else "")


def test_the_first_matching_rule_wins() -> None:
    rules = policy(allow("/usr/bin/git"), deny("/usr/bin/*"), allow("/usr/**"), mode="enforce")
    allowed = {
        name: rules.decide(Role.AGENT, name, name, []).rule
        for name in (b"/usr/bin/git", b"/usr/bin/nc", b"/usr/lib/x", b"/opt/x")
    }
    assert allowed == {
        b"/usr/bin/git": "allow /usr/bin/git",
        b"/usr/bin/nc": "deny /usr/bin/*",
        b"/usr/lib/x": "allow /usr/**",
        b"/opt/x": "",
    }


def test_what_no_rule_covers_is_let_through_or_denied_by_the_mode() -> None:
    seen = policy().decide(Role.AGENT, b"/usr/bin/x", b"/usr/bin/x", [])
    missing = policy().decide(Role.AGENT, b"/usr/bin/x", None, [])
    refused = policy(mode="enforce").decide(Role.AGENT, b"/usr/bin/x", b"/usr/bin/x", [])
    assert (seen.allow, seen.reason) == (True, "observe mode")
    assert (missing.allow, missing.reason) == (True, "nothing there")
    assert (refused.allow, refused.reason, refused.missing) == (False, "no rule allows it", False)


def test_in_enforce_mode_what_is_not_there_is_answered_as_missing_unless_a_rule_denies_it() -> None:
    """A search along PATH goes on after ENOENT and would stop at EPERM."""
    rules = policy(deny("/usr/local/bin/nc"), mode="enforce")
    missing = rules.decide(Role.AGENT, b"/usr/local/bin/id", None, [])
    assert (missing.allow, missing.reason, missing.missing) == (False, "nothing there", True)
    named = rules.decide(Role.AGENT, b"/usr/local/bin/nc", None, [])
    assert (named.allow, named.rule, named.missing) == (False, "deny /usr/local/bin/nc", False)


def test_a_rule_for_a_role_leaves_the_others_alone() -> None:
    rules = policy(deny("/usr/bin/nc", role="task"))
    assert rules.decide(Role.AGENT, b"/usr/bin/nc", b"/usr/bin/nc", []).allow
    denied = rules.decide(Role.TASK, b"/usr/bin/nc", b"/usr/bin/nc", [])
    assert (denied.allow, denied.rule) == (False, "deny /usr/bin/nc role=task")


@pytest.mark.parametrize(
    ("argv", "allowed"),
    [
        ([b"git", b"push"], False),
        ([b"git", b"push", b"--force"], False),
        ([b"git", b"pull"], True),
        ([b"git"], True),
        ([], True),
        ([b"/usr/bin/git", b"push"], True),  # the prefix is compared as it stands
    ],
)
def test_a_rule_on_argv_covers_what_begins_so(argv: list[bytes], allowed: bool) -> None:
    rules = policy(deny("/usr/bin/git", argv=["git", "push"]))
    assert rules.decide(Role.AGENT, b"/usr/bin/git", b"/usr/bin/git", argv).allow is allowed


@pytest.mark.parametrize(
    ("rule", "firmness"),
    [
        (deny("/run/agent-secrets/**"), FIRM),
        (deny("/home/agent/bin/*"), FIRM),
        (deny("/tmp"), FIRM),
        (deny("/usrx/**"), FIRM),
        (deny("/usr/bin/nc"), ADVISORY),  # Landlock allows the whole tree
        (deny("/usr"), ADVISORY),
        (deny("/bin/nc"), ADVISORY),  # beneath the symlink that names a tree
        (deny("**/nc"), ADVISORY),  # can lie in a tree
        (deny("/u*/nc"), ADVISORY),
        (deny("/*"), ADVISORY),
        (deny("/usr*/x"), ADVISORY),
        (deny("/home/**", argv=["x"]), ADVISORY),  # argv can be changed after the decision
        (allow("/home/**"), ADVISORY),
    ],
)
def test_a_rule_is_firm_only_where_the_kernel_forbids_all_it_can_match(rule: ExecRule, firmness: Firmness) -> None:
    (mark,) = policy(rule).marks()
    assert (mark.firmness, mark.why == "") == (firmness.value, firmness is FIRM)
    assert policy(rule, landlock=False).marks()[0].firmness == "advisory"
    assert policy(rule, memfd_closed=False).marks()[0].firmness == "advisory"


def test_no_rule_is_firm_where_everything_may_be_executed() -> None:
    assert "below /," in why_advisory(deny("/home/x"), ["/"], landlock=True, memfd_closed=True)


@pytest.mark.parametrize(
    ("resolved", "firmness"),
    [
        (b"/home/agent/tool", FIRM),
        (b"/usr/lib/tool", ADVISORY),  # the path was a symlink into a tree: by its real name the kernel lets it run
        (b"/usr", ADVISORY),
        (b"/usrx/tool", FIRM),
        (None, ADVISORY),  # nothing is there now
    ],
)
def test_a_record_is_as_firm_as_the_program_that_was_meant(resolved: bytes | None, firmness: Firmness) -> None:
    rules = policy(deny("/home/agent/tool"))
    assert rules.decide(Role.AGENT, b"/home/agent/tool", resolved, []).firmness is firmness
    by_default = policy(mode="enforce")
    assert by_default.decide(Role.AGENT, b"/home/agent/tool", resolved, []).firmness is firmness
    without = policy(deny("/home/agent/tool"), landlock=False)
    assert without.decide(Role.AGENT, b"/home/agent/tool", resolved, []).firmness is ADVISORY


def test_a_record_is_never_firmer_than_its_rule() -> None:
    rules = policy(deny("/home/**", argv=["x"]))
    denied = rules.decide(Role.AGENT, b"/home/x", b"/home/x", [b"x"])
    assert (denied.allow, denied.firmness) == (False, ADVISORY)


@pytest.mark.parametrize(
    ("rule", "landlock", "memfd_closed", "why"),
    [
        (deny("/home/**"), True, True, ""),
        (allow("/home/**"), True, True, "an allow rule enforces nothing"),
        (deny("/home/**", argv=["x"]), True, True, "argv can be changed after the decision"),
        (deny("/home/**"), False, True, "Landlock does not hold"),
        (deny("/home/**"), True, False, "a program in memory could be executed past Landlock"),
        (deny("**/nc"), True, True, "it can match below /usr, where Landlock lets everything be executed"),
    ],
)
def test_an_advisory_rule_says_why(rule: ExecRule, landlock: bool, memfd_closed: bool, why: str) -> None:
    assert policy(rule, landlock=landlock, memfd_closed=memfd_closed).marks()[0].why == why


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        (deny("/usr/bin/nc"), "deny /usr/bin/nc"),
        (allow("/é*", role="task"), "allow /é* role=task"),
        (deny("/bin/git", role="agent", argv=["git", "push"]), 'deny /bin/git role=agent argv=["git", "push"]'),
        (deny("/a role=task"), 'deny "/a role=task"'),
        (deny("/a\x1b[2J"), 'deny "/a\\u001b[2J"'),
    ],
)
def test_a_rule_reads_in_records_as_it_was_written(rule: ExecRule, text: str) -> None:
    assert rule_text(rule) == text


def test_an_interpreter_must_be_let_through_as_the_script_is() -> None:
    script, python, evil = b"/usr/bin/script", b"/usr/bin/python3", b"/home/evil"
    rules = policy(deny("/usr/bin/python3"))
    assert rules.decide(Role.AGENT, script, script, []).allow
    denied = rules.decide(Role.AGENT, script, script, [], interpreters=[b"/usr/bin/env", python])
    assert (denied.allow, denied.rule, denied.firmness) == (False, "deny /usr/bin/python3", ADVISORY)
    assert denied.reason == "its interpreter: rule matched"
    enforced = policy(allow("/usr/bin/script"), allow("/usr/bin/env"), mode="enforce")
    assert enforced.decide(Role.AGENT, script, script, [], interpreters=[b"/usr/bin/env"]).allow
    refused = enforced.decide(Role.AGENT, script, script, [], interpreters=[b"/usr/bin/env", evil])
    assert (refused.allow, refused.rule, refused.firmness) == (False, "", FIRM)  # by the interpreter, outside the trees
    assert refused.reason == "its interpreter: no rule allows it"


def test_a_refused_script_is_refused_by_its_own_rule_first() -> None:
    rules = policy(deny("/home/script"), deny("/usr/bin/python3"))
    denied = rules.decide(Role.AGENT, b"/home/script", b"/home/script", [], interpreters=[b"/usr/bin/python3"])
    assert (denied.rule, denied.firmness) == ("deny /home/script", FIRM)


def test_a_rule_on_argv_does_not_cover_an_interpreter() -> None:
    """The kernel gives it another argv than the exec had."""
    rules = policy(deny("/usr/bin/python3", argv=["x"]), allow("/usr/bin/env", argv=["x"]), mode="enforce")
    for interpreter in (b"/usr/bin/python3", b"/usr/bin/env"):
        denied = rules.decide(Role.AGENT, b"/usr/bin/x", b"/usr/bin/x", [b"x"], interpreters=[interpreter])
        assert (denied.allow, denied.rule) == (False, "")


CLIENT, SHELL, PYTHON = b"/opt/agent/claude", b"/run/agent-tasks/shells/bash", b"/usr/bin/python3.11"
ROUTES = Routes(
    client="claude",
    own=[
        OwnProgram(path="/opt/agent/claude", why="the client itself"),
        OwnProgram(path="/run/agent-tasks/shells/*", why="the task shell"),
        OwnProgram(path="/usr/bin/node", why="runs its start script", argv=["node", "/opt/agent/claude"]),
    ],
    interpreters=["/usr/bin/python3.11"],
    files=["/opt/agent/claude", "/usr/bin/python3.11"],
)


def routed(*rules: ExecRule, mode: str = "enforce") -> ExecPolicy:
    spec = ExecSpec(mode=mode, rules=list(rules))  # type: ignore[arg-type]  # "observe" or "enforce"
    trees = [*ROUTES.files, "/run/agent-tasks/shells"]
    return ExecPolicy.compile(spec, trees, landlock=True, memfd_closed=True, routes=ROUTES)


def test_a_routed_agent_may_execute_what_its_client_needs_and_says_why() -> None:
    rules = routed()
    allowed = {path: rules.decide(Role.AGENT, path, path, [path]) for path in (CLIENT, SHELL)}
    assert [verdict.rule for verdict in allowed.values()] == [
        "client claude: the client itself",
        "client claude: the task shell",
    ]
    assert all(verdict.allow for verdict in allowed.values())


def test_what_else_a_routed_agent_starts_is_unrouted_and_firmly_denied() -> None:
    denied = routed().decide(Role.AGENT, b"/bin/sh", b"/usr/bin/dash", [b"sh", b"-c", b"id"])
    assert (denied.allow, denied.rule, denied.reason, denied.firmness) == (False, "", "unrouted", FIRM)
    seen = routed(mode="observe").decide(Role.AGENT, b"/bin/sh", b"/usr/bin/dash", [b"sh"])
    assert (seen.allow, seen.reason) == (True, "unrouted")


def test_a_task_shells_interpreter_is_let_through_as_such_and_not_by_itself() -> None:
    rules = routed()
    assert rules.decide(Role.AGENT, SHELL, SHELL, [], interpreters=[PYTHON]).allow
    denied = rules.decide(Role.AGENT, PYTHON, PYTHON, [b"python3", b"-IS", SHELL])
    assert (denied.allow, denied.reason) == (False, "unrouted")
    assert denied.firmness is ADVISORY  # Landlock must let it be executed
    other = rules.decide(Role.AGENT, SHELL, SHELL, [], interpreters=[b"/usr/bin/perl"])
    assert (other.allow, other.reason) == (False, "its interpreter: unrouted")


def test_an_own_script_lends_its_interpreter_to_no_other() -> None:
    script = b"/opt/agent/tool"
    denied = routed(allow("/opt/agent/tool", role="agent")).decide(
        Role.AGENT, script, script, [], interpreters=[PYTHON]
    )
    assert (denied.allow, denied.reason) == (False, "its interpreter: unrouted")


def test_an_own_program_with_arguments_is_its_own_with_these_alone() -> None:
    node = b"/usr/bin/node"
    assert routed().decide(Role.AGENT, node, node, [b"node", CLIENT, b"-p"]).allow
    assert not routed().decide(Role.AGENT, node, node, [b"node", b"-e", b"1"]).allow


def test_rules_without_a_role_are_about_tasks_and_those_for_the_agent_hold() -> None:
    git = b"/usr/bin/git"
    assert not routed(allow("/usr/**")).decide(Role.AGENT, git, git, []).allow
    assert routed(allow("/usr/bin/git", role="agent")).decide(Role.AGENT, git, git, []).allow
    denied = routed(deny("/opt/agent/**")).decide(Role.AGENT, CLIENT, CLIENT, [])
    assert (denied.allow, denied.rule) == (False, "deny /opt/agent/**")
    no_python = routed(deny("/usr/bin/python3*"))
    refused = no_python.decide(Role.AGENT, SHELL, SHELL, [], interpreters=[PYTHON])
    assert (refused.allow, refused.rule) == (False, "deny /usr/bin/python3*")
    first = routed(allow("/usr/bin/git", role="agent"), deny("/usr/bin/*"))
    assert first.decide(Role.AGENT, git, git, []).allow


def test_what_is_not_there_is_missing_to_a_routed_agent_too() -> None:
    missing = routed().decide(Role.AGENT, b"/usr/local/bin/git", None, [])
    assert (missing.allow, missing.missing) == (False, True)


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("/usr/bin/dash", ""),
        ("/usr/bin/p*", "it can match /usr/bin/python3.11, which Landlock lets be executed"),
        ("/usr/bin/*", "it can match /usr/bin/python3.11, which Landlock lets be executed"),
        ("/usr/bin/python3", ""),
        (
            "/run/agent-tasks/**",
            "it can match below /run/agent-tasks/shells, where Landlock lets everything be executed",
        ),
    ],
)
def test_below_a_file_nothing_lies(path: str, why: str) -> None:
    assert routed(deny(path)).marks()[0].why == why


def test_where_a_task_shell_is_mounted_landlock_lets_it_be_executed() -> None:
    over = ROUTES.with_mounted(["/usr/bin/dash"])
    spec = ExecSpec(mode="enforce", rules=[deny("/usr/bin/dash", argv=["no"]), deny("/usr/bin/d*", role="agent")])
    rules = ExecPolicy.compile(spec, ROUTES.files, landlock=True, memfd_closed=True, routes=over)
    assert rules.marks()[1].why == "it can match /usr/bin/dash, which Landlock lets be executed"
    denied = rules.decide(Role.AGENT, b"/bin/sh", b"/usr/bin/dash", [])
    assert (denied.allow, denied.firmness) == (False, ADVISORY)
    only = ExecPolicy.compile(ExecSpec(mode="enforce"), ROUTES.files, landlock=True, memfd_closed=True, routes=over)
    seen = only.decide(Role.AGENT, b"/bin/sh", b"/usr/bin/dash", [], interpreters=[PYTHON])
    assert (seen.allow, seen.rule) == (True, "client claude: a task shell lies over /usr/bin/dash")


@pytest.mark.parametrize(
    ("variable", "name"),
    [
        (b"LD_PRELOAD=/w/library.so", b"LD_PRELOAD"),
        (b"LD_AUDIT=x", b"LD_AUDIT"),
        (b"LD_DEBUG_OUTPUT=\n", b"LD_DEBUG_OUTPUT"),
        (b"GCONV_PATH=/w", b"GCONV_PATH"),
        (b"BUN_OPTIONS=--preload /w/x.js", b"BUN_OPTIONS"),
        (b"BUN_INSPECT=ws://127.0.0.1:9333/x?wait=1", b"BUN_INSPECT"),
        (b"BUN_INSPECT_PRELOAD=/w/x.js", b"BUN_INSPECT_PRELOAD"),
        (b"BUN_INSTALL=/root/.bun", b""),
        (b"OPENSSL_CONF=/w/openssl.cnf", b"OPENSSL_CONF"),
        (b"NODE_OPTIONS=--require /w/x.js", b"NODE_OPTIONS"),
        (b"NODE_OPTIONS=--max-old-space-size=8192", b""),
        (b"NODE_OPTIONS=--max-old-space-size=8192 --import /w/x.js", b"NODE_OPTIONS"),
        (b"NODE_OPTIONS=--max-old-space-size=" + b"0" * 30, b"NODE_OPTIONS"),  # its beginning only
        (b"NODE_PATH=/w", b"NODE_PATH"),
        (b"NODE_OPTIONS=", b""),
        (b"NODE_EXTRA_CA_CERTS=/w/ca.pem", b""),
        (b"COPILOT_CLI_DIST_DIR=/w", b"COPILOT_CLI_DIST_DIR"),
        (b"COPILOT_CACHE_HOME=/w", b"COPILOT_CACHE_HOME"),
        (b"COPILOT_PKG_CACHE_HOME=/w", b"COPILOT_PKG_CACHE_HOME"),
        (b"COPILOT_PKG_CACHE_HOME=/run/coding-agents/home/.cache/copilot/pkg", b""),
        (b"COPILOT_PKG_CACHE_HOME=/run/coding-agents/home", b""),
        (b"COPILOT_PKG_CACHE_HOME=/run/coding-agents/homes", b"COPILOT_PKG_CACHE_HOME"),
        (b"COPILOT_PKG_CACHE_HOME=/run/coding-agents/home/../../w", b"COPILOT_PKG_CACHE_HOME"),
        (b"COPILOT_PKG_CACHE_HOME=/run/coding-agents/home/..", b"COPILOT_PKG_CACHE_HOME"),
        (b"COPILOT_PKG_CACHE_HOME=/run/coding-agents/home/" + b"x" * 200, b"COPILOT_PKG_CACHE_HOME"),  # its beginning
        (b"COPILOT_HOME=/w", b""),
        (b"LOCPATH=/w", b"LOCPATH"),
        (b"LD_" + b"x" * 61, b"LD_" + b"x" * 61),  # its beginning only
        (b"LD_PRELOAD=", b""),
        (b"LD_=", b""),
        (b"XLD_PRELOAD=x", b""),
        (b"LOCPATHS=x", b""),
        (b"PATH=LD_PRELOAD=x", b""),
        (b"", b""),
    ],
)
def test_a_variable_that_has_code_loaded_is_known_by_its_name_where_it_is_not_empty(
    variable: bytes, name: bytes
) -> None:
    assert loads_code(variable) == name


def test_what_a_routed_agent_may_execute_it_may_not_with_code_of_anybodys_choice() -> None:
    asked = (Role.AGENT, SHELL, SHELL, [SHELL])
    denied = routed().decide(*asked, interpreters=[PYTHON], loading=b"LD_PRELOAD")
    assert (denied.allow, denied.rule) == (False, "client claude: the task shell")
    assert denied.reason == "LD_PRELOAD would have other code run in it"
    assert denied.firmness is ADVISORY
    seen = routed(mode="observe").decide(*asked, interpreters=[PYTHON], loading=b"LD_PRELOAD")
    assert (seen.allow, seen.reason) == (True, "LD_PRELOAD would have other code run in it")


def test_what_only_node_heeds_counts_where_node_runs_and_hides_nothing_that_all_heed() -> None:
    script, node = b"/opt/claude/cli.js", b"/usr/bin/node"
    programs = [OwnProgram(path=each.decode(), why="it") for each in (script, node)]
    own = Routes(client="claude", own=programs, interpreters=[])
    rules = ExecPolicy.compile(ExecSpec(mode="enforce"), [], landlock=True, memfd_closed=True, routes=own)
    for program, interpreters, allowed in ((script, [node], False), (node, [], False), (script, [], True)):
        for loading, allow in ((b"NODE_OPTIONS", allowed), (b"LD_PRELOAD", False), (b"", True)):
            verdict = rules.decide(Role.AGENT, program, program, [], interpreters=interpreters, loading=loading)
            assert verdict.allow is allow, (program, loading)
    assert first_of([b"NODE_PATH", b"LD_AUDIT", b"NODE_OPTIONS"]) == b"LD_AUDIT"
    assert (first_of([b"NODE_PATH"]), first_of([])) == (b"NODE_PATH", b"")


def test_otherwise_the_environment_decides_nothing() -> None:
    """Not of a role that is not routed, and not of what is refused or recorded as unrouted anyway."""
    assert policy(allow("/**"), mode="enforce").decide(Role.AGENT, SHELL, SHELL, [], loading=b"LD_PRELOAD").allow
    for mode in ("enforce", "observe"):
        verdict = routed(mode=mode).decide(Role.AGENT, b"/bin/sh", b"/usr/bin/dash", [], loading=b"LD_PRELOAD")
        assert verdict.reason == "unrouted"
