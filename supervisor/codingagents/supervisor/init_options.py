"""CORE: the command line of `coding-agents init`. No I/O, no heavy imports: plain init must be quick."""

from __future__ import annotations

import signal

TYPE_CHECKING = False  # see signals.py
if TYPE_CHECKING:
    from collections.abc import Sequence
    from collections.abc import Set as AbstractSet

USAGE = """\
usage: coding-agents init [OPTION…] [--] COMMAND [ARGUMENT…]
       coding-agents init --session DIR [--control-fd N] [--] [COMMAND [ARGUMENT…]]

Runs COMMAND as a container's init does. COMMAND is looked up in PATH and never meets a shell; it gets a session of its
own, the terminal where init has one to give, and signal mask, ignored signals, environment, descriptors and working
directory as init got them.

  --grace SECONDS   how long what is left gets between TERM and KILL (default 5)
  --subreaper WHEN  whether orphans are adopted and reaped where init is not PID 1:
                      auto    yes; where the kernel refuses, a warning says so (default)
                      always  yes; where the kernel refuses, COMMAND is not run
                      never   no: they go to the next init above, and a warning says so
                    PID 1 of a PID namespace always reaps them.
  --parent-death-signal SIGNAL
                    take it that SIGNAL (TERM, SIGTERM, 15) came when the thread that started init ends. A parent that
                    ended while init started counts: COMMAND is not run then. One that ended before init's first
                    instruction cannot be seen; set the signal before the exec for that, as setpriv --pdeathsig does.
  --session DIR     supervise the session that was prepared in DIR
  --control-fd N    with --session: the descriptor on which the launcher hands over secrets

Signals. Every signal that can be caught is passed on to COMMAND's process group, each as often as it came, from init's
first moment on: what comes before COMMAND runs is kept for it. TSTP, TTIN and TTOU stop the group, and init too where
it is not PID 1; CONT lets both go on. CHLD is init's own.

Terminal. Where init leads the terminal's session, as a container's entrypoint does (docker run -t), COMMAND's session
gets the terminal: job control, Ctrl-C, Ctrl-Z and the window's size are COMMAND's. A terminal of an outer session stays
there, and its keys reach COMMAND as signals. Its modes are left as COMMAND left them.

End. init ends when COMMAND does. What is left below it is sent TERM and CONT, after the grace KILL. Outside PID 1
COMMAND is killed where init is killed.

Exit codes: COMMAND's own, 128 + N where signal N ended it; 127 where there is no such program, 126 where it cannot be
executed, 125 for failures of init itself.

Examples:
  ENTRYPOINT ["coding-agents", "init", "--"]          in a Dockerfile; CMD follows
  coding-agents init --grace 30 -- postgres           wait longer for what is left
  coding-agents init --parent-death-signal TERM -- make test      below a program that may be killed
"""
DEFAULT_GRACE = 5.0
_MAX_GRACE = 24 * 60 * 60.0
_PLAIN = ("--grace", "--subreaper", "--parent-death-signal")  # a session has its own rules for these
_VALUED = (*_PLAIN, "--session", "--control-fd")
SUBREAPER = ("auto", "always", "never")
_NO_DEATH_SIGNALS = frozenset({signal.SIGSTOP, signal.SIGCHLD})  # one would only stop init, the other is its own


class InitUsageError(ValueError):
    """The command line of init does not parse; one sentence for the user."""


class InitOptions:
    """What `init` was asked for; `command` may be empty only with a session."""

    __slots__ = ("command", "control_fd", "grace", "help", "parent_death_signal", "session", "subreaper")

    def __init__(self) -> None:
        """Start with the defaults."""
        self.help = False
        self.grace = DEFAULT_GRACE
        self.subreaper = SUBREAPER[0]
        self.parent_death_signal: int | None = None
        self.session: str | None = None
        self.control_fd: int | None = None
        self.command: list[str] = []


def parse(arguments: Sequence[str]) -> InitOptions:
    """Read options up to `--` or the first word that is none; the rest is the command, untouched.

    Raises `InitUsageError`.
    """
    options = InitOptions()
    given = set()
    rest = list(arguments)
    while rest and rest[0].startswith("-"):
        word = rest.pop(0)
        if word == "--":
            break
        name, equals, value = word.partition("=")
        if name in {"-h", "--help"}:
            options.help = True
            return options
        if name not in _VALUED:
            raise InitUsageError(f"init has no option {name}; put -- before a command that starts with a dash")
        if not equals:
            if not rest:
                raise InitUsageError(f"init's option {name} needs a value")
            value = rest.pop(0)
        _set(options, name, value)
        given.add(name)
    options.command = rest
    _check(options, given)
    return options


def _check(options: InitOptions, given: AbstractSet[str]) -> None:
    if options.session is not None:
        for name in _PLAIN:
            if name in given:
                raise InitUsageError(f"init's option {name} does not go with --session")
        return
    if options.control_fd is not None:
        raise InitUsageError("init's option --control-fd goes with --session")
    if not options.command:
        raise InitUsageError("init needs a command to run, as in: coding-agents init -- COMMAND")


def _set(options: InitOptions, name: str, value: str) -> None:
    if name == "--session":
        options.session = value
    elif name == "--control-fd":
        if not value.isdecimal():
            raise InitUsageError(f"init's option --control-fd needs a descriptor's number, not {value!r}")
        options.control_fd = int(value)
    elif name == "--subreaper":
        if value not in SUBREAPER:
            raise InitUsageError(f"init's option --subreaper must be one of {', '.join(SUBREAPER)}, not {value!r}")
        options.subreaper = value
    elif name == "--parent-death-signal":
        options.parent_death_signal = _signal_number(value)
    else:
        try:
            options.grace = float(value)
        except ValueError:
            options.grace = -1
        if not 0 <= options.grace <= _MAX_GRACE:  # NaN fails this too
            raise InitUsageError(f"init's option --grace needs seconds from 0 to {_MAX_GRACE:.0f}, not {value!r}")


def _signal_number(value: str) -> int:
    named = signal.Signals.__members__.get("SIG" + value.upper().removeprefix("SIG"))
    number = int(value) if value.isdecimal() else named
    if number not in signal.valid_signals() - _NO_DEATH_SIGNALS:
        raise InitUsageError(
            f"init's option --parent-death-signal needs a signal that can tell init, such as TERM, not {value!r}"
        )
    return int(number)
