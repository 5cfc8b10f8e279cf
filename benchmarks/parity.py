"""Finds the cause of each difference between common pandas code and the product. pandas is computed
again with one deviation less each time, in the order of `CAUSES`; the cause of a cell is the last
deviation whose removal made it equal. Remaining differences are unexplained. Writes nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sqlalchemy import Engine

from benchmarks.databases import last_decimal
from benchmarks.pandas_way import FIXES, pool_days, read_market, read_rows
from data_processing.raw.observed_days import snapshot_identity
from database.schema.merge_sql import qualified
from database.schema.own_tables import quarantine
from database.schema.owner_tables import METRIC_COLUMNS, pool_daily_metrics, pools, raw_pool_history

QUARANTINED, NOT_OVER, CALENDAR = "quarantined rows", "days not over", "calendar's end"

CAUSES = {
    QUARANTINED: "pandas uses rows, or half of them, that the product puts into quarantine",
    NOT_OVER: "pandas uses today's rows, the product complete days only",
    **FIXES,
    CALENDAR: (
        "pandas fills up to the newest day for every pool, the product ends an inactive pool with"
        " its last snapshot"
    ),
}
"""Deviations of pandas from the product, in the order in which they are removed."""

UNEXPLAINED = "unexplained"

Booleans = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class ComparisonData:
    """Data of a comparison, read once. `product` has the index (pool_id, date) and METRIC_COLUMNS
    as stored.
    """

    engine: Engine
    rows: pd.DataFrame
    product: pd.DataFrame
    quarantined: frozenset[int]
    inactive: frozenset[str]
    _market: dict[frozenset[str], pd.DataFrame] = field(default_factory=dict)

    @classmethod
    def read(cls, engine: Engine) -> ComparisonData:
        columns = ", ".join(f"{name}::float8 AS {name}" for name in METRIC_COLUMNS)
        product = pd.read_sql(
            f"SELECT pool_id, date, {columns} FROM {qualified(pool_daily_metrics)}",
            engine,
            parse_dates=["date"],
        )
        history = qualified(raw_pool_history)
        quarantined = f"""
            SELECT h.id
            FROM {qualified(quarantine)} AS q
            JOIN {history} AS h
                ON h.pool_id = q.pool_id
                AND {snapshot_identity("h")}::text = q.source_id
            WHERE q.source_table = '{history}'
        """
        inactive = f"SELECT pool_id FROM {qualified(pools)} WHERE is_active IS FALSE"
        return cls(
            engine,
            read_rows(engine),
            product.set_index(["pool_id", "date"]).sort_index(),
            frozenset(pd.read_sql(quarantined, engine)["id"]),
            frozenset(pd.read_sql(inactive, engine)["pool_id"]),
        )

    def market(self, fixes: Collection[str]) -> pd.DataFrame:
        used = frozenset(fixes) & {"price of the day before", "nothing from the future"}
        if used not in self._market:
            self._market[used] = read_market(
                self.engine, self.rows["date"].min(), self.rows["date"].max(), used
            )
        return self._market[used]

    @property
    def newest(self) -> pd.Timestamp:
        return pd.Timestamp(self.product.index.get_level_values("date").max())

    def without(self, rows: pd.DataFrame, fixes: Collection[str]) -> pd.DataFrame:
        """Return the rows that pandas uses after the corrections of rows in `fixes`."""
        if QUARANTINED in fixes:
            rows = rows[~rows["id"].isin(self.quarantined)]
        return rows[rows["date"] <= self.newest] if NOT_OVER in fixes else rows

    def days(self, pool: str, pool_rows: pd.DataFrame, fixes: Collection[str]) -> pd.DataFrame:
        """Return the pool's days as pandas computes them with the corrections in `fixes`."""
        rows = self.without(pool_rows, fixes)
        if rows.empty:
            return pd.DataFrame(
                columns=list(METRIC_COLUMNS), index=pd.DatetimeIndex([]), dtype=float
            )
        newest = self.without(self.rows, fixes)["date"].max()
        if CALENDAR in fixes:
            newest = rows["date"].max() if pool in self.inactive else self.newest
        return pool_days(rows, newest, self.market(fixes), fixes)


