"""`events verify` and `events tail` over real logs, with real keys."""

import json
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from codingagents.supervisor import __main__ as entry
from codingagents.trust.chain import Chain
from codingagents.trust.checkpoint import key_line, new_key, public_key, sign_checkpoint
from codingagents.trust.events import AnyEvent, Checkpoint, HelperFailed, SessionEnded
from codingagents.trust.vocabulary import SessionId

SESSION = SessionId("20261124-0a0b0c0d")
KEY = new_key(bytes(range(32)))
START = datetime(2026, 11, 24, 4, 11, tzinfo=UTC)
ENDED = SessionEnded(exit_code=0, reason="the agent ended")
SIGN = None
STEER = "red \x1b[31m, C1 \x9b31m, reversed \u202e"


def failed(reason: str) -> AnyEvent:
    return HelperFailed(server="github", reason=reason)


class Files:
    """A log, its key and its newest checkpoint, as the launcher leaves them."""

    def __init__(self, base: Path) -> None:
        self.log = base / "events.jsonl"
        self.trusted = base / ".config" / "coding-agents" / "trusted"
        self.trusted.mkdir(parents=True)
        self.key = self.trusted / f"{SESSION}.pub"
        self.key.write_text(key_line(SESSION, public_key(KEY)))
        self.checkpoint = self.trusted / f"{SESSION}.checkpoint"
        self.notes: list[str] = []
        self.lines: list[bytes] = []

    def write(self, *script: AnyEvent | None) -> None:
        chain = Chain(SESSION)
        for second, event in enumerate(script):
            moment = START + timedelta(seconds=second)
            if event is SIGN:
                note = sign_checkpoint(KEY, session=SESSION, size=chain.seq, root=chain.root(), moment=moment)
                self.notes.append(note)
                event = Checkpoint(note=note)  # noqa: PLW2901 -- what stands in its place
            line = chain.prepare(event, moment)
            chain.commit(line)
            self.lines.append(line)
        self.log.write_bytes(b"".join(self.lines))


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Files:
    monkeypatch.setenv("HOME", str(tmp_path))
    made = Files(tmp_path)
    made.write(failed("first"), failed(STEER), SIGN, ENDED, SIGN)
    return made


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = entry.main(["events", *map(str, arguments)])
    said = capsys.readouterr()
    return code, said.out, said.err


