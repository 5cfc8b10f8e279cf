"""DefiLlama's live API into the raw tables: pools, their history, ETH and BTC closes.

In: which pools, and from which UTC day on. Out: rows of `raw_defillama_pool_history` as they came,
`pools` described anew, daily closes in `raw_coinmarketcap_ohlcv`, and a count of what happened.
Units: APY percent, TVL and prices USD. DefiLlama has no gas prices: `load` takes them from a file.
No metric is computed here.

- One pool is one transaction: its new snapshots, its row in `pools` and its row in
  `yieldspark.ingest_progress`. Identical snapshots are not stored twice.
- A pull that was interrupted, or given up because DefiLlama was down, goes on where it stopped: the
  pools that it stored (`ingest_progress`) are skipped. The ledger knows the pull: the unbroken
  chain of cancelled and failed runs of the last RESUME_WITHIN with the same first day. A pull that
  ended is followed by a whole one.
- A pool that fails is reported and the others go on; OUTAGE_AFTER pools in a row without an answer
are an outage, and the pull is given up.
- A close is stored at 00:00 UTC of the day whose close it is (`defillama_rows.closes` has the
rule). A day that the table knows more of than a
  close (open, high, ..) is kept.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import closing
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
from data_processing.ingest.defillama import sql as defillama_sql
from data_processing.ingest.defillama.client import DefiLlama, Patience, fetch_charts
from data_processing.ingest.defillama.pool import (
    describe_pool,
    insert_snapshots,
    require_id_that_fits,
    require_storable_id,
)
from data_processing.ingest.defillama.prices import COINS, pull_closes
from data_processing.ingest.defillama.progress import record_stored, stored_before
from data_processing.ingest.defillama.rows import (
    Snapshots,
    choose,
    snapshots,
)
from data_processing.ingest.pool_descriptions import IN_WORDS
from database.connections.engine import checked_connection, make_engine
from database.ledger.runs import Run, open_run
from database.schema.check import verify_tables
from database.schema.table_use import INGEST_USE

log = logging.getLogger(__name__)

Progress = Callable[[str], None]

JOB = "ingest"

OUTAGE_AFTER = 5

OF_THE_ROWS = ("22", "23", "54")
"""Classes of SQLSTATE: data exception, integrity constraint, program limit (PostgreSQL manual,
appendix A).
"""

ANALYZE_FROM_ROWS = 10_000
"""After so many new rows the planner's statistics are stale, and autovacuum comes a minute later.
"""


@dataclass
class Pull:
    """What a pull did so far; `summary()` is what `ingest` returns."""

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
        found = {name: value for name, value in vars(self).items() if name != "began"}
        return found | {"seconds": round(time.monotonic() - self.began, 3)}

    def fail(self, pool_id: str | None, error: Exception) -> None:
        """Report a pool, or the prices (pool id None)."""
        log.warning("%s: %s", on_one_line((pool_id or "prices")[:100]), error)
        self.failed.append({"pool_id": pool_id, "error": str(error)})


def read_pool_ids(path: Path) -> list[str]:
    """The pool ids of a file: one a line, blank lines and what follows a # left out, each once, in
    their order.

    Raises: InputError where the file can't be read or names no pool.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path} can't be read as a text file of pool ids: {error}. Give a UTF-8 file with one"
            " DefiLlama pool id a line"
        ) from error
    ids = list(dict.fromkeys(filter(None, (line.partition("#")[0].strip() for line in lines))))
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
    patience: Patience | None = None,
) -> dict[str, Any]:
    """Pull pools and prices; one run in the ledger (job `ingest`).

    Args: pool_ids names the pools, listed by DefiLlama or not; None chooses among the listed ones
    by TVL (USD) and kind, all of them where neither is given. since is the first UTC day wanted;
    None is everything. concurrency is how many requests are under way at once; patience is for
    tests.
    Returns: {pools_chosen, pools_fetched, pools_skipped, pools_undescribed, rows_inserted,
    rows_already_there, rows_refused, prices_written, failed: [{pool_id, error}], seconds}; a
    pool_id of None is the prices. pools_undescribed are new pools for whose required descriptions
    something stands in.
    Raises: SourceUnavailable (what was stored stays, the next run goes on), InputError where no
    pool matches, RunInProgress, DatabaseError.
    """
    if concurrency < 1:
        raise ConfigurationError(
            f"concurrency={concurrency} is wrong: at least 1 request at a time is needed"
        )
    engine = make_engine(settings)
    with checked_connection(engine) as connection:
        verify_tables(connection, INGEST_USE)
    client = DefiLlama(settings, concurrency=concurrency, patience=patience)
    pull = Pull()
    with (
        closing(client),
        open_run(
            engine, job=JOB, mode="pull", start=since, code_version=settings.code_version
        ) as run,
    ):
        with run.stage("pools"):
            listed = {pool["pool"]: pool for pool in client.pools()}
            named = _chosen(listed, pool_ids, min_tvl_usd, stablecoins)
            chosen = [pool_id for pool_id in named if _is_storable(pull, pool_id)]
        done = stored_before(engine, run) & set(chosen)
        run.mode = "resume" if done else "pull"
        pull.pools_chosen, pull.pools_skipped = len(named), len(done)
        progress(
            f"{len(named):,} of {len(listed):,} pools chosen"
            + (f", {len(done):,} are there from the interrupted pull" if done else "")
        )
        try:
            with run.stage("charts"):
                _pull_charts(
                    engine,
                    client,
                    run,
                    pull,
                    [pool_id for pool_id in chosen if pool_id not in done],
                    listed,
                    since,
                    concurrency,
                    progress,
                )
            with run.stage("prices"):
                _pull_prices(engine, client, pull, chosen, since, progress)
        finally:
            _account(run, pull)
    return pull.summary()


