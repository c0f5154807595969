"""SHELL: a task's pseudo-terminal shown on the requester's own: bytes both ways, its window, its stops and its modes.

The terminal of the task is another than the requester's: one that is passed on has no job control in it, and what is
typed would signal the requester. While the requester is in the foreground its terminal is raw, so that every key is the
task's to interpret; it is put back as it was on every way out that a program can take.
"""

from __future__ import annotations

import fcntl
import posix
import select
import termios

from codingagents.supervisor.task_client import Runner, TaskError, drain, listen, suspend

TYPE_CHECKING = False  # see signals.py
if TYPE_CHECKING:
    import signal as _signal
    from types import FrameType
    from typing import Any

    from codingagents.supervisor.task_wire import Request
else:
    import _signal

_PASSED_ON = (
    *(_signal.SIGTERM, _signal.SIGINT, _signal.SIGHUP, _signal.SIGQUIT),
    *(_signal.SIGUSR1, _signal.SIGUSR2),
)
_IN, _OUT = 0, 1
_PIECE = 65536
_MOST_TYPED = 65536  # bytes that the task has not read yet; then the requester's terminal keeps what is typed
_MOST_KEPT = 1 << 18  # bytes; more than the kernel keeps of what a terminal was written
_WINDOW = bytes(8)  # struct winsize
_LOOK_AGAIN = 100  # ms, for what the kernel does not tell
_TIOCGPTN = 0x80045430  # asm-generic/ioctls.h; only a master has it


class _Relay:
    """What stands between two terminals."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._poll = select.poll()
        self._master = -1
        self._unheld = False  # nobody has the other side of the task's terminal open; who it controls may open it yet
        self._typed = b""
        self._before: list[Any] | None = None  # modes of the requester's terminal, while it is raw
        self._raw: list[Any] = []

    def run(self, request: Request) -> int:
        woken = listen(
            {
                **dict.fromkeys(_PASSED_ON, self._runner.pass_on),
                _signal.SIGTSTP: self._stop,
                _signal.SIGCONT: self._go_on,
                _signal.SIGWINCH: self._resize,
            }
        )
        self._poll.register(woken, select.POLLIN)
        self._poll.register(self._runner, select.POLLIN)
        self._runner.ask(request)
        try:
            while self._runner.ending is None:
                for descriptor, events in self._poll.poll(self._patience()):
                    self._serve(descriptor, events, woken)
                if self._unheld:
                    self._show()
                if self._before is None and self._master >= 0 and _in_foreground():
                    self._go_on()
            self._show_the_rest()
        finally:
            self._leave()
        return self._runner.ending

    def _patience(self) -> int | None:
        """Return how many ms to wait: for the other side of the task's terminal, and our turn, we have to look."""
        waits = self._master >= 0 and (self._unheld or self._before is None)
        return _LOOK_AGAIN if waits else None

    def _serve(self, descriptor: int, events: int, woken: int) -> None:
        if descriptor == woken:
            drain(woken)
        elif descriptor == self._runner.fileno():
            self._runner.hear()
            if self._runner.terminal is not None and self._master < 0:
                self._take(self._runner.terminal)
        elif descriptor == _IN and self._before is not None:
            self._read_keys()
        elif descriptor == self._master:
            if events & select.POLLOUT:
                self._type()
            if events & ~select.POLLOUT:
                self._show()

    def _take(self, master: int) -> None:
        """Use the task's terminal from now on; `TaskError` for what is none."""
        try:
            fcntl.ioctl(master, _TIOCGPTN, bytes(4))
        except OSError:
            raise TaskError("the runner sent what is not a terminal") from None
        posix.set_blocking(master, False)
        self._master = master
        self._go_on()
        self._watch()

    # -- the requester's terminal --------------------------------------------------------------------------------

    def _go_on(self, _number: int = 0, _frame: FrameType | None = None) -> None:
        """Take the terminal, if it is ours to take now: at the start, and after each stop."""
        if self._master < 0:
            return
        if not _in_foreground():
            self._before = None  # who took it gave it other modes
            self._watch()
            return
        try:
            now = termios.tcgetattr(_IN)
            if self._before is None or now != self._raw:
                termios.tcsetattr(_IN, termios.TCSANOW, _raw(now))
                self._before, self._raw = now, termios.tcgetattr(_IN)
        except termios.error:
            self._before = None  # it is gone
        self._resize()
        self._watch()

    def _leave(self) -> None:
        """Give the terminal back as it was."""
        before, self._before = self._before, None
        if before is None:
            return
        handler = _signal.signal(_signal.SIGTTOU, _signal.SIG_IGN)  # whoever has it now, it was us who made it raw
        try:
            termios.tcsetattr(_IN, termios.TCSANOW, before)
        except termios.error:
            pass  # it is gone
        finally:
            _signal.signal(_signal.SIGTTOU, handler)

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        self._leave()
        suspend()
        self._go_on()

    def _resize(self, _number: int = 0, _frame: FrameType | None = None) -> None:
        """Give the task's terminal the window of ours; the kernel tells its foreground where that is another one."""
        if self._master < 0:
            return
        try:
            fcntl.ioctl(self._master, termios.TIOCSWINSZ, fcntl.ioctl(_IN, termios.TIOCGWINSZ, _WINDOW))
        except OSError:
            return  # one of both is gone

    # -- bytes ---------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        """Wait for what can go on: keys while there is room for them, the task's terminal while somebody has it."""
        if self._before is not None and len(self._typed) < _MOST_TYPED:
            self._poll.register(_IN, select.POLLIN)
        else:
            _unregister(self._poll, _IN)
        if self._master >= 0 and not self._unheld:
            self._poll.register(self._master, select.POLLIN | (select.POLLOUT if self._typed else 0))

    def _read_keys(self) -> None:
        try:
            keys = posix.read(_IN, _PIECE)
        except BlockingIOError:
            return
        except OSError:
            keys = b""
        if keys:
            self._typed += keys
            self._type()
        elif _in_foreground():  # a raw terminal has no end but its hang-up
            self._hang_up()
        else:
            self._before = None  # another has it
            self._watch()

    def _type(self) -> None:
        try:
            self._typed = self._typed[posix.write(self._master, self._typed) :]
        except BlockingIOError:
            pass
        except OSError:
            self._typed = b""
        self._watch()

    def _show(self) -> None:
        """Write what there is of the task's terminal."""
        data: bytes | None = None
        try:
            data = posix.read(self._master, _PIECE)
        except BlockingIOError:
            pass  # it is held, and nothing new is there
        except OSError:
            data = b""  # EIO: nobody has its other side open
        if data == b"":
            self._unheld = True
            _unregister(self._poll, self._master)  # poll(2) would go on to tell
            return
        if self._unheld:
            self._unheld = False
            self._watch()
        if data and not _write(data):
            self._hang_up()

    def _show_the_rest(self) -> None:
        """Write what the command had written when it ended. What it left running may write on, and is not waited for.

        A read that finds nothing has made sure of it: n_tty_read() flushes what is still on its way before it says so.
        """
        shown = 0
        while self._master >= 0 and shown < _MOST_KEPT:
            try:
                data = posix.read(self._master, _PIECE)
            except OSError:
                return
            if not data or not _write(data):
                return
            shown += len(data)

    def _hang_up(self) -> None:
        """Hang the task's terminal up, as ours was: the kernel tells the task by SIGHUP and EIO."""
        _unregister(self._poll, self._master)
        posix.close(self._master)
        self._master, self._unheld, self._typed, self._before = -1, False, b"", None
        self._watch()


