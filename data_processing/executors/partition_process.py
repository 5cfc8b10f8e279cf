"""A process that computes one partition: `python -m data_processing.executors.partition_process`.

Reads the pickled partition from standard input, and writes the pickled result, or the error, to
standard output. It ends if its standard input is closed: its parent has ended or stops the run.
"""

from __future__ import annotations

import os
import pickle
import sys
import threading
from typing import BinaryIO

from common.errors import YieldSparkError
from data_processing.executors.partition import Partition, PartitionCounts, compute_partition
from database.connections.adbc_session import cancel_until_ended

CANCEL_SECONDS = 1.0
"""Time for the server to end the statements of this process, whose parent has ended or stops."""


def main() -> None:
    """Compute the partition of standard input."""
    # what a library prints must not get into the answer
    answer = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    try:
        partition = pickle.load(sys.stdin.buffer)
    except (EOFError, pickle.UnpicklingError):  # the parent has ended or stopped the run by now
        os._exit(1)
    work = threading.Thread(target=_answer, args=(partition, answer), daemon=True)
    work.start()

    def end_with_parent() -> None:
        sys.stdin.buffer.read()
        cancel_until_ended([work], CANCEL_SECONDS)
        os._exit(1)

    threading.Thread(target=end_with_parent, name="parent", daemon=True).start()
    work.join()
    # the other thread waits for standard input, which the interpreter would close under it
    os._exit(0)


def _answer(partition: Partition, answer: BinaryIO) -> None:
    result: PartitionCounts | Exception
    try:
        result = compute_partition(partition)
    except Exception as error:
        result = error
    with answer:
        answer.write(_pickled(result))


def _pickled(result: PartitionCounts | Exception) -> bytes:
    if not isinstance(result, Exception) or isinstance(result, YieldSparkError):
        return pickle.dumps(result)
    # an error of a library may need more than its message
    return pickle.dumps(YieldSparkError(f"{type(result).__name__}: {result}"))


if __name__ == "__main__":
    main()
