"""CORE: the command line of `coding-agents init`. No I/O; no imports: plain init must reach its child's exec soon."""

from __future__ import annotations

TYPE_CHECKING = False  # see signals.py
if TYPE_CHECKING:
    from collections.abc import Sequence

USAGE = """\
usage: coding-agents init [--grace SECONDS] [--] COMMAND [ARGUMENT…]
       coding-agents init --session DIR [--control-fd N] [--] [COMMAND [ARGUMENT…]]

Runs COMMAND as a container's init does: forwards signals to its process group, reaps orphans, and ends whatever COMMAND
leaves behind. As PID 1 of a PID namespace, or anywhere else as a subreaper.

  --grace SECONDS   how long what is left gets between TERM and KILL (default 5)
  --session DIR     supervise the session that was prepared in DIR
  --control-fd N    with --session: the descriptor on which the launcher hands over secrets

Exit codes: COMMAND's own, 128 + N where signal N ended it; 127 where there is no such program, 126 where it cannot be
executed, 125 for failures of init itself.
"""
DEFAULT_GRACE = 5.0
_MAX_GRACE = 24 * 60 * 60.0
_VALUED = ("--grace", "--session", "--control-fd")


class InitUsageError(ValueError):
    """The command line of init does not parse; one sentence for the user."""


class InitOptions:
    """What `init` was asked for; `command` may be empty only with a session."""

    __slots__ = ("command", "control_fd", "grace", "help", "session")

    def __init__(self) -> None:
        """Start with the defaults."""
        self.help = False
        self.grace = DEFAULT_GRACE
        self.session: str | None = None
        self.control_fd: int | None = None
        self.command: list[str] = []


def parse(arguments: Sequence[str]) -> InitOptions:
    """Read options up to `--` or the first word that is none; the rest is the command, untouched.

    Raises `InitUsageError`.
    """
    options = InitOptions()
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
    options.command = rest
    if options.session is None:
        if options.control_fd is not None:
            raise InitUsageError("init's option --control-fd goes with --session")
        if not options.command:
            raise InitUsageError("init needs a command to run, as in: coding-agents init -- COMMAND")
    return options


def _set(options: InitOptions, name: str, value: str) -> None:
    if name == "--session":
        options.session = value
    elif name == "--control-fd":
        if not value.isdecimal():
            raise InitUsageError(f"init's option --control-fd needs a descriptor's number, not {value!r}")
        options.control_fd = int(value)
    else:
        try:
            options.grace = float(value)
        except ValueError:
            options.grace = -1
        if not 0 <= options.grace <= _MAX_GRACE:  # NaN fails this too
            raise InitUsageError(f"init's option --grace needs seconds from 0 to {_MAX_GRACE:.0f}, not {value!r}")
