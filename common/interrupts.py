"""Ctrl-C and SIGTERM end a command within seconds, whatever its main thread waits for.

Python runs a signal's handler when the main thread is back from C code. Inside libpq, a name
look-up or a fit that may be minutes later. A thread of its own hears of the signal at once
(`signal.set_wakeup_fd`). It asks those who registered with `on_interrupt` to end what the main
thread waits for, until the handler has run, and ends the process END_SECONDS after the signal where
the handler or the clean-up behind it still has not come to an end.
"""

from __future__ import annotations

import atexit
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn, TypeVar

from common.errors import Interrupted

Result = TypeVar("Result")
Action = Callable[[], object]

SIGNALS = (signal.SIGINT, signal.SIGTERM)

CANCEL_EVERY_SECONDS = 0.3
"""The main thread gets so long to come back by itself: a cancellation that came later would hit a
statement of the clean-up.
"""

END_SECONDS = 4.0
"""From the signal to the end of the process. Who asks to end it waits five at most."""

LAST_WORDS_SECONDS = 0.5

STDERR = 2

_interrupted, _noticed = threading.Event(), threading.Event()
"""That a signal came, and that the main thread has it."""

_on_interrupt: list[Action] = []
_at_the_end: list[Action] = []


def on_interrupt(action: Action) -> None:
    """Have `action` called, in a thread, while a signal waits for the main thread to come back from
    C code. It must bear being called again.
    """
    _on_interrupt.append(action)


def at_the_end(action: Action) -> None:
    """Have `action` called before the process is ended from outside of its main thread, where no
    `finally` and no `atexit` runs.
    """
    _at_the_end.append(action)


def notice() -> None:
    """Say that the main thread has the signal: for handlers that take the place of the usual one
    for a time.
    """
    _noticed.set()


def end_if_interrupted(code: int) -> None:
    """End the process with `code` where a signal came to a `watched` block that is over. Taking the
    interpreter and a hundred libraries apart is work that nobody waits for.
    """
    if _interrupted.is_set():
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


@contextmanager
def watched(last_words: Action, *, end_seconds: float | None = END_SECONDS) -> Iterator[None]:
    """While the block runs, SIGINT and SIGTERM raise KeyboardInterrupt in the main thread, and the
    process ends with Interrupted.exit_code at the latest `end_seconds` after the first of them.

    Where a signal came, that holds beyond the block: threads that are still at work may keep the
    interpreter from ending. Call it in the main thread.

    Args: last_words says that the command was interrupted, where the process ends inside the block.
    end_seconds is None for commands that must finish what they began.
    """
    hearing, telling = socket.socketpair()
    telling.setblocking(False)
    state = _Watch(hearing, last_words, end_seconds)
    _interrupted.clear()
    _noticed.clear()
    for number in SIGNALS:
        # a shell has its background jobs ignore Ctrl-C
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _raise)
    previous = signal.set_wakeup_fd(telling.fileno(), warn_on_full_buffer=False)
    watcher = threading.Thread(target=state.wait, name="interrupts", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        state.last_words = None
        signal.set_wakeup_fd(previous)
        telling.close()
        if not _interrupted.is_set():
            watcher.join()


def waited_for(work: Callable[[], Result], discard: Callable[[Result], object]) -> Result:
    """What `work` returns or raises. It runs in a thread: a signal ends the wait for it, even where
    it is inside C code that nothing can cancel.

    Args: discard takes a result for which nobody waits any more.
    """
    if threading.current_thread() is not threading.main_thread():
        return work()
    future: Future[Result] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name="waited-for", daemon=True).start()
    try:
        return future.result()
    except KeyboardInterrupt:
        future.add_done_callback(lambda done: done.exception() or discard(done.result()))
        raise


def _raise(_number: int, _frame: FrameType | None) -> NoReturn:
    notice()
    raise KeyboardInterrupt


class _Watch:
    def __init__(
        self, hearing: socket.socket, last_words: Action, end_seconds: float | None
    ) -> None:
        self.last_words: Action | None = last_words
        self._hearing = hearing
        self._end_seconds = end_seconds

    def wait(self) -> None:
        """Until the block has ended, or a signal has and the process with it."""
        with self._hearing:
            while heard := self._hearing.recv(1):
                if heard[0] in SIGNALS:
                    _interrupted.set()
                    break
        if not _interrupted.is_set():
            return
        deadline = None if self._end_seconds is None else time.monotonic() + self._end_seconds
        while not _noticed.wait(CANCEL_EVERY_SECONDS):
            if deadline is not None and time.monotonic() > deadline:
                break
            for action in _on_interrupt:
                # one that blocks, its server being out of reach, must not keep us
                threading.Thread(target=action, daemon=True).start()
        if deadline is not None:
            time.sleep(max(0.0, deadline - time.monotonic()))
            self._end()

    def _end(self) -> NoReturn:
        """The main thread may hold any lock, that of standard error included."""
        speaking = threading.Thread(target=self._say, daemon=True)
        speaking.start()
        speaking.join(LAST_WORDS_SECONDS)
        # the main thread may still report its steps, and these are the last words
        os.dup2(os.open(os.devnull, os.O_WRONLY), STDERR)
        for action in _at_the_end:
            with suppress(Exception):
                action()
        os._exit(Interrupted.exit_code)

    def _say(self) -> None:
        if words := self.last_words:
            words()
        sys.stdout.flush()
        sys.stderr.flush()
