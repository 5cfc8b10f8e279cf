"""Ends a command within seconds of Ctrl-C, SIGTERM or SIGHUP, even if its main thread is inside C
code.

Python runs signal handlers in the main thread only, which may be inside libpq, a name look-up or a
model fit for minutes. A second thread reads the signal at once (`signal.set_wakeup_fd`), calls the
actions of `on_interrupt` until the handler has run, and ends the process END_SECONDS after the
signal.

Python ignores an exception in `__del__` and in callbacks of weak references, the garbage collector
and C libraries. A KeyboardInterrupt that a handler raises there is raised again
(`raise_ignored_interrupts`).
"""

from __future__ import annotations

import atexit
import io
import math
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

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Ctrl-C, a request to end, and a closed terminal or lost login."""

CANCEL_EVERY_SECONDS = 0.3
"""Time for the main thread to react by itself. A later cancellation could hit a statement of the
clean-up.
"""

END_SECONDS = 4.0
"""Time from the signal to the end of the process. Callers wait at most five seconds."""

REPORT_SECONDS = 0.5
"""Time for the report of a forced exit."""

RAISE_AGAIN_SECONDS = 0.02
"""Time for the callback that ignored a KeyboardInterrupt to end."""

STDERR = 2

_interrupted, _handled = threading.Event(), threading.Event()
"""A signal has arrived; the main thread has handled it."""

_raised_again = threading.Event()
"""The next call of the handler is for a signal whose KeyboardInterrupt was ignored."""

_on_interrupt: list[Action] = []
_before_forced_exit: list[Action] = []


def on_interrupt(action: Action) -> None:
    """Register an action that ends a blocking call.

    Args:
        action: called in threads, possibly several times, until the main thread has handled the
            signal.
    """
    _on_interrupt.append(action)


def before_forced_exit(action: Action) -> None:
    """Register an action to run before the process is ended from another thread, where neither
    `finally` nor `atexit` runs.
    """
    _before_forced_exit.append(action)


def mark_handled() -> None:
    """Record that the main thread has handled the signal; for temporary signal handlers."""
    _raised_again.clear()
    _handled.set()


def is_raised_again() -> bool:
    """Return whether a handler is called again because its KeyboardInterrupt was ignored, and not
    for another signal; until `mark_handled`.
    """
    return _raised_again.is_set()


@contextmanager
def raise_ignored_interrupts() -> Iterator[None]:
    """Raise a KeyboardInterrupt that Python ignored again, outside of the callback, by a second
    call of the signal's handler. Without this, the command would continue and print a traceback.
    """
    previous = sys.unraisablehook

    def hook(unraisable: sys.UnraisableHookArgs) -> None:
        is_interrupt = isinstance(unraisable.exc_value, KeyboardInterrupt)
        if is_interrupt and threading.current_thread() is threading.main_thread():
            _handled.clear()
            _raised_again.set()
            # in a thread: an exception inside the hook would be ignored too
            threading.Thread(target=_raise_again, name="raise-again", daemon=True).start()
        else:
            previous(unraisable)

    sys.unraisablehook = hook
    try:
        yield
    finally:
        # a hook that was installed inside the block stays
        if sys.unraisablehook is hook:
            sys.unraisablehook = previous


def _raise_again() -> None:
    main_thread = threading.main_thread().ident
    assert main_thread is not None, "it has started"
    if _handled.wait(RAISE_AGAIN_SECONDS):
        # a newer signal was handled
        return
    # again and again: Python notices a signal just before a blocking call only after the call
    while numbers := _handled_numbers():
        # to the main thread: in another one the signal would not end a blocking call
        signal.pthread_kill(main_thread, numbers[0])
        if _handled.wait(CANCEL_EVERY_SECONDS):
            return
        _act()


def _handled_numbers() -> list[signal.Signals]:
    """Return the signals with a handler: a shell makes background jobs ignore SIGINT."""
    return [number for number in SIGNALS if callable(signal.getsignal(number))]


def _act() -> None:
    """Call the actions of `on_interrupt`."""
    for action in _on_interrupt:
        # an action may block if its server is unreachable
        threading.Thread(target=action, daemon=True).start()


def end_if_interrupted(code: int) -> None:
    """End the process at once if a signal arrived in an `end_on_signal` block that is over.

    Args:
        code: exit code.
    """
    if _interrupted.is_set():
        # tearing down the interpreter and its libraries takes longer than the command's clean-up
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def ignore_signals() -> None:
    """Ignore these signals until the process ends; for a command whose result is final."""
    # a handler in Python would not do: while the interpreter ends, it restores the default action
    # of every handled signal, and a late Ctrl-C would end a successful command with code -2
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def end_on_signal(report: Action, *, end_seconds: float | None = END_SECONDS) -> Iterator[None]:
    """Raise KeyboardInterrupt in the main thread on one of SIGNALS, and limit the time until the
    process ends.

    The limit also holds after the block, because other threads may keep the interpreter alive. Must
    be called in the main thread.

    Args:
        report: prints that the command was interrupted; called if the process is ended inside the
            block.
        end_seconds: time from the first signal to the end; None for commands that must finish their
            work.
    """
    reader, writer = socket.socketpair()
    # `set_wakeup_fd` requires it: a signal handler must not block
    writer.setblocking(False)
    watch = _Watch(reader, report, end_seconds)
    for event in (_interrupted, _handled, _raised_again):
        event.clear()
    for number in SIGNALS:
        # a shell makes background jobs ignore Ctrl-C, and `nohup` SIGHUP
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _raise)
    previous = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    watcher = threading.Thread(target=watch.wait, name="interrupts", daemon=True)
    watcher.start()
    try:
        with raise_ignored_interrupts():
            yield
    finally:
        watch.report = None
        signal.set_wakeup_fd(previous)
        writer.close()
        # after a signal the thread still has to enforce the limit
        if not _interrupted.is_set():
            watcher.join()
        reader.close()


def run_interruptible(work: Callable[[], Result], discard: Callable[[Result], object]) -> Result:
    """Run a function in a thread, so that a signal ends the wait even inside C code.

    Args:
        work: the function.
        discard: called with a result that arrives after the interrupt.

    Returns:
        The result of `work`; its exceptions are raised here.
    """
    if threading.current_thread() is not threading.main_thread():
        return work()
    future: Future[Result] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name="interruptible", daemon=True).start()
    try:
        return future.result()
    except KeyboardInterrupt:
        future.add_done_callback(lambda future: future.exception() or discard(future.result()))
        raise


def _raise(_number: int, _frame: FrameType | None) -> NoReturn:
    mark_handled()
    raise KeyboardInterrupt


class _StderrOf(io.TextIOBase):
    """Standard error of one thread; what other threads write is dropped."""

    def __init__(self, thread: threading.Thread, descriptor: int) -> None:
        self._thread = thread
        self._descriptor = descriptor

    def write(self, text: str) -> int:
        if threading.current_thread() is self._thread:
            os.write(self._descriptor, text.encode(errors="backslashreplace"))
        return len(text)

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)


class _Watch:
    """The thread that reads signals from `set_wakeup_fd` and enforces the time limit."""

    def __init__(self, reader: socket.socket, report: Action, end_seconds: float | None) -> None:
        self.report: Action | None = report
        self._reader = reader
        self._end_seconds = end_seconds

    def wait(self) -> None:
        """Return when the block has ended; end the process after a signal."""
        # not closed here: Python reports a further signal that it can't write
        while number := self._reader.recv(1):
            if number[0] in SIGNALS:
                _interrupted.set()
                break
        if not _interrupted.is_set():
            return
        end_seconds = math.inf if self._end_seconds is None else self._end_seconds
        deadline = time.monotonic() + end_seconds
        while not _handled.wait(CANCEL_EVERY_SECONDS) and time.monotonic() < deadline:
            _act()
        if deadline < math.inf:
            time.sleep(max(0.0, deadline - time.monotonic()))
            self._end()

    def _end(self) -> NoReturn:
        """Report, run the registered actions and exit."""
        # in a thread of its own: the main thread may hold any lock, also that of stderr
        reporter = threading.Thread(target=self._report, daemon=True)
        # the main thread may still report its steps, and the report has to stay the last line
        sys.stderr = _StderrOf(reporter, os.dup(STDERR))
        os.dup2(os.open(os.devnull, os.O_WRONLY), STDERR)
        reporter.start()
        reporter.join(REPORT_SECONDS)
        for action in _before_forced_exit:
            with suppress(Exception):
                action()
        os._exit(Interrupted.exit_code)

    def _report(self) -> None:
        if report := self.report:
            report()
        sys.stdout.flush()
        sys.stderr.flush()
