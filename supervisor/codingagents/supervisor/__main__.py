"""ENTRY: the container's commands, `python -I -m codingagents.supervisor COMMAND …`.

Imports a command's code only once it is chosen: `init` has its child's exec to reach, and `events` needs no event loop.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # see signals.py
if TYPE_CHECKING:
    from collections.abc import Callable

USAGE = """\
usage: coding-agents COMMAND [ARGUMENT…]

  init [--session DIR] [--] COMMAND…   run COMMAND as a container's init, or supervise a session
  doctor [--json] [--verify]           report which confinement layers hold here, each as it was tried
  events verify | tail LOG             prove or read an event log
  exec explain PATH [--role ROLE]      say which rule decides about a program, and how firmly
  exec list [--session DIR]            list the tasks of a running session
  exec run [--] COMMAND…               run a command as a task of the session here; exec shell: a shell
  exec health                          say whether a session takes tasks here
  helper list [--session DIR]          list the helpers of a running session
  helper run --server NAME             run one helper in the foreground, without a session
  wrap install | remove | list         guard the programs of clients in an image

`coding-agents COMMAND --help` says more.
"""
_INTERRUPTED = 130


def main(arguments: list[str]) -> int:
    """Run one command and return the process's exit code."""
    name, rest = (arguments[0], arguments[1:]) if arguments else ("", [])
    if name == "init":
        return _init(rest)
    return _printing(lambda: _tool(name, rest))


def _printing(command: Callable[[], int]) -> int:
    from codingagents.trust.commandline import printing  # noqa: PLC0415 -- init does without
    from codingagents.trust.errors import AgentError  # noqa: PLC0415 -- likewise

    try:
        return printing(command)
    except AgentError as error:
        return _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        return _INTERRUPTED


def _show(text: str) -> int:
    sys.stdout.write(text)
    return 0


def _tool(name: str, arguments: list[str]) -> int:
    if name in {"-h", "--help", "help"}:
        return _show(USAGE)
    if name == "doctor":
        from codingagents.supervisor import doctor  # noqa: PLC0415 -- see the module's docstring

        return doctor.main(arguments)
    if name == "events":
        from codingagents.supervisor import events_cli  # noqa: PLC0415 -- likewise

        return events_cli.main(arguments)
    if name == "exec" and arguments[:1] == ["list"]:
        from codingagents.supervisor import task_list  # noqa: PLC0415 -- likewise

        return task_list.main(arguments[1:])
    if name == "exec" and arguments[:1] and arguments[0] in {"run", "exec", "shell", "health"}:
        from codingagents.supervisor import task_run  # noqa: PLC0415 -- likewise

        return task_run.main(arguments)
    if name == "exec":
        from codingagents.supervisor import exec_cli  # noqa: PLC0415 -- likewise

        return exec_cli.main(arguments)
    if name == "helper" and arguments[:1] == ["run"]:
        from codingagents.rewrite import foreground  # noqa: PLC0415 -- likewise

        foreground.main(arguments[1:])
    if name == "helper" and arguments[:1] == ["list"]:
        from codingagents.supervisor import helper_list  # noqa: PLC0415 -- likewise

        return helper_list.main(arguments[1:])
    if name == "wrap":
        from codingagents.supervisor import wrap_cli  # noqa: PLC0415 -- likewise

        return wrap_cli.main(arguments)
    from codingagents.trust.errors import UsageError  # noqa: PLC0415 -- likewise

    raise UsageError(
        f"there is no command {name!r}; the commands are init, doctor, events, exec, helper and wrap (see --help)"
    )


def _init(arguments: list[str]) -> int:
    from codingagents.supervisor import signals  # noqa: PLC0415 -- likewise

    signals.block_all()  # before every other import: what arrives meanwhile stays pending
    from codingagents.supervisor import init_options  # noqa: PLC0415 -- likewise

    try:
        options = init_options.parse(arguments)
    except init_options.InitUsageError as error:
        return _fail(str(error), 125)  # 2 could be the command's own
    if options.help:
        return _printing(lambda: _show(init_options.USAGE))
    if options.session is None:
        from codingagents.supervisor import plain_init  # noqa: PLC0415 -- likewise

        return plain_init.run(
            options.command,
            grace=options.grace,
            subreaper=options.subreaper,
            parent_death_signal=options.parent_death_signal,
        )
    from codingagents.supervisor import session  # noqa: PLC0415 -- likewise
    from codingagents.trust.errors import EXIT_ENGINE, AgentError  # noqa: PLC0415 -- likewise

    try:
        return session.main(options.session, options.control_fd, options.command)
    except AgentError as error:
        return _fail(str(error), EXIT_ENGINE)  # any lower code could be the command's own


def _fail(sentence: str, code: int) -> int:
    from codingagents.trust.commandline import complain  # noqa: PLC0415 -- likewise

    complain(sentence)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
