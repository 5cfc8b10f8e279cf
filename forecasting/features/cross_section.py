"""Cross-section features: moves of all pools and of the pool's group, today and yesterday.

Reads rows with INPUTS (moves in scales); returns a row for each day and group with CROSS_SECTION
(float32, NaN where no pool has a move). Plain numpy over Arrow columns; imports no Spark.
"""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from forecasting.features.feature_names import CROSS_SECTION, SCOPES, STATISTICS

INPUTS = ("date", "pool_group", "apy_move_0", "tvl_move_0")

# Ticks of a scale. Sums of whole ticks do not depend on the order of the rows, so a second run
# gives the same bits. The squares of a million moves of MOVE_LIMIT scales need a thirtieth of a
# 64-bit integer.
TICKS = 10_000

TODAY = tuple(f"{scope}_{name}" for scope, name in itertools.product(SCOPES, STATISTICS))
DAY_SCHEMA = pa.schema(
    [("date", pa.date32()), ("known_group", pa.string()), *((name, pa.float32()) for name in TODAY)]
)
"""Columns of `day_statistics`."""

CROSS_SECTION_SCHEMA = pa.schema(
    [*list(DAY_SCHEMA)[:2], *((name, pa.float32()) for name in CROSS_SECTION)]
)
"""Columns of `cross_section`."""

Integers = npt.NDArray[np.int64]
Numbers = npt.NDArray[np.float64]


def known_groups(groups: pa.ChunkedArray) -> pa.ChunkedArray:
    """Returns the groups; pools without one form the group of the empty name."""
    return pc.fill_null(groups, "")


