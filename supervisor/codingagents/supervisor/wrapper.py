"""ENTRY: stands in the place of a client's program and guards it. `wrap_rules.wrapper_text` makes it a script.

The script is `python -IS` on its own, without our packages: nothing is imported that is not built into the interpreter.
It executes the vendor's program only as the agent of a session, behind the agent's layers, and hands the words in
`routed` to the task runner. What it executes gets argv, environment, descriptors, mask and signals as they came, but
that a signal which the interpreter ignores for itself (PIPE, XFSZ) is at its default again.
"""

import posix
from _signal import SIG_DFL, SIGPIPE, SIGXFSZ, signal  # type: ignore[import-not-found]  # `signal` costs 5 ms more

REFUSED, NOT_EXECUTABLE, NO_PROGRAM = 125, 126, 127


def main(argv: list[str], *, vendor: str, routed: list[str], home: str, shells: str, runner: list[str]) -> int:
    """Execute what `argv` asks for; returns an exit code where that was not done, once it is said why.

    `vendor` is the vendor's program, `routed` the words whose commands are tasks, `home` the agent's home in a
    session, `shells` the directory of its task shells, `runner` what root reaches the task runner with.
    """
    word, rest = "".join(argv[1:2]), argv[2:]
    why = why_not_the_agent(home)
    if word not in routed:
        return _execute(vendor, argv) if not why else _refuse(argv[0], why)
    if rest[:1] == ["--"]:
        del rest[0]
    if word == "shell":
        rest = [_a_shell(shells), *rest]
    elif not rest:
        return _say(REFUSED, f"{argv[0]} {word} needs a command")
    if not why:
        task = rest if word == "shell" else [f"{shells}/sh", "-c", 'exec "$@"', *rest[:1], *rest]
        return _execute(task[0], task)
    return _execute(runner[0], [*runner, *rest]) if posix.getuid() == 0 else _refuse(argv[0], why)


def why_not_the_agent(home: str) -> str:
    """Return why this process is not confined as the agent of a session, "" where it is.

    The session's supervisor made `home` for the agent, in a directory that is root's and masked for tasks.
    """
    try:
        if posix.stat(home[: home.rindex("/")]).st_uid != 0:
            return "its directory below /run is not root's"
        agent = posix.stat(home).st_uid
    except OSError:
        return "no session runs here, or this is not its agent"
    fields = dict(line.split(":\t", 1) for line in _read("/proc/self/status").decode().splitlines())
    if fields["Uid"].split() != [str(agent)] * 4 or agent == 0:
        return f"this is UID {posix.getuid()}, and the session's agent is UID {agent}"
    if int(fields["CapPrm"], 16):
        return "this process has Linux capabilities"
    if fields["NoNewPrivs"] != "1" or fields["Seccomp"] != "2":
        return "this process is without no_new_privs or a seccomp filter"
    return ""


def _execute(program: str, argv: list[str]) -> int:
    for number in (SIGPIPE, SIGXFSZ):
        signal(number, SIG_DFL)
    try:
        posix.execve(program, argv, _environment())
    except OSError as error:
        missing = error.errno in (2, 20)  # ENOENT, ENOTDIR
        what = "is not there" if missing else f"cannot be executed: {error.strerror}"
        return _say(NO_PROGRAM if missing else NOT_EXECUTABLE, f"{program} {what}; see: coding-agents wrap list")


def _environment() -> dict[bytes, bytes]:
    """Return the environment as it came: in the C locale the interpreter has put LC_CTYPE into its own (PEP 538)."""
    found: dict[bytes, bytes] = dict(posix.environ)
    if b"LC_CTYPE" in found and b"\0LC_CTYPE=" not in b"\0" + _read("/proc/self/environ"):
        del found[b"LC_CTYPE"]
    return found


def _a_shell(shells: str) -> str:
    bash = f"{shells}/bash"
    return bash if posix.access(bash, posix.X_OK) else f"{shells}/sh"


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _refuse(name: str, why: str) -> int:
    remedy = "start it by 'coding-agents run', or in a container by 'coding-agents init --session DIR'"
    return _say(NOT_EXECUTABLE, f"{name} runs only as the agent of a session: {why}; {remedy}")


def _say(code: int, sentence: str) -> int:
    text = f"coding-agents: {sentence}\n".encode(errors="backslashreplace")
    try:  # noqa: SIM105 -- contextlib is not built in
        posix.write(2, bytes(byte for byte in text if byte >= 32 or byte == 10))
    except OSError:
        pass  # nobody to tell: the code says it alone
    return code
