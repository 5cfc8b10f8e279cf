"""Ctrl-C while this process waits for the JVM: real signals, and a session that
works afterwards.
"""

from __future__ import annotations

import os
import signal
import threading

import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from spark.interrupt import interruptible, stop_if_interrupted

SIGNAL_AFTER_SECONDS = 0.5
WAIT_IN_THE_JVM_MILLISECONDS = 1500


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the shared JVM, whose first query may take longer than a signal waits for its work."""
    monkeypatch.setattr("spark.interrupt.GIVE_UP_SECONDS", 120.0)


def send_soon() -> None:
    """Send SIGINT to this process when it has had time to enter the JVM."""
    threading.Timer(SIGNAL_AFTER_SECONDS, os.kill, (os.getpid(), signal.SIGINT)).start()


def interrupt_inside_the_jvm(spark: SparkSession) -> None:
    """Call the JVM and get SIGINT, without a job to cancel: the call ends as if nothing had
    happened.
    """
    send_soon()
    assert spark._jvm is not None
    spark._jvm.java.lang.Thread.sleep(WAIT_IN_THE_JVM_MILLISECONDS)


def test_signal_cancels_a_job_and_keeps_the_session(spark: SparkSession) -> None:
    slow = spark.range(2).select(F.expr("java_method('java.lang.Thread', 'sleep', 5000L)"))

    def interrupted() -> None:
        with interruptible(spark):
            send_soon()
            slow.collect()

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert spark.range(3).count() == 3


def test_signal_without_a_job_is_raised_later(spark: SparkSession) -> None:
    with interruptible(spark):
        interrupt_inside_the_jvm(spark)
        with pytest.raises(KeyboardInterrupt):
            stop_if_interrupted()
    stop_if_interrupted()


def test_no_job_starts_after_a_signal_without_a_job(
    spark: SparkSession,
) -> None:
    slow = spark.range(2).select(F.expr("java_method('java.lang.Thread', 'sleep', 5000L)"))

    def goes_on() -> None:
        with interruptible(spark):
            interrupt_inside_the_jvm(spark)
            slow.collect()

    with pytest.raises(KeyboardInterrupt):
        goes_on()


class InterruptedFinalizer:
    """Gets SIGINT in `__del__`, where Python ignores the KeyboardInterrupt of the handler."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGINT)


def test_signal_in_a_finalizer_cancels_the_next_job(spark: SparkSession) -> None:
    slow = spark.range(2).select(F.expr("java_method('java.lang.Thread', 'sleep', 5000L)"))

    def interrupted() -> None:
        with interruptible(spark):
            finalizer = InterruptedFinalizer()
            del finalizer
            slow.collect()

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert spark.range(3).count() == 3


def test_signal_outside_of_the_jvm_ends_the_block_at_once(spark: SparkSession) -> None:
    previous = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), interruptible(spark):
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is previous
