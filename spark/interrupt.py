"""Ctrl-C while Spark works: cancels Spark's jobs and raises KeyboardInterrupt.

PySpark's own handler calls the JVM inside the call that it interrupts, on the same connection: the
result is a Py4J error and a session that cannot be stopped.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from py4j.protocol import Py4JError
from pyspark.sql import SparkSession

from common import interrupts
from common.errors import SparkLost
from spark.jvm import jvm_exit_code, kill_jvm

# A cancellation ends the current jobs only; it is repeated for those that start later
CANCEL_EVERY_SECONDS = 0.2

# Work that is no Spark job (a query plan, a native model fit) cannot be cancelled: the JVM is
# killed after this time
GIVE_UP_SECONDS = 2.0

JVM_ENDED_MESSAGE = (
    "Spark's JVM ended during the work, with exit code {code}: it was killed, or ran out of memory."
    " Uncommitted changes were rolled back. Free memory, or change SPARK_DRIVER_MEMORY, and run"
    " again"
)

# Set by the signal handler of `interruptible`; signals belong to the process
_signal_received = threading.Event()


def stop_if_interrupted() -> None:
    """Raise KeyboardInterrupt if a signal arrived when Spark's last job was nearly done; called
    before a commit.
    """
    if _signal_received.is_set():
        raise KeyboardInterrupt


@contextmanager
def interruptible(spark: SparkSession) -> Iterator[None]:
    """Cancel Spark's jobs on SIGINT, and on SIGTERM and SIGHUP if the program handles them, and end
    the block.

    A second signal, or one outside of a call to the JVM, ends the block at once. If there is no job
    left to cancel, the block continues until `stop_if_interrupted`, for GIVE_UP_SECONDS at most.
    Does nothing outside of the main thread, which receives all signals.

    Args:
        spark: the session that runs the jobs.

    Raises:
        KeyboardInterrupt: in place of the error of the cancelled job.
        SparkLost: in place of Py4J's error if the JVM ended.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _signal_received.clear()
    finished = threading.Event()

    def cancel() -> None:
        with suppress(Py4JError, OSError):  # the JVM has ended, which also ends the block
            spark.sparkContext.cancelAllJobs()
            while not finished.wait(CANCEL_EVERY_SECONDS):
                spark.sparkContext.cancelAllJobs()

    def give_up() -> None:
        if finished.wait(GIVE_UP_SECONDS):
            return
        if not kill_jvm():
            os.kill(os.getpid(), signal.SIGINT)

    def on_signal(_number: int, frame: FrameType | None) -> None:
        is_second = _signal_received.is_set() and not interrupts.is_raised_again()
        _signal_received.set()
        interrupts.mark_handled()
        if is_second or not _is_calling_jvm(frame):
            raise KeyboardInterrupt
        # in threads: the interrupted call uses this thread's connection to the JVM
        for work in cancel, give_up:
            threading.Thread(target=work, name=f"{work.__name__}-spark", daemon=True).start()

    numbers = [number for number in interrupts.SIGNALS if callable(signal.getsignal(number))]
    previous = {number: signal.signal(number, on_signal) for number in numbers}
    try:
        with interrupts.raise_ignored_interrupts():
            yield
    except Exception as error:
        if _signal_received.is_set():
            raise KeyboardInterrupt from error
        if (code := jvm_exit_code()) is not None:
            raise SparkLost(JVM_ENDED_MESSAGE.format(code=code)) from error
        raise
    finally:
        finished.set()
        _signal_received.clear()
        for number, handler in previous.items():
            signal.signal(number, handler)


def _is_calling_jvm(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_globals.get("__name__", "").startswith("py4j."):
            return True
        frame = frame.f_back
    return False
