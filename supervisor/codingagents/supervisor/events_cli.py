"""ENTRY: `coding-agents events verify` and `events tail`: prove an event log, or read it. Only reads; needs no session.

What a log says was chosen in part by untrusted processes, so nothing of it reaches a terminal unescaped.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, get_args

from codingagents.rewrite import places
from codingagents.trust import errors
from codingagents.trust.checkpoint import VerifyingKey, parse_key_line
from codingagents.trust.commandline import Parser
from codingagents.trust.encoding import Record, decode_line, event_kind
from codingagents.trust.errors import ChainError, NotFoundError, UsageError, WireError
from codingagents.trust.events import TYPE_PREFIX, AnyEvent, Checkpoint, SessionEnded
from codingagents.trust.logfile import follow_lines, read_lines
from codingagents.trust.terminal import printable, render
from codingagents.trust.verify import Verified, verify_log

SCHEMA: Final = "coding-agents/verified/v1"
KINDS: Final = tuple(sorted(str(kind.__struct_config__.tag) for kind in get_args(AnyEvent)))
_POLL_SECONDS: Final = 0.2
_MAX_SMALL_FILE: Final = 64 * 1024  # bytes; keys and checkpoints have a few hundred

_VERIFY = """\
Prove that the log is what the session's supervisor signed, or name the first line that does not hold.

