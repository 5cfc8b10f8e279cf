"""Fetches charts of pools in threads, as many requests at a time as the caller allows.

Does not retry or store; `client` retries, `pull` stores.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Sequence
from typing import Any

from data_processing.ingest.defillama.client import DefiLlama, IngestStopped

Chart = tuple[str, "list[Any] | Exception"]


def fetch_charts(
    client: DefiLlama, pool_ids: Sequence[str], concurrency: int
) -> Generator[Chart, None, None]:
    """Fetch charts in threads. Closing the iterator stops the threads.

    Args:
        client: DefiLlama's API.
        pool_ids: pools to fetch.
        concurrency: requests at a time; as many answers wait to be taken.

    Yields:
        Pool id and its chart, or the error, in the order of arrival.
    """
    todo: queue.SimpleQueue[str] = queue.SimpleQueue()
    for pool_id in pool_ids:
        todo.put(pool_id)
    fetched: queue.Queue[Chart] = queue.Queue()
    # bounds the memory of answers that are not taken yet
    permits = threading.Semaphore(2 * concurrency)
    for number in range(min(concurrency, len(pool_ids))):
        # daemons, which hold a socket and nothing else: a silent server can't delay the end of the
        # program
        threading.Thread(
            target=_fetch,
            args=(client, todo, fetched, permits),
            name=f"defillama-{number}",
            daemon=True,
        ).start()
    try:
        for _ in pool_ids:
            yield fetched.get()
            permits.release()
    except BaseException:
        client.stop()
        # wakes the threads that wait for a permit, so that they see the stop
        permits.release(concurrency)
        raise


def _fetch(
    client: DefiLlama,
    todo: queue.SimpleQueue[str],
    fetched: queue.Queue[Chart],
    permits: threading.Semaphore,
) -> None:
    while True:
        permits.acquire()
        try:
            pool_id = todo.get_nowait()
        except queue.Empty:
            return
        try:
            fetched.put((pool_id, client.chart(pool_id)))
        except IngestStopped:
            return
        except Exception as error:  # the thread that takes the answers handles it
            fetched.put((pool_id, error))
