"""Runs the partitions of a run: the first in a thread of this process, each other one in a process
of its own.

Processes are started anew and not forked: this process has threads and open connections. An error,
a killed process or Ctrl-C ends all of them, with their statements.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue

from common.errors import ProcessLost
from data_processing.executors.partition import Partition, PartitionCounts, compute_partition
from data_processing.executors.partition_process import CANCEL_SECONDS
from database.connections.adbc_session import cancel_until_ended

CODE_ROOT = Path(__file__).resolve().parents[2]
"""The checkout, or the zip of a submitted job."""

MODULE = "data_processing.executors.partition_process"

STOP_SECONDS = CANCEL_SECONDS + 0.5
"""Time for the processes to cancel their statements and end, before they are killed."""

Result = PartitionCounts | BaseException


def compute_partitions(partitions: Sequence[Partition]) -> list[PartitionCounts]:
    """Compute all partitions at once.

    Raises:
        DatabaseError: as `compute_partition`.
        ProcessLost: a process was killed, or ran out of memory.
        KeyboardInterrupt: the statements of all processes are cancelled.
    """
    results: SimpleQueue[Result] = SimpleQueue()
    children: list[subprocess.Popen[bytes]] = []
    threads: list[threading.Thread] = []

    def start(work: Callable[[], PartitionCounts]) -> None:
        # a thread waits inside C code, where a signal would not reach the main thread
        thread = threading.Thread(target=_put_result, args=(work, results), daemon=True)
        threads.append(thread)
        thread.start()

    try:
        for partition in partitions[1:]:
            child = _start_process()
            children.append(child)
            start(lambda child=child, partition=partition: _result_of(child, partition))  # type: ignore[misc]
        start(lambda: compute_partition(partitions[0]))
        finished = []
        for _ in partitions:
            result = results.get()
            if isinstance(result, BaseException):
                raise result
            finished.append(result)
    except BaseException:
        _stop(children, threads)
        raise
    return finished


def _put_result(work: Callable[[], PartitionCounts], results: SimpleQueue[Result]) -> None:
    try:
        results.put(work())
    except BaseException as error:
        results.put(error)


def _start_process() -> subprocess.Popen[bytes]:
    path = os.pathsep.join(filter(None, [str(CODE_ROOT), os.environ.get("PYTHONPATH")]))
    return subprocess.Popen(
        [sys.executable, "-m", MODULE],
        env=os.environ | {"PYTHONPATH": path},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        # a terminal sends Ctrl-C to all processes of its session; this process stops the others
        start_new_session=True,
    )


def _result_of(child: subprocess.Popen[bytes], partition: Partition) -> PartitionCounts:
    assert child.stdin is not None
    assert child.stdout is not None
    # a process that is killed early closes its end of the pipe
    with suppress(BrokenPipeError):
        pickle.dump(partition, child.stdin)
        child.stdin.flush()
    # standard input stays open: its end would stop the process
    answer = child.stdout.read()
    code = child.wait()
    if code or not answer:
        raise ProcessLost(
            f"a process of the run ended with exit code {code}: it was killed, or ran out of"
            " memory. Nothing was written. Free memory, or set EXECUTOR=spark, and run again"
        )
    result: Result = pickle.loads(answer)
    if isinstance(result, BaseException):
        raise result
    return result


def _stop(children: Sequence[subprocess.Popen[bytes]], threads: Sequence[threading.Thread]) -> None:
    for child in children:
        with suppress(OSError):
            if child.stdin:
                child.stdin.close()
    cancel_until_ended(threads, STOP_SECONDS)
    for child in children:
        if child.poll() is None:
            child.kill()
            child.wait()