Without --key the key is ~/.config/coding-agents/trusted/SESSION.pub, SESSION being what the log's first line says. The
newest checkpoint kept beside the key (SESSION.checkpoint) is used where there is one: with it, lines that were cut off
the end are missed too.
"""


def main(argv: list[str]) -> int:
    """Run one command; 0, or 1 for a log that does not hold or, in `tail`, has lines that are no events."""
    options = _parser().parse_args(argv)
    if options.action == "verify":
        return _verify(options.log, options.key, options.checkpoint, open_ok=options.open, as_json=options.json)
    return _tail(options.log, _kinds(options.type), follow=options.follow, as_json=options.json)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="coding-agents events", description="Prove or read an event log.", allow_abbrev=False)
    actions = parser.add_subparsers(dest="action", required=True, metavar="verify|tail", parser_class=Parser)
    verify = actions.add_parser(
        "verify",
        help="prove that nothing was altered",
        description=_VERIFY,
        epilog="exit codes: 0 the log holds; 1 it does not; 2 usage; 3 a file is not there",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    verify.add_argument("--key", metavar="FILE", help="the session's public key")
    verify.add_argument("--checkpoint", metavar="FILE", help="a checkpoint that was kept outside the session")
    verify.add_argument("--open", action="store_true", help="the session may still run: the log may end anywhere")
    verify.add_argument("--json", action="store_true", help="print the result as one JSON object")
    verify.add_argument("log", metavar="LOG")
    tail = actions.add_parser(
        "tail",
        help="read what happened",
        description="Print a log's events, one a line. Does not prove them: see verify.",
        allow_abbrev=False,
    )
    tail.add_argument("-f", "--follow", action="store_true", help="go on as events come, to the session's end")
    tail.add_argument("--json", action="store_true", help="print the log's own lines")
    tail.add_argument(
        "--type", metavar="T", action="append", default=[], help="only this type, as exec.denied, or group, as exec"
    )
    tail.add_argument("log", metavar="LOG")
    return parser


def _verify(log: str, key_file: str | None, checkpoint_file: str | None, *, open_ok: bool, as_json: bool) -> int:
    path = key_file or _kept_key(log)
    key = _read_key(path)
    known = _read_small(checkpoint_file, "checkpoint") if checkpoint_file else _checkpoint_beside(path)
    try:
        verified = verify_log(
            read_lines(log, open_ok=open_ok),
            key.public_key,
            expect_session=key.session,
            last_known=known,
            open_ok=open_ok,
        )
    except ChainError as refused:
        if as_json:
            _print_json({"holds": False, "line": refused.line, "reason": refused.reason})
        else:
            sys.stderr.write(f"coding-agents: {log} does not hold: {printable(str(refused))}\n")
        return errors.EXIT_REFUSED
    if as_json:
        _print_json({"holds": True, "compared": known is not None, **dataclasses.asdict(verified)})
    else:
        sys.stdout.write(_sentence(verified, known is not None))
    return errors.EXIT_OK


def _sentence(verified: Verified, compared: bool) -> str:
    signed = "all signed" if verified.covered == verified.events else f"{verified.covered} of them signed"
    state = "closed" if verified.closed else "open"
    kept = "as the checkpoint kept outside says" if compared else "compared with no checkpoint kept outside"
    return (
        f"holds: session {verified.session}, {verified.events} events, {signed}, {state}, "
        f"last at {verified.last_time}; {kept}\n"
    )


def _print_json(result: dict[str, object]) -> None:
    sys.stdout.write(json.dumps({"schema": SCHEMA, **result}) + "\n")


def _kept_key(log: str) -> str:
    """Return where the launcher keeps the key of the session that the log claims to be of."""
    first = next(read_lines(log, open_ok=True), b"")
    try:
        session = decode_line(first).session
    except WireError:
        raise UsageError(f"{log} does not begin with an event that names its session; name the key by --key") from None
    path = Path.home() / places.HOST_CONFIG / places.TRUSTED / f"{session}{places.KEY_SUFFIX}"
    if not path.exists():
        raise NotFoundError(f"there is no key of session {session} at {path}; name it by --key")
    return str(path)


def _checkpoint_beside(key_file: str) -> str | None:
    path = Path(key_file).with_suffix(places.CHECKPOINT_SUFFIX)
    return _read_small(str(path), "checkpoint") if path.exists() else None


def _read_key(path: str) -> VerifyingKey:
    try:
        return parse_key_line(_read_small(path, "key"))
    except errors.ConfigError as error:
        raise UsageError(f"{path}: {error}") from None


def _read_small(path: str, what: str) -> str:
    try:
        with open(path, "rb") as file:
            raw = file.read(_MAX_SMALL_FILE)
    except FileNotFoundError:
        raise NotFoundError(f"there is no {what} at {path}") from None
    except OSError as error:
        raise UsageError(f"the {what} {path} cannot be read: {error.strerror}") from None
    return raw.decode("utf-8", "replace")


def _kinds(asked: Sequence[str]) -> frozenset[str]:
    """Return the event kinds that are asked for, all where none is named; a name is a kind or its first part."""
    if not asked:
        return frozenset(KINDS)
    chosen = set[str]()
    for name in asked:
        bare = name.removeprefix(TYPE_PREFIX)
        matching = [kind for kind in KINDS if kind == bare or kind.startswith(f"{bare}.")]
        if not matching:
            raise UsageError(f"there is no event type {name!r}; the types are {', '.join(KINDS)}")
        chosen.update(matching)
    return frozenset(chosen)


def _tail(log: str, kinds: frozenset[str], *, follow: bool, as_json: bool) -> int:
    """Print the events of `kinds`, to the present end or, following, to the checkpoint that closes the session."""
    code = errors.EXIT_OK
    show = _own_line if as_json else _summary
    ended = False
    lines = follow_lines(log, _wait) if follow else read_lines(log, open_ok=True)
    for number, line in enumerate(lines, start=1):
        try:
            record = decode_line(line)
        except WireError as error:
            code = errors.EXIT_REFUSED
            sys.stderr.write(f"coding-agents: line {number} of {log}: {printable(str(error))}\n")
            continue
        if event_kind(record.event) in kinds:
            sys.stdout.write(show(line, record) + "\n")
        if follow:
            sys.stdout.flush()
            if ended and isinstance(record.event, Checkpoint):
                break
            ended = isinstance(record.event, SessionEnded)
    return code


def _wait() -> bool:
    time.sleep(_POLL_SECONDS)
    return True


def _summary(_line: bytes, record: Record) -> str:
    return render(record)


def _own_line(line: bytes, _record: Record) -> str:
    r"""Return the log's line; for a terminal with every unprintable character, which strings only hold, as `\uNNNN`."""
    text = line.decode()
    if not sys.stdout.isatty():
        return text
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)
