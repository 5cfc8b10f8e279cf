"""Ctrl-C while Spark works: its jobs are cancelled and the caller sees KeyboardInterrupt, with the
connection to the JVM still in order.

PySpark's own handler calls the JVM from inside the call that it interrupts, on the same connection:
what comes out is a Py4J error and a session that can't even be stopped properly.
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
from spark.session import jvm_exit_code, kill_jvm

CANCEL_EVERY_SECONDS = 0.2
"""A cancellation reaches the jobs of that moment only: the next one must not start either."""

GIVE_UP_SECONDS = 2.0
"""What is no job (a plan for which a server is asked, a native fit) can't be cancelled: after this
time the JVM ends.
"""

JVM_ENDED = (
    "Spark's JVM ended in the middle of the work, with exit code {code}: it was killed, or had no"
    " memory left. What was not committed is undone. Free memory, or give it less or more with"
    " SPARK_DRIVER_MEMORY, and run again"
)

_asked = threading.Event()
"""Set by the signal that `interruptible` handles; signals belong to the process, and so does this.
"""


def stop_if_interrupted() -> None:
    """Raises: KeyboardInterrupt where the signal came when Spark's last job was as good as done:
    asked before a commit, nothing is committed.
    """
    if _asked.is_set():
        raise KeyboardInterrupt


@contextmanager
def interruptible(spark: SparkSession) -> Iterator[None]:
    """While the block runs, SIGINT cancels Spark's jobs and ends the block. A second one, or one
    outside of a call to the JVM, ends it at once.

    One that finds no job left to cancel lets the block go on as far as `stop_if_interrupted`, for
    GIVE_UP_SECONDS at most; after a commit there is nothing left to stop. SIGTERM does the same
    where the program handles it.
    Outside of the main thread this does nothing: signals are the main thread's.
    Raises: KeyboardInterrupt in place of the error that the cancelled job ended with; SparkLost in
    place of what Py4J says of a JVM that ended.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _asked.clear()
    over = threading.Event()

    def cancel() -> None:
        with suppress(Py4JError, OSError):  # the JVM ends, and the block with it
            spark.sparkContext.cancelAllJobs()
            while not over.wait(CANCEL_EVERY_SECONDS):
                spark.sparkContext.cancelAllJobs()

    def give_up() -> None:
        if over.wait(GIVE_UP_SECONDS):
            return
        if not kill_jvm():
            os.kill(os.getpid(), signal.SIGINT)

    def on_signal(_number: int, frame: FrameType | None) -> None:
        insisted = _asked.is_set()
        _asked.set()
        interrupts.notice()
        if insisted or not _calls_the_jvm(frame):
            raise KeyboardInterrupt
        for work in cancel, give_up:
            threading.Thread(target=work, name=f"{work.__name__}-spark", daemon=True).start()

    handled = [
        number for number in (signal.SIGINT, signal.SIGTERM) if callable(signal.getsignal(number))
    ]
    previous = {number: signal.signal(number, on_signal) for number in handled}
    try:
        yield
    except Exception as error:
        if _asked.is_set():
            raise KeyboardInterrupt from error
        if (code := jvm_exit_code()) is not None:
            raise SparkLost(JVM_ENDED.format(code=code)) from error
        raise
    finally:
        over.set()
        _asked.clear()
        for number, handler in previous.items():
            signal.signal(number, handler)


def _calls_the_jvm(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_globals.get("__name__", "").startswith("py4j."):
            return True
        frame = frame.f_back
    return False
