"""What the forecast benchmark runs on: real histories through the product into its database, and
generated metrics straight into theirs.

In: a folder with a pool history and its pools as Parquet, or a size. Out: rows in the database.
Units: APY percent, TVL USD, UTC days.
"""

from __future__ import annotations

import datetime as dt
import io
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
from sqlalchemy import Engine

from benchmarks.databases import environment, server_process, settle
from benchmarks.processes import PROJECT, Timing, measure
from config_spark import Settings
from database.connections.engine import make_engine

Say = Callable[[str], None]
Floats = npt.NDArray[np.float64]

SHARED_DATA = PROJECT.parent / "shared" / "data"
FILES = (
    ("defillama_pool_history.parquet", "defillama_pools.parquet"),
    ("pool_history.parquet", "pools.parquet"),
)
"""Names of the history and of its pools: the shared data's, or those of `sample_data/`."""

COMMAND = [sys.executable, str(PROJECT / "run_spark_local.py")]

MAX_CARRY_DAYS = 7
GAP_SHARE, SPIKE_SHARE = 0.03, 0.001
"""Of generated pool-days: without a value of their own, and a spike to ten times the APY."""
CALM_SHARE, STILL_SHARE = 0.5, 0.8
"""Pools that are calm, and the share of their days on which APY stays what it was."""
REVERSION = 0.9
"""What is left after a day of the distance from a pool's own mean."""
CHUNK_POOLS = 1_000

METRICS = ("pool_id", "date", "actual_apy", "actual_tvl", "pool_group")
AGES = ("pool_id", "date", "apy_staleness_days", "tvl_staleness_days")


def history_files(folder: Path) -> tuple[Path, Path]:
    """The history and its pools. Raises: FileNotFoundError with a sentence."""
    for history, pools in FILES:
        if (folder / history).is_file() and (folder / pools).is_file():
            return folder / history, folder / pools
    names = ", or ".join(" and ".join(pair) for pair in FILES)
    raise FileNotFoundError(
        f"{folder} has no pool history: wanted are {names}; --data names another folder"
    )


def largest_pools(files: tuple[Path, Path], pools: int, folder: Path) -> tuple[Path, Path]:
    """Both files cut to the pools with the most rows (the first ids among equals), written to
    `folder`.
    """
    history, described = (pq.read_table(path) for path in files)
    rows = (
        history["pool_id"]
        .to_pandas()
        .value_counts()
        .sort_index()
        .sort_values(ascending=False, kind="stable")
    )
    chosen = pa.array(rows.index[:pools])
    key = "pool" if "pool" in described.column_names else "pool_id"
    cut = (
        history.filter(pc.is_in(history["pool_id"], chosen)),
        described.filter(pc.is_in(described[key], chosen)),
    )
    for table, name in zip(cut, FILES[0], strict=True):
        pq.write_table(table, folder / name)
    return folder / FILES[0][0], folder / FILES[0][1]


def run_command(case: str, settings: Settings, *arguments: str, say: Say) -> Timing:
    """One command of the product as a process of its own. Raises: RuntimeError where it failed."""
    settle(make_engine(settings))
    home = settings.yieldspark_home
    timing = measure(
        case,
        [*COMMAND, *arguments, "--json"],
        environment(settings),
        folder=home,
        server=server_process(settings),
    )
    if timing.error or timing.status == "blocked":
        raise RuntimeError(f"{case} ended as {timing.status}: {timing.error}")
    say(f"{case}: {timing.seconds:.1f} s, {timing.peak_mb:.0f} MB")
    return timing


def load_history(settings: Settings, files: tuple[Path, Path], say: Say) -> list[Timing]:
    """`load` and `calculate_metrics` on an empty database."""
    history, pools = files
    return [
        run_command("load", settings, "load", str(pools), str(history), say=say),
        run_command("calculate_metrics", settings, "calculate_metrics", say=say),
    ]