def test_a_log_that_holds_says_what_it_amounts_to(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    """One sentence, and it says whether a checkpoint from outside was compared."""
    code, out, err = run(capsys, "verify", "--key", files.key, files.log)
    assert (code, err) == (0, "")
    assert out == (
        f"holds: session {SESSION}, 5 events, all signed, closed, last at 2026-11-24T04:11:04.000000Z; "
        "compared with no checkpoint kept outside\n"
    )


def test_the_key_and_checkpoint_that_the_launcher_kept_are_found(
    files: Files, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without options the session's own are used, and the result as JSON says so."""
    files.checkpoint.write_text(files.notes[-1])
    code, out, _ = run(capsys, "verify", "--json", files.log)
    assert code == 0
    assert json.loads(out) == {
        "schema": "coding-agents/verified/v1",
        "holds": True,
        "compared": True,
        "session": SESSION,
        "events": 5,
        "checkpoints": 2,
        "covered": 5,
        "closed": True,
        "last_time": "2026-11-24T04:11:04.000000Z",
    }


def test_a_changed_byte_is_refused_naming_the_line(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    """The sentence goes to standard error, and with --json an object to standard output."""
    files.log.write_bytes(files.log.read_bytes().replace(b"first", b"fi5st"))
    code, out, err = run(capsys, "verify", files.log)
    assert (code, out) == (1, "")
    assert err.startswith(f"coding-agents: {files.log} does not hold: line 1: it was changed")
    assert err.count("\n") == 1
    code, out, err = run(capsys, "verify", "--json", files.log)
    assert (code, err) == (1, "")
    assert json.loads(out)["line"] == 1
    assert json.loads(out)["holds"] is False


def test_a_log_that_was_cut_off_shows_against_the_kept_checkpoint(
    files: Files, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """As open log the first three lines hold by themselves; the checkpoint kept outside covers four."""
    files.log.write_bytes(b"".join(files.lines[:3]))
    assert run(capsys, "verify", "--open", files.log)[0] == 0
    kept = tmp_path / "kept"
    kept.write_text(files.notes[-1])
    code, _, err = run(capsys, "verify", "--open", "--checkpoint", kept, files.log)
    assert code == 1
    assert "line 4: it is missing" in err


def test_an_open_log_is_refused_unless_asked_for(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    """With --open it says how much is signed, and a half-written last line is left out."""
    files.log.write_bytes(b"".join(files.lines[:4]) + b'{"half')
    assert run(capsys, "verify", files.log)[0] == 1
    code, out, _ = run(capsys, "verify", "--open", files.log)
    assert code == 0
    assert "4 events, 3 of them signed, open" in out


def test_a_reason_that_quotes_the_log_cannot_steer_the_terminal(
    files: Files, capsys: pytest.CaptureFixture[str]
) -> None:
    """A decoder's message may name a key that a forger chose."""
    forged = files.lines[0].replace(b'"id"', b'"\xc2\x9b31m":1,"id"')
    files.log.write_bytes(forged)
    for action in ("verify", "tail"):
        code, out, err = run(capsys, action, *(["--key", files.key] if action == "verify" else []), files.log)
        assert (code, out) == (1, "")
        assert err.removesuffix("\n").isprintable()


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["verify", "{log}.none"], 3, "there is no event log at {log}.none"),
        (["verify", "--key", "{log}.none", "{log}"], 3, "there is no key at {log}.none"),
        (["verify", "--checkpoint", "{log}.none", "{log}"], 3, "there is no checkpoint at {log}.none"),
        (["verify", "--key", "/", "{log}"], 2, "the key / cannot be read: Is a directory"),
        (["verify", "--key", "{log}", "{log}"], 2, "{log}: "),
        (["verify", "--checkpoint", "{log}", "{log}"], 1, "the checkpoint is not a signed note of an event log"),
        (["verify", "/dev/null"], 2, "/dev/null is not a regular file, so it is no event log"),
        (["tail", "{log}.none"], 3, "there is no event log at {log}.none"),
        (["tail", "--type", "exek", "{log}"], 2, "there is no event type 'exek'; the types are agent.started, "),
        (["tail"], 2, "the following arguments are required: LOG; see: coding-agents events tail --help"),
        (["verify", "--ke", "x", "{log}"], 2, "unrecognized arguments: --ke {log}; see: coding-agents events --help"),
        (["prove", "{log}"], 2, "argument verify|tail: invalid choice: 'prove'"),
        ([], 2, "the following arguments are required: verify|tail; see: coding-agents events --help"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(
    arguments: list[str], code: int, sentence: str, files: Files, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each names the file or the word, on standard error."""
    log = str(files.log)
    got, out, err = run(capsys, *(word.replace("{log}", log) for word in arguments))
    assert (got, out) == (code, "")
    assert err.startswith("coding-agents: " + sentence.replace("{log}", log))
    assert err.count("\n") == 1


def test_a_session_whose_key_was_not_kept_needs_the_option(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    """Both where the key is missing and where the log does not even say whose it is."""
    files.key.unlink()
    code, _, err = run(capsys, "verify", files.log)
    assert (code, err) == (3, f"coding-agents: there is no key of session {SESSION} at {files.key}; name it by --key\n")
    files.log.write_bytes(b"{}\n")
    code, _, err = run(capsys, "verify", files.log)
    assert (code, err.endswith("; name the key by --key\n")) == (2, True)


def test_tail_shows_one_harmless_line_an_event(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    """What a server said is shown escaped."""
    code, out, _ = run(capsys, "tail", files.log)
    assert code == 0
    lines = out.splitlines()
    assert len(lines) == 5
    assert all(line.isprintable() for line in lines)
    assert r"red \x1b[31m, C1 \x9b31m, reversed \u202e" in lines[1]


def test_tail_as_json_is_the_logs_own_bytes(files: Files) -> None:
    """In a pipe nothing is changed, so that the copy still verifies."""
    done = subprocess.run(
        [sys.executable, "-I", "-m", "codingagents.supervisor", "events", "tail", "--json", str(files.log)],
        stdout=subprocess.PIPE,
        check=True,
        timeout=10,
    )
    assert done.stdout == files.log.read_bytes()


def read_terminal(master: int) -> bytes:
    """Return what came, or nothing once the other side is closed."""
    try:
        return os.read(master, 65536)
    except OSError:
        return b""


def test_tail_as_json_on_a_terminal_is_escaped_and_means_the_same(files: Files) -> None:
    """RFC 8785 leaves C1 and direction-changing characters as they are; JSON allows their escapes."""
    master, slave = pty.openpty()
    command = [sys.executable, "-I", "-m", "codingagents.supervisor", "events", "tail", "--json", str(files.log)]
    with subprocess.Popen(command, stdout=slave) as process:
        os.close(slave)
        seen = b"".join(iter(lambda: read_terminal(master), b""))
    os.close(master)
    assert process.returncode == 0
    lines = seen.decode().split("\r\n")[:-1]
    assert all(line.isprintable() for line in lines)
    assert [json.loads(line) for line in lines] == [json.loads(line) for line in files.lines]


@pytest.mark.parametrize(
    ("asked", "seqs"),
    [
        (["session.ended"], [3]),
        (["helper"], [0, 1]),
        (["dev.codingagents.events.checkpoint", "session"], [2, 3, 4]),
    ],
)
def test_tail_by_type(files: Files, asked: list[str], seqs: list[int], capsys: pytest.CaptureFixture[str]) -> None:
    """A whole type or the first part of several; more than one may be named."""
    options = [word for kind in asked for word in ("--type", kind)]
    code, out, _ = run(capsys, "tail", "--json", *options, files.log)
    assert code == 0
    assert [json.loads(line)["seq"] for line in out.splitlines()] == seqs


def test_tail_goes_on_past_a_line_that_is_no_event(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    """It says which, and ends with 1."""
    files.log.write_bytes(b"".join([files.lines[0], b"nonsense\n", *files.lines[1:]]))
    code, out, err = run(capsys, "tail", files.log)
    assert (code, out.count("\n")) == (1, 5)
    assert err.startswith(f"coding-agents: line 2 of {files.log}: not an event")


def test_following_ends_with_the_session(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    """What is appended meanwhile is shown, and the checkpoint after the session's end is the last line."""
    files.log.write_bytes(files.lines[0] + files.lines[1][:20])

    def finish() -> None:
        time.sleep(0.05)
        with files.log.open("ab") as log:
            log.write(files.lines[1][20:] + b"".join(files.lines[2:]))

    writer = threading.Thread(target=finish)
    writer.start()
    code, out, _ = run(capsys, "tail", "--follow", "--json", files.log)
    writer.join()
    assert code == 0
    assert out.encode() == b"".join(files.lines)


def test_a_reader_that_leaves_early_is_no_error_message(files: Files) -> None:
    """`events tail LOG | head -1` prints no traceback."""
    files.lines.clear()
    files.write(*[failed("x" * 1000)] * 300)
    program = f"{sys.executable} -I -m codingagents.supervisor events tail {files.log} | head -n 1"
    done = subprocess.run(["sh", "-c", program], capture_output=True, text=True, check=False, timeout=10)
    assert (done.stdout.count("\n"), done.stderr) == (1, "")


def test_ctrl_c_ends_following_with_130(files: Files) -> None:
    """As a shell reports it, and without a traceback."""
    files.log.write_bytes(files.lines[0])
    command = [sys.executable, "-I", "-m", "codingagents.supervisor", "events", "tail", "-f", str(files.log)]
    # A job in the background ignores SIGINT, and so would the command that these tests start as one.
    foreground = ("env", "--default-signal=INT")
    with subprocess.Popen([*foreground, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline()
            process.send_signal(signal.SIGINT)
            assert process.wait(10) == 130
        finally:
            process.kill()
        assert process.stderr is not None
        assert process.stderr.read() == b""