def relay(runner: Runner, request: Request) -> int:
    """Have `request` run on a terminal of its own that shows on ours, 0 and 1; returns as `task_client.run` does."""
    return _Relay(runner).run(request)


def _in_foreground() -> bool:
    try:
        return posix.tcgetpgrp(_IN) == posix.getpgrp()
    except OSError:
        return True  # it does not control us, and nobody is stopped for using it


def _raw(modes: list[Any]) -> list[Any]:
    """Return `modes` as cfmakeraw(3) makes them."""
    iflag, oflag, cflag, lflag, ispeed, ospeed, characters = modes
    cooked = termios.BRKINT | termios.PARMRK | termios.ISTRIP | termios.INLCR | termios.IGNCR | termios.ICRNL
    iflag &= ~(cooked | termios.IGNBRK | termios.IXON)
    oflag &= ~termios.OPOST
    cflag = cflag & ~(termios.CSIZE | termios.PARENB) | termios.CS8
    lflag &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
    characters = [*characters]
    characters[termios.VMIN], characters[termios.VTIME] = 1, 0
    return [iflag, oflag, cflag, lflag, ispeed, ospeed, characters]


def _write(data: bytes) -> bool:
    """Write all to our terminal, whatever that takes; False where it is gone."""
    while data:
        try:
            data = data[posix.write(_OUT, data) :]
        except BlockingIOError:  # somebody else who has it wants it so
            ready = select.poll()
            ready.register(_OUT, select.POLLOUT)
            ready.poll()
        except OSError:
            return False
    return True


def _unregister(poll: select.poll, descriptor: int) -> None:
    try:
        poll.unregister(descriptor)
    except KeyError:
        return