def _chosen(
    listed: dict[str, dict[str, Any]],
    pool_ids: Sequence[str] | None,
    min_tvl_usd: float | None,
    stablecoins: bool,
) -> list[str]:
    if pool_ids is None:
        return choose(list(listed.values()), min_tvl_usd=min_tvl_usd, stablecoins=stablecoins)
    if not pool_ids:
        raise InputError("no pool id was given. Name at least one DefiLlama pool id")
    return list(dict.fromkeys(pool_ids))


def _is_storable(pull: Pull, pool_id: str) -> bool:
    try:
        require_storable_id(pool_id)
    except InputError as error:
        pull.fail(pool_id, error)
        return False
    return True


def _pull_charts(
    engine: Engine,
    client: DefiLlama,
    run: Run,
    pull: Pull,
    pool_ids: Sequence[str],
    listed: dict[str, dict[str, Any]],
    since: date | None,
    concurrency: int,
    progress: Progress,
) -> None:
    step = max(1, len(pool_ids) // 20)
    unanswered = 0
    with closing(fetch_charts(client, pool_ids, concurrency)) as charts:
        for count, (pool_id, chart) in enumerate(charts, start=1):
            try:
                unanswered = unanswered + 1 if isinstance(chart, SourceUnavailable) else 0
                _store(engine, run, pull, pool_id, listed.get(pool_id), chart, since)
            except (CheckFailed, InputError, SourceUnavailable) as error:
                pull.fail(pool_id, error)
            except DatabaseError as error:
                if not _is_of_the_rows(error):
                    raise
                pull.fail(pool_id, error)
            if unanswered >= OUTAGE_AFTER:
                raise SourceUnavailable(
                    f"{unanswered} pools in a row got no answer, the last:"
                    f" {pull.failed[-1]['error']}"
                )
            if count % step == 0 or count == len(pool_ids):
                progress(
                    f"{count:,} of {len(pool_ids):,} pools, {pull.rows_inserted:,} new snapshots,"
                    f" {len(pull.failed):,} pools failed"
                )
    if pull.pools_undescribed:
        progress(f"{pull.pools_undescribed:,} new pools are not described by DefiLlama: {IN_WORDS}")
    if pull.rows_inserted >= ANALYZE_FROM_ROWS:
        with checked_connection(engine) as connection:
            connection.exec_driver_sql(f"ANALYZE {defillama_sql.HISTORY}")


def _store(
    engine: Engine,
    run: Run,
    pull: Pull,
    pool_id: str,
    pool: dict[str, Any] | None,
    chart: list[Any] | Exception,
    since: date | None,
) -> None:
    """One pool, one transaction. Raises what fetching it raised, InputError where DefiLlama knows
    no such pool or a table takes no such id, CheckFailed where it did not take the snapshots.
    """
    if isinstance(chart, Exception):
        raise chart
    if not chart and pool is None:
        raise InputError(
            f"DefiLlama lists no pool {pool_id!r} and has no history of it. Check the id: it is the"
            " last part of the pool's address on its site"
        )
    try:
        rows = snapshots(chart, since)
    except RecursionError as error:
        raise InputError(
            f"the chart of pool {pool_id} has a point that is nested too deeply to be stored"
        ) from error
    with checked_connection(engine) as connection:
        require_id_that_fits(connection, pool_id)
        inserted = insert_snapshots(connection, pool_id, rows)
        _quarantine(connection, run.run_id, pool_id, rows)
        is_undescribed = describe_pool(connection, pool_id, pool)
        record_stored(connection, run, pool_id, len(rows.timestamps))
    pull.pools_fetched += 1
    pull.pools_undescribed += is_undescribed
    pull.rows_inserted += inserted
    pull.rows_already_there += len(rows.timestamps) - inserted
    pull.rows_refused += len(rows.refused)


def _is_of_the_rows(error: DatabaseError) -> bool:
    """Whether the server refused what these rows hold, and would take those of another pool."""
    return (error.sqlstate or "").startswith(OF_THE_ROWS)


def _quarantine(connection: Connection, run_id: str, pool_id: str, rows: Snapshots) -> None:
    bad = [
        {
            "run_id": run_id,
            "source_id": f"{pool_id}:{row.position}",
            "pool_id": pool_id,
            "reason": row.reason,
            "document": row.document,
        }
        for row in rows.refused
    ]
    if bad:
        connection.execute(text(defillama_sql.QUARANTINE), bad)


def _pull_prices(
    engine: Engine,
    client: DefiLlama,
    pull: Pull,
    pool_ids: Sequence[str],
    since: date | None,
    progress: Progress,
) -> None:
    try:
        for written in pull_closes(engine, client, pool_ids, since, datetime.now(UTC).date()):
            pull.prices_written += written
    except (CheckFailed, InputError, SourceUnavailable) as error:
        pull.fail(None, error)
    except DatabaseError as error:
        if not _is_of_the_rows(error):
            raise
        pull.fail(None, error)
    progress(f"{pull.prices_written:,} daily closes of {' and '.join(COINS.values())} written")


def _account(run: Run, pull: Pull) -> None:
    """What the ledger keeps of the pull, however it ends."""
    run.rows |= {
        "read": pull.rows_inserted + pull.rows_already_there + pull.rows_refused,
        "quarantined": pull.rows_refused,
        "inserted": pull.rows_inserted,
        "unchanged": pull.rows_already_there,
    }
    failed_pools = sum(failure["pool_id"] is not None for failure in pull.failed)
    not_reached = pull.pools_chosen - pull.pools_fetched - pull.pools_skipped - failed_pools
    found = (
        f"{len(pull.failed)} of {pull.pools_chosen} failed: {pull.failed[0]['error']}"
        if pull.failed
        else f"all {pull.pools_chosen} pools"
    )
    if not_reached:
        found = (
            f"{not_reached} of {pull.pools_chosen} pools not fetched yet: the next `ingest` goes on"
            f" with them{f'; {found}' if pull.failed else ''}"
        )
    if pull.failed and not (pull.pools_fetched or pull.pools_skipped):
        run.status, run.error = "failed", found
    run.checks.append(
        {
            "name": "every_pool_fetched",
            "passed": not pull.failed and not not_reached,
            "severity": "warn",
            "found": found,
        }
    )
