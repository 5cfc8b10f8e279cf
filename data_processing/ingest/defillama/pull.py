"""Ingests pools, their history and the closes of ETH and BTC from DefiLlama's API into the raw
tables.

One pool is one transaction, a failing pool is reported and does not stop the others, and an
interrupted run is resumed by the next one (`progress`). APY percent, TVL and prices USD. DefiLlama
has no gas prices: `load` reads them from a file. Computes no metric.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, text

from common.errors import (
    CheckFailed,
    ConfigurationError,
    DatabaseError,
    InputError,
    SourceUnavailable,
)
from common.plain_text import on_one_line
from config_spark import Settings
from data_processing.files.pool_ids import read_pool_ids
from data_processing.ingest.defillama import sql as defillama_sql
from data_processing.ingest.defillama.chart_threads import Chart, fetch_charts
from data_processing.ingest.defillama.client import DefiLlama, RetryPolicy
from data_processing.ingest.defillama.pool import (
    describe_pool,
    insert_snapshots,
    require_id_that_fits,
    require_storable_id,
)
from data_processing.ingest.defillama.prices import COINS, pull_closes
from data_processing.ingest.defillama.progress import pools_already_stored, record_stored
from data_processing.ingest.defillama.rows import (
    Snapshots,
    select_pools,
    snapshots,
)
from data_processing.ingest.pool_descriptions import PLACEHOLDERS_NOTE
from database.connections.engine import checked_connection, make_engine
from database.ledger.check_result import CheckResult
from database.ledger.runs import Run, open_run
from database.schema.check import verify_tables
from database.schema.table_use import INGEST_USE

log = logging.getLogger(__name__)

Progress = Callable[[str], None]

JOB = "ingest"

OUTAGE_AFTER = 5
"""Pools in a row without an answer that are an outage: the run fails."""

DATA_ERROR_CLASSES = ("22", "23", "54")
"""Classes of SQLSTATE: data exception, integrity constraint, program limit (PostgreSQL manual,
appendix A).
"""

ANALYZE_FROM_ROWS = 10_000
"""New rows from which on the table is analyzed: the planner's statistics are stale, and autovacuum
runs a minute later.
"""


@dataclass
class IngestResult:
    """Counts of a run so far; `summary()` is what `ingest` returns."""

    pools_chosen: int = 0
    pools_fetched: int = 0
    pools_skipped: int = 0
    pools_undescribed: int = 0
    rows_inserted: int = 0
    rows_already_there: int = 0
    rows_refused: int = 0
    prices_written: int = 0
    failed: list[dict[str, str | None]] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)

    def summary(self) -> dict[str, Any]:
        """Return the counts as plain JSON values, with `seconds` since the start."""
        counts = {name: value for name, value in vars(self).items() if name != "began"}
        return counts | {"seconds": round(time.monotonic() - self.began, 3)}

    def fail(self, pool_id: str | None, error: Exception) -> None:
        """Report a failure.

        Args:
            pool_id: the pool; None for the prices.
            error: its error.
        """
        log.warning("%s: %s", on_one_line((pool_id or "prices")[:100]), error)
        self.failed.append({"pool_id": pool_id, "error": str(error)})


def read_pool_file(path: Path) -> list[str]:
    """Read the pool ids of a file: one a line, comments after `#`.

    Args:
        path: UTF-8 text.

    Returns:
        Each id once, in order.

    Raises:
        InputError: the file can't be read or names no pool.
    """
    try:
        ids = read_pool_ids(Path(path))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path} can't be read as a text file of pool ids: {error}. Give a UTF-8 file with one"
            " DefiLlama pool id a line"
        ) from error
    if not ids:
        raise InputError(
            f"{path} names no pool. Put one DefiLlama pool id on a line, e.g."
            " 747c1d2a-c668-4682-b9f9-296708a3dd90"
        )
    return ids


def ingest(
    settings: Settings,
    *,
    pool_ids: Sequence[str] | None = None,
    min_tvl_usd: float | None = None,
    stablecoins: bool = False,
    since: date | None = None,
    progress: Progress = log.info,
    concurrency: int = 4,
    retry_policy: RetryPolicy | None = None,
) -> dict[str, Any]:
    """Ingest pools and prices, as one run of the ledger (job `ingest`).

    Args:
        settings: the database and the API's addresses.
        pool_ids: pools, listed by DefiLlama or not; None selects listed pools.
        min_tvl_usd: select pools with at least this TVL, USD.
        stablecoins: select stablecoin pools only.
        since: first UTC day; None for all.
        progress: receives lines for a person.
        concurrency: requests at a time.
        retry_policy: for tests.

    Returns:
        {pools_chosen, pools_fetched, pools_skipped, pools_undescribed, rows_inserted,
        rows_already_there, rows_refused, prices_written, failed: [{pool_id, error}], seconds}. A
        pool_id of None is the prices. pools_undescribed are new pools with a placeholder for a
        required description.

    Raises:
        SourceUnavailable: the API is down; stored pools stay, and the next run resumes.
        InputError: no pool matches.
        RunInProgress: another run of the job holds the lock.
        DatabaseError: the database refused a statement or the connection was lost.
    """
    if concurrency < 1:
        raise ConfigurationError(
            f"concurrency={concurrency} is wrong: at least 1 request at a time is needed"
        )
    engine = make_engine(settings)
    with checked_connection(engine) as connection:
        # before the run: a missing right is no failed run of the ledger
        verify_tables(connection, INGEST_USE)
    client = DefiLlama(settings, retry_policy=retry_policy)
    result = IngestResult()
    with (
        closing(client),
        open_run(
            engine, job=JOB, mode="pull", start=since, code_version=settings.code_version
        ) as run,
    ):
        pull = _Pull(engine, client, run, result, since, progress)
        with run.stage("pools"):
            listed = {pool["pool"]: pool for pool in client.pools()}
            selected = _select(listed, pool_ids, min_tvl_usd, stablecoins)
        _store_pools(pull, listed, selected, concurrency)
    return result.summary()


@dataclass(frozen=True)
class _Pull:
    """A run of `ingest`: where it reads and writes, and its counts so far.

    Attributes:
        engine: the database.
        client: DefiLlama's API.
        run: the open run.
        result: counts so far.
        since: first UTC day; None for all.
        progress: receives lines for a person.
    """

    engine: Engine
    client: DefiLlama
    run: Run
    result: IngestResult
    since: date | None
    progress: Progress


def _store_pools(
    pull: _Pull, listed: Mapping[str, dict[str, Any]], selected: Sequence[str], concurrency: int
) -> None:
    """Store the charts of the selected pools, and the prices of their days."""
    pull.result.pools_chosen = len(selected)
    storable = [pool_id for pool_id in selected if _is_storable(pull.result, pool_id)]
    stored = _resume(pull, storable)
    resumed = f", {len(stored):,} are there from the interrupted pull" if stored else ""
    pull.progress(f"{len(selected):,} of {len(listed):,} pools chosen{resumed}")
    try:
        with pull.run.stage("charts"):
            remaining = [pool_id for pool_id in storable if pool_id not in stored]
            charts = fetch_charts(pull.client, remaining, concurrency)
            _store_charts(pull, charts, remaining, listed)
        with pull.run.stage("prices"):
            _store_prices(pull, storable)
    finally:
        _record_result(pull.run, pull.result)


def _resume(pull: _Pull, pool_ids: Sequence[str]) -> set[str]:
    """Return the pools that an interrupted run has stored already."""
    stored = pools_already_stored(pull.engine, pull.run) & set(pool_ids)
    pull.run.mode = "resume" if stored else "pull"
    pull.result.pools_skipped = len(stored)
    return stored


def _select(
    listed: Mapping[str, dict[str, Any]],
    pool_ids: Sequence[str] | None,
    min_tvl_usd: float | None,
    stablecoins: bool,
) -> list[str]:
    if pool_ids is None:
        return select_pools(list(listed.values()), min_tvl_usd=min_tvl_usd, stablecoins=stablecoins)
    if not pool_ids:
        raise InputError("no pool id was given. Name at least one DefiLlama pool id")
    return list(dict.fromkeys(pool_ids))


def _is_storable(result: IngestResult, pool_id: str) -> bool:
    try:
        require_storable_id(pool_id)
    except InputError as error:
        result.fail(pool_id, error)
        return False
    return True


def _store_charts(
    pull: _Pull,
    charts: Generator[Chart, None, None],
    pool_ids: Sequence[str],
    listed: Mapping[str, dict[str, Any]],
) -> None:
    result = pull.result
    # some twenty lines of progress
    step = max(1, len(pool_ids) // 20)
    unanswered = 0
    # closed also after an error: its threads must end before the run does
    with closing(charts):
        for count, (pool_id, chart) in enumerate(charts, start=1):
            # any other outcome shows that the API answers
            unanswered = unanswered + 1 if isinstance(chart, SourceUnavailable) else 0
            with _failures_reported(result, pool_id):
                _store(pull, pool_id, listed.get(pool_id), chart)
            if unanswered >= OUTAGE_AFTER:
                raise SourceUnavailable(
                    f"{unanswered} pools in a row got no answer, the last:"
                    f" {result.failed[-1]['error']}"
                )
            if count % step == 0 or count == len(pool_ids):
                pull.progress(
                    f"{count:,} of {len(pool_ids):,} pools, {result.rows_inserted:,} new snapshots,"
                    f" {len(result.failed):,} pools failed"
                )
    if result.pools_undescribed:
        pull.progress(
            f"{result.pools_undescribed:,} new pools are not described by DefiLlama:"
            f" {PLACEHOLDERS_NOTE}"
        )
    if result.rows_inserted >= ANALYZE_FROM_ROWS:
        with checked_connection(pull.engine) as connection:
            connection.exec_driver_sql(f"ANALYZE {defillama_sql.HISTORY}")


@contextmanager
def _failures_reported(result: IngestResult, pool_id: str | None) -> Iterator[None]:
    """Report errors of one pool, or of the prices (None); other errors end the run."""
    try:
        yield
    except (CheckFailed, InputError, SourceUnavailable) as error:
        result.fail(pool_id, error)
    except DatabaseError as error:
        if not _is_data_error(error):
            raise
        result.fail(pool_id, error)


def _store(
    pull: _Pull, pool_id: str, pool: dict[str, Any] | None, chart: list[Any] | Exception
) -> None:
    """Store one pool in one transaction; raise the error of its request or its rows."""
    if isinstance(chart, Exception):
        raise chart
    if not chart and pool is None:
        raise InputError(
            f"DefiLlama lists no pool {pool_id!r} and has no history of it. Check the id: it is the"
            " last part of the pool's address on its site"
        )
    try:
        rows = snapshots(chart, pull.since)
    except RecursionError as error:
        raise InputError(
            f"the chart of pool {pool_id} has a point that is nested too deeply to be stored"
        ) from error
    with checked_connection(pull.engine) as connection:
        require_id_that_fits(connection, pool_id)
        # first, because history may have a foreign key to `pools`
        is_undescribed = describe_pool(connection, pool_id, pool)
        inserted = insert_snapshots(connection, pool_id, rows)
        _quarantine(connection, pull.run.run_id, pool_id, rows)
        record_stored(connection, pull.run, pool_id, len(rows.timestamps))
    # after the commit: a pool that is rolled back does not count
    result = pull.result
    result.pools_fetched += 1
    result.pools_undescribed += is_undescribed
    result.rows_inserted += inserted
    result.rows_already_there += len(rows.timestamps) - inserted
    result.rows_refused += len(rows.refused)


def _is_data_error(error: DatabaseError) -> bool:
    """Return whether the server rejected these rows, and would accept those of another pool."""
    return (error.sqlstate or "").startswith(DATA_ERROR_CLASSES)


def _quarantine(connection: Connection, run_id: str, pool_id: str, rows: Snapshots) -> None:
    refused = [
        {
            "run_id": run_id,
            "source_id": f"{pool_id}:{point.position}",
            "pool_id": pool_id,
            "reason": point.reason,
            "document": point.document,
        }
        for point in rows.refused
    ]
    if refused:
        connection.execute(text(defillama_sql.QUARANTINE), refused)


def _store_prices(pull: _Pull, pool_ids: Sequence[str]) -> None:
    today, result = datetime.now(UTC).date(), pull.result
    with _failures_reported(result, None):
        for written in pull_closes(pull.engine, pull.client, pool_ids, pull.since, today):
            result.prices_written += written
    pull.progress(
        f"{result.prices_written:,} daily closes of {' and '.join(COINS.values())} written"
    )


def _record_result(run: Run, result: IngestResult) -> None:
    """Record the counts and the check `every_pool_fetched` in the run, however it ends."""
    run.rows |= {
        "read": result.rows_inserted + result.rows_already_there + result.rows_refused,
        "quarantined": result.rows_refused,
        "inserted": result.rows_inserted,
        "unchanged": result.rows_already_there,
    }
    failed_pools = sum(failure["pool_id"] is not None for failure in result.failed)
    not_reached = result.pools_chosen - result.pools_fetched - result.pools_skipped - failed_pools
    message = f"all {result.pools_chosen} pools"
    if result.failed:
        first = result.failed[0]["error"]
        message = f"{len(result.failed)} of {result.pools_chosen} failed: {first}"
    if not_reached:
        failures = f"; {message}" if result.failed else ""
        message = (
            f"{not_reached} of {result.pools_chosen} pools not fetched yet: the next `ingest`"
            f" continues with them{failures}"
        )
    if result.failed and not (result.pools_fetched or result.pools_skipped):
        # every pool failed, without an exception that ends the run
        run.status, run.error = "failed", message
    is_complete = not result.failed and not not_reached
    run.checks.append(CheckResult("every_pool_fetched", is_complete, "warn", message))