@dataclass(frozen=True)
class Panel:
    """`days` days that end with `end` of `pools` generated pools; the same arguments make the same
    rows.
    """

    pools: int
    days: int
    end: dt.date
    seed: int = 1

    def chunks(self) -> Iterator[tuple[pa.Table, pa.Table]]:
        """METRICS and AGES of some pools at a time; AGES has the days that are not observed, as the
        metrics job keeps them.
        """
        for first in range(0, self.pools, CHUNK_POOLS):
            yield self._chunk(np.arange(first, min(first + CHUNK_POOLS, self.pools)))

    def _chunk(self, numbers: npt.NDArray[np.int64]) -> tuple[pa.Table, pa.Table]:
        random = np.random.default_rng([self.seed, int(numbers[0])])
        shape = (len(numbers), self.days)
        apy, tvl = self._values(random, len(numbers))
        observed = random.random(shape) >= GAP_SHARE
        observed[:, 0] = True
        last = _last_days(observed)
        age = np.arange(self.days) - last
        pool, day = np.nonzero(age <= MAX_CARRY_DAYS)
        source = last[pool, day]
        dates = np.datetime64(self.end, "D") - (self.days - 1 - day)
        ids = np.char.add("pool-", np.char.zfill(numbers.astype(str), 6))
        frame = pd.DataFrame(
            {
                "pool_id": ids[pool],
                "date": dates,
                "actual_apy": apy[pool, source].round(4),
                "actual_tvl": tvl[pool, source].round(2),
                "pool_group": np.where(numbers[pool] % 2, "stable", "other"),
                "apy_staleness_days": age[pool, day],
                "tvl_staleness_days": age[pool, day],
            }
        ).astype({"date": "datetime64[s]"})
        metrics, ages = frame[list(METRICS)], frame.loc[frame["apy_staleness_days"] > 0, list(AGES)]
        return _table(metrics), _table(ages)

    def _values(self, random: np.random.Generator, pools: int) -> tuple[Floats, Floats]:
        """APY that returns to each pool's own mean, with still days and spikes; TVL that
        wanders.
        """
        shape = (pools, self.days)
        distance = random.standard_normal(shape) * np.exp(random.uniform(-4, -1, (pools, 1)))
        for day in range(1, self.days):
            distance[:, day] += REVERSION * distance[:, day - 1]
        apy = np.exp(random.normal(1.5, 1.2, (pools, 1)) + distance) * np.where(
            random.random(shape) < SPIKE_SHARE, 10.0, 1.0
        )
        is_still = random.random(shape) < np.where(
            random.random((pools, 1)) < CALM_SHARE, STILL_SHARE, 0.0
        )
        tvl = np.exp(
            random.normal(13, 2, (pools, 1))
            + np.cumsum(0.02 * random.standard_normal(shape), axis=1)
        )
        return np.take_along_axis(apy, _last_days(~is_still), axis=1), tvl


def _last_days(known: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """For each pool and day the number of the last day on which the pool was known, 0 before the
    first.
    """
    return np.asarray(np.maximum.accumulate(np.where(known, np.arange(known.shape[1]), 0), axis=1))


def _table(frame: pd.DataFrame) -> pa.Table:
    table = pa.Table.from_pandas(frame, preserve_index=False)
    return table.set_column(
        table.column_names.index("date"), "date", table["date"].cast(pa.date32())
    )


def copy_panel(engine: Engine, panel: Panel, say: Say) -> int:
    """The panel where the metrics job would have put it, by COPY; returns the rows of
    `pool_daily_metrics`.
    """
    rows = 0
    for metrics, ages in panel.chunks():
        _copy(engine, "pool_daily_metrics", metrics)
        _copy(engine, "yieldspark.value_staleness", ages)
        rows += metrics.num_rows
        say(f"{rows:,} generated pool-days")
    return rows


def _copy(engine: Engine, table: str, rows: pa.Table) -> None:
    buffer = io.BytesIO()
    pyarrow.csv.write_csv(rows, buffer, pyarrow.csv.WriteOptions(include_header=False))
    buffer.seek(0)
    connection = engine.raw_connection()
    try:
        connection.cursor().copy_expert(
            f"COPY {table} ({', '.join(rows.column_names)}) FROM STDIN (FORMAT csv)", buffer
        )
        connection.commit()
    finally:
        connection.close()
