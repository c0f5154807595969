"""SHELL: what the supervisor has to say on standard error, said by a thread of its own. Decides nothing.

The role has the same standard error. It can fill a pipe that nobody reads, or stop the terminal (tcflow(3)), and then
write(2) blocks: that must hold up a thread that nobody waits for, and not the event loop or whoever has the log's lock.
"""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import threading
from typing import Final

_STANDARD_ERROR: Final = 2
_MOST: Final = 64  # sentences that wait; those that come when so many do are lost

_sentences: queue.Queue[str] = queue.Queue(_MOST)
_lock = threading.Lock()
_speaker: threading.Thread | None = None


def complain(sentence: str) -> None:
    """Tell the operator; never blocks, never raises. From any thread."""
    global _speaker  # noqa: PLW0603 -- one standard error, one thread for it, and none before there is something to say
    with _lock:
        if _speaker is None:
            _speaker = threading.Thread(target=_speak, name="complaints", daemon=True)
            _speaker.start()
    with contextlib.suppress(queue.Full):
        _sentences.put_nowait(sentence)


def finish(seconds: float) -> None:
    """Wait until all is said, at most for `seconds`."""
    with _sentences.all_tasks_done:
        _sentences.all_tasks_done.wait_for(lambda: not _sentences.unfinished_tasks, seconds)


def _speak() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # they are the main thread's
    while True:
        line = f"coding-agents: {_sentences.get()}\n".encode("utf-8", "backslashreplace")
        # Not by sys.stderr: its lock, held by a thread that hangs, would abort the interpreter's own end.
        with contextlib.suppress(OSError):
            while line:
                line = line[os.write(_STANDARD_ERROR, line) :]
        _sentences.task_done()