def day_statistics(rows: pa.Table) -> pa.Table:
    """Computes the statistics of the moves of each day and group.

    Args:
        rows: INPUTS, with all rows of their days.

    Returns:
        DAY_SCHEMA, sorted by day.
    """
    names = known_groups(rows["pool_group"]).combine_chunks().dictionary_encode()
    day, group = _days(rows["date"]), names.indices.to_numpy()
    width = max(len(names.dictionary), 1)
    keys, of_key = np.unique(day * width + group, return_inverse=True)
    days, of_day = np.unique(day, return_inverse=True)
    moves = (_moves(rows["apy_move_0"]), _moves(rows["tvl_move_0"]))
    of_all = _statistics(*moves, of_day, days.size)
    # each day's statistics, on the rows of all its groups
    of_all = {name: values[np.searchsorted(days, keys // width)] for name, values in of_all.items()}
    # in the order of TODAY
    columns = [*of_all.values(), *_statistics(*moves, of_key, keys.size).values()]
    return pa.table(
        [_dates(keys // width), names.dictionary.take(pa.array(keys % width)), *columns],
        schema=DAY_SCHEMA,
    )


def with_yesterday(days: pa.Table) -> pa.Table:
    """Adds the statistics of the day before; those of a group are of the same group.

    Args:
        days: DAY_SCHEMA, all days.

    Returns:
        CROSS_SECTION_SCHEMA, sorted by day.
    """
    names = days["known_group"].combine_chunks().dictionary_encode()
    width = max(len(names.dictionary), 1)
    day = _days(days["date"])
    keys = day * width + names.indices.to_numpy()
    order = np.argsort(keys)
    before = {
        "all": _positions(day[order], day[order] - 1),
        "group": _positions(keys[order], keys[order] - width),
    }
    columns = {name: days[name].to_numpy()[order] for name in TODAY}
    for scope, position in before.items():
        for name in STATISTICS:
            # position -1, no such day, selects the NaN at the end
            values = np.append(columns[f"{scope}_{name}"], np.float32(np.nan))
            columns[f"{scope}_{name}_yesterday"] = values[position]
    keys_of_rows = days.select(["date", "known_group"]).take(pa.array(order))
    return pa.table(
        [*keys_of_rows.columns, *(columns[name] for name in CROSS_SECTION)],
        schema=CROSS_SECTION_SCHEMA,
    )


def add_cross_section(rows: pa.Table) -> pa.Table:
    """Adds the columns of CROSS_SECTION, null where unknown.

    Args:
        rows: INPUTS among their columns, with all rows of their days.
    """
    days = with_yesterday(day_statistics(rows.select(INPUTS)))
    groups = pc.unique(days["known_group"])
    keys, of_days = (
        _days(table["date"]) * max(len(groups), 1)
        + pc.index_in(known_groups(table[column]), groups).to_numpy()
        for table, column in ((rows, "pool_group"), (days, "known_group"))
    )
    order = np.argsort(of_days)
    position = order[np.searchsorted(of_days[order], keys)]
    for name in CROSS_SECTION:
        values = days[name].to_numpy()[position]
        rows = rows.append_column(name, pa.array(values, from_pandas=True))
    return rows


def _statistics(
    move: Numbers, tvl_move: Numbers, group: Integers, groups: int
) -> dict[str, npt.NDArray[np.float32]]:
    """STATISTICS of each group."""
    has_move, has_tvl_move = ~np.isnan(move), ~np.isnan(tvl_move)
    count, total = _sums(_ticks(move[has_move]), group[has_move], groups)
    _, squares = _sums(_ticks(move[has_move]) ** 2, group[has_move], groups)
    _, ups = _sums((move[has_move] > 0).astype(np.int64), group[has_move], groups)
    tvl_count, tvl_total = _sums(_ticks(tvl_move[has_tvl_move]), group[has_tvl_move], groups)
    with np.errstate(invalid="ignore", divide="ignore"):
        variance = (squares - total * (total / count)) / np.where(count > 1, count - 1.0, np.nan)
        statistics = {
            "move_mean": total / count / TICKS,
            "move_median": _medians(move[has_move], group[has_move], count),
            "move_dispersion": np.sqrt(np.maximum(variance, 0.0)) / TICKS,
            "up_share": ups / count,
            "tvl_move_mean": tvl_total / tvl_count / TICKS,
        }
    return {name: values.astype(np.float32) for name, values in statistics.items()}


def _sums(values: Integers, group: Integers, groups: int) -> tuple[Integers, Integers]:
    """Rows and sum of each group."""
    sums = np.zeros(groups, dtype=np.int64)
    np.add.at(sums, group, values)
    return np.bincount(group, minlength=groups), sums


def _medians(values: Numbers, group: Integers, count: Integers) -> Numbers:
    """The median of each group; NaN for an empty one."""
    # 0.0 in place of -0.0, because equal values may come in any order
    ordered = np.append(values[np.lexsort((values, group))] + 0.0, np.nan)
    start = np.cumsum(count) - count
    low, high = (
        ordered[np.where(count > 0, start + offset, -1)]
        for offset in ((count - 1) // 2, count // 2)
    )
    medians: Numbers = 0.5 * low + 0.5 * high
    return medians


def _ticks(move: Numbers) -> Integers:
    """Moves in whole ticks; a half is rounded away from zero."""
    exact = move * TICKS
    whole = np.trunc(exact)
    away = np.where(np.abs(exact - whole) >= 0.5, np.sign(exact), 0.0)
    ticks: Integers = (whole + away).astype(np.int64)
    return ticks


def _moves(column: pa.ChunkedArray) -> Numbers:
    moves: Numbers = column.to_numpy().astype(np.float64)
    return moves


def _days(column: pa.ChunkedArray) -> Integers:
    days: Integers = column.cast(pa.int32()).to_numpy().astype(np.int64)
    return days


def _dates(days: Integers) -> pa.Array:
    return pa.array(days.astype(np.int32)).cast(pa.date32())


def _positions(ordered: Integers, keys: Integers) -> Integers:
    """The first position of each key in an ordered array, or -1."""
    position = np.searchsorted(ordered, keys)
    is_present = ordered[np.minimum(position, len(ordered) - 1)] == keys
    return np.where(is_present & (position < len(ordered)), position, -1)