@dataclass
class Parity:
    """Counts by cause, with UNEXPLAINED: cells of rows that both have, and rows that only
    one has.
    """

    rows_of_both: int = 0
    only_pandas: Counter[str] = field(default_factory=Counter)
    only_product: Counter[str] = field(default_factory=Counter)
    cells: dict[str, Counter[str]] = field(
        default_factory=lambda: {name: Counter() for name in METRIC_COLUMNS}
    )

    @property
    def unexplained(self) -> int:
        return sum(
            counts[UNEXPLAINED]
            for counts in (self.only_pandas, self.only_product, *self.cells.values())
        )

    def document(self) -> dict[str, Any]:
        columns = {
            name: {
                "compared": self.rows_of_both,
                "different": sum(causes.values()),
                "causes": dict(causes),
            }
            for name, causes in self.cells.items()
        }
        rows = {
            "both": self.rows_of_both,
            "only_pandas": dict(self.only_pandas),
            "only_product": dict(self.only_product),
        }
        return {"rows": rows, "columns": columns, "unexplained": self.unexplained, "causes": CAUSES}


def compare(data: ComparisonData) -> Parity:
    """Compare every pool with a raw row; the product has no others."""
    parity = Parity()
    products = {
        str(pool): days.droplevel("pool_id") for pool, days in data.product.groupby("pool_id")
    }
    for pool, pool_rows in data.rows.groupby("pool_id"):
        variants = [data.days(str(pool), pool_rows, fixes) for fixes in _steps()]
        _count(parity, variants, products.get(str(pool), variants[0].iloc[:0]))
    return parity


def _steps() -> Iterator[tuple[str, ...]]:
    """Return the corrections of each step: none, then one more each time."""
    names = tuple(CAUSES)
    return (names[:count] for count in range(len(names) + 1))


def _count(parity: Parity, variants: list[pd.DataFrame], product: pd.DataFrame) -> None:
    days = product.index.union(variants[0].index)
    in_product, in_pandas = (
        days.isin(product.index),
        [days.isin(variant.index) for variant in variants],
    )
    both = in_product & in_pandas[0]
    parity.rows_of_both += int(both.sum())
    rows = _causes([is_present == in_product for is_present in in_pandas])
    parity.only_pandas.update(_counts_by_cause(rows[in_pandas[0] & ~in_product]))
    parity.only_product.update(_counts_by_cause(rows[in_product & ~in_pandas[0]]))
    expected = product.reindex(days)
    for name, counts in parity.cells.items():
        equal = [
            _equal(variant[name].reindex(days).to_numpy(), expected[name].to_numpy(), name)
            for variant in variants
        ]
        causes = _causes(
            [is_equal & is_present for is_equal, is_present in zip(equal, in_pandas, strict=True)]
        )
        counts.update(_counts_by_cause(causes[both]))


def _equal(
    computed: npt.NDArray[np.float64], stored: npt.NDArray[np.float64], column: str
) -> Booleans:
    """Return whether the stored decimal is the rounded value; nulls are equal."""
    half = 0.5 * float(last_decimal(column))
    close: Booleans = np.abs(computed - stored) <= half * (1 + 1e-6) + 1e-12 * np.abs(stored)
    both_null: Booleans = np.isnan(computed) & np.isnan(stored)
    return np.logical_or(close, both_null)


def _causes(equal: list[Booleans]) -> npt.NDArray[np.int64]:
    """Return the number of each cell's cause from the steps in which it is equal: 0 for none,
    len(equal) for unexplained.
    """
    last_apart = np.zeros(equal[0].size, dtype=np.int64)
    for step, is_equal in enumerate(equal, start=1):
        last_apart = np.where(is_equal, last_apart, step)
    return np.where(equal[0] & (last_apart < len(equal)), 0, last_apart)


def _counts_by_cause(causes: npt.NDArray[np.int64]) -> dict[str, int]:
    names = (*CAUSES, UNEXPLAINED)
    counts = np.bincount(causes, minlength=len(names) + 1)[1:]
    return {name: int(count) for name, count in zip(names, counts, strict=True) if count}
