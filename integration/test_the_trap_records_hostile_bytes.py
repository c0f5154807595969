"""What a role puts into argv, path and directory names is logged escaped, capped and without a secret's value."""

from __future__ import annotations

import base64
import urllib.parse

from codingagents.trust.events import unescape_bytes
from trap_harness import Outcome, Request, every_reader, needs_root, python, run, shared_directory

pytestmark = needs_root

SECRET = "s3cr3t/+value-of_the=token"
CANARY = "c4n4ry/+value-of_the=token"  # as long, and no secret: it shows what the log would hold


def log_of(script: str, *arguments: str, sys_ptrace: bool) -> Outcome:
    outcome = run(
        Request(argv=python(script, *arguments), secrets={"TOKEN": SECRET}, sys_ptrace=sys_ptrace),
    )
    assert outcome.code == 0
    assert outcome.reply.troubles == []
    outcome.verify()
    return outcome


@every_reader
def test_any_bytes_are_carried_and_can_be_had_back(sys_ptrace: bool) -> None:
    script = """
        arguments = [bytes(range(1, 256)), b"\\xff\\xfe", "é😀".encode(), b"\\\\x41", b"back\\\\slash", b"", b"\\ud800"]
        say(outcome(lambda: os.execve("/usr/bin/true", [b"name", *arguments], {})))
        os.chdir(sys.argv[1])
        os.mkdir(b"\\xc3\\x28 \\n")
        os.chdir(b"\\xc3\\x28 \\n")
        say(outcome(lambda: os.execve(b"./\\xff\\x01", [b"x"], {})))
    """
    with shared_directory() as files:
        files.chmod(0o777)
        outcome = log_of(script, str(files), sys_ptrace=sys_ptrace)
        directory = str(files).encode() + b"/\xc3\x28 \n"
    assert outcome.said == [0, "ENOENT"]
    ran, missing = outcome.allowed[1:]
    arguments = [bytes(range(1, 256)), b"\xff\xfe", "é😀".encode(), b"\\x41", b"back\\slash", b"", b"\\ud800"]
    assert [unescape_bytes(text) for text in ran.command_args] == [b"name", *arguments]
    assert unescape_bytes(missing.working_directory) == directory
    assert unescape_bytes(missing.executable_path) == directory + b"/./\xff\x01"


@every_reader
def test_a_terminal_escape_never_stands_in_the_log(sys_ptrace: bool) -> None:
    script = """
        hostile = "\\x1b]0;owned\\x07\\x1b[2J\\r\\n{\\"seq\\":0}\\x9b31m\\u2028"
        say(outcome(lambda: os.execve("/usr/bin/true", [hostile], {})))
        say(outcome(lambda: os.execve("/" + hostile, ["x"], {})))
    """
    outcome = log_of(script, sys_ptrace=sys_ptrace)
    assert outcome.said == [0, "ENOENT"]
    raw_controls = set(range(32)) - {ord("\n")}
    assert not raw_controls & set(outcome.log)
    assert outcome.log.count(b"\n") == len(outcome.events)
    assert outcome.allowed[1].command_args[0].startswith("\x1b]0;owned\x07"), "JSON brings it back; showing escapes it"


@every_reader
def test_a_secret_in_argv_path_or_directory_is_named_and_not_shown(sys_ptrace: bool) -> None:
    """However it is written: as it is, URL-quoted, in base64 at each alignment; a canary shows where it would stand."""
    script = """
        import base64, urllib.parse
        os.chdir(sys.argv[1])
        for value in sys.argv[2:]:
            def execve(path, *argv):
                try:
                    os.execve(path, argv, {})
                except OSError as error:
                    raise SystemExit(error.errno)
            forms = [value, "--header=Authorization: Bearer " + value, urllib.parse.quote(value, safe="")]
            forms += [base64.b64encode(("." * shift + value + "more").encode()).decode() for shift in range(3)]
            forms += [base64.urlsafe_b64encode((value).encode()).decode(), value * 3]
            say(outcome(lambda: os.execve("/usr/bin/true", ["true", *forms], {})))
            say(outcome(lambda: os.execve("/none/" + value, ["x"], {})))
            flat = value.replace("/", "")
            os.makedirs(value)
            os.chdir(value)
            say(outcome(lambda: os.execve("none", ["x"], {})))
            os.chdir(sys.argv[1])
    """
    # The program's own argv holds both, so its own exec is the first attack.
    with shared_directory() as files:
        files.chmod(0o777)
        outcome = log_of(script, str(files), SECRET, CANARY, sys_ptrace=sys_ptrace)
    assert outcome.said == [0, "ENOENT", "ENOENT"] * 2
    assert findings(outcome.log, SECRET) == set()
    forms = {"raw", "quoted", "base64+0", "base64+1", "base64+2"}
    assert findings(outcome.log, CANARY) == forms, "the control was not recorded as written"
    assert outcome.log.count(b"[secret TOKEN]") >= 10


@every_reader
def test_a_secret_at_the_cut_of_a_long_argument_leaves_no_beginning(sys_ptrace: bool) -> None:
    script = """
        value = sys.argv[1]
        for shift in range(len(value) + 1):
            say(outcome(lambda: os.execve("/usr/bin/true", ["." * (512 - shift) + value], {})))
        huge = ["x" * 131000, "." * (71 - 5) + value]  # cut where reading ends, in the middle of the value
        say(outcome(lambda: os.execve("/usr/bin/true", huge, {})))
    """
    outcome = log_of(script, SECRET, sys_ptrace=sys_ptrace)
    assert set(outcome.said) == {0}
    for end in range(4, len(SECRET)):
        assert SECRET[:end].encode() not in outcome.log


def findings(log: bytes, value: str) -> set[str]:
    """In which forms `value` stands in `log`: an independent list, beside the scrubber's own."""
    raw = value.encode()
    forms = {"raw": raw, "quoted": urllib.parse.quote(value, safe="").encode()}
    for shift in range(3):
        encoded = base64.b64encode(b"." * shift + raw)
        forms[f"base64+{shift}"] = encoded[4 : 4 * ((shift + len(raw)) // 3)]
    return {name for name, form in forms.items() if form in log}
