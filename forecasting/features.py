"""Features of a pool at day D, from one function used for training and for prediction, and the labels of D + horizon.

In: the dense panel of `panel.build_panel`. Out: the panel's columns, `SCALE_COLUMNS` (apy_scale in APY points, tvl_scale in log1p(USD)),
`LEVEL_COLUMNS` (percent, USD) and `FEATURES` (float32, null where unknown). APY distances are divided by the pool's own scale, so that a calm pool
and one at 355,083 % share one model. Windows end at D and hold at most 31 rows; cross-sections hold one day. Nothing after D is read, and no
feature tells one pool from another by name.

Every window over a pool uses one partitioning and one order, as does the day's cross-section: two sorts in all. Sums run in that order, so a second
run gives the same bits. Rolling medians come from the sorted array of the frame.
"""

from __future__ import annotations

from functools import reduce

from pyspark.sql import Column, DataFrame, Window, WindowSpec
from pyspark.sql import functions as F

LAGS = (1, 2, 3, 4, 5, 6, 7, 14, 30)
APY_LAGS = tuple(f"apy_lag_{lag}" for lag in LAGS)
APY_SHAPE = (
    "apy_level",
    "apy_scale_relative",
    "apy_move_today",
    "apy_move_yesterday",
    "apy_change_7",
    "apy_mean_gap_7",
    "apy_mean_gap_30",
    "apy_median_gap_7",
    "apy_median_gap_30",
    "apy_std_7",
    "apy_std_30",
    "apy_abs_move_7",
    "apy_still_share_30",
    "apy_spike",
    "apy_spike_yesterday",
)
TVL_SHAPE = (
    "tvl_level",
    "tvl_share",
    "tvl_move_today",
    "tvl_move_yesterday",
    "tvl_change_7",
    "tvl_change_30",
    "tvl_mean_gap_7",
    "tvl_mean_gap_30",
    "tvl_std_30",
)
CALENDAR = ("weekday", "age_days", "observed_30", "days_since_observed")
CROSS_SECTION = tuple(
    f"{scope}_{name}" for scope in ("all", "group") for name in ("move_mean", "move_median", "move_dispersion", "up_share", "tvl_move_mean")
)
MARKET = tuple(f"{series}_change_{days}" for series in ("eth", "btc", "gas") for days in (1, 7))
FEATURES = (*APY_LAGS, *APY_SHAPE, *TVL_SHAPE, *CALENDAR, *CROSS_SECTION, *MARKET)

SCALE_COLUMNS = ("apy_scale", "tvl_scale")
LEVEL_COLUMNS = ("apy_median_7", "tvl_median_7", "apy_lowest_30")
LABELS = ("apy_label", "tvl_label")

# A move beyond this many scales tells no more than "very large", and would drown the day's means.
MOVE_LIMIT = 50.0
LABEL_LIMIT = 30.0
SPIKE_SCALES = 5.0
APY_FLOOR, APY_RELATIVE_FLOOR, TVL_FLOOR = 0.001, 0.002, 0.001


def add_features(panel: DataFrame) -> DataFrame:
    """Panel -> panel with scales and features at each row's own day."""
    stages = (_with_moves, _with_scales, _with_apy_history, _with_tvl_history, _with_calendar, _with_market, _with_cross_section)
    rows = reduce(lambda frame, stage: stage(frame), stages, panel)
    return rows.select(*panel.columns, *SCALE_COLUMNS, *LEVEL_COLUMNS, *(F.col(name).cast("float").alias(name) for name in FEATURES))


def add_labels(rows: DataFrame, horizon: int) -> DataFrame:
    """Adds `apy_next`, `tvl_next` (values of D + horizon) and `LABELS`, the clipped change in scales; null unless both days are observed."""
    ahead = rows.select(
        "*", *(_if_observed(name, F.lead(_if_observed(name, F.col(name)), horizon).over(_pool())).alias(f"{name}_next") for name in ("apy", "tvl"))
    )
    apy_change = (F.col("apy_next") - F.col("apy")) / F.col("apy_scale")
    tvl_change = (F.log1p("tvl_next") - F.log1p("tvl")) / F.col("tvl_scale")
    return ahead.select(
        "*", _clip(apy_change, LABEL_LIMIT).cast("float").alias("apy_label"), _clip(tvl_change, LABEL_LIMIT).cast("float").alias("tvl_label")
    )


def _with_moves(panel: DataFrame) -> DataFrame:
    """One-day moves where both days are observed: a carried value's zero move is no information."""
    rows = panel.withColumn("log_tvl", F.log1p("tvl"))
    moves = {"apy_move": ("apy", "apy_observed"), "tvl_move": ("log_tvl", "tvl_observed")}
    return rows.select(
        "*", *(F.when(F.col(seen) & _lag(seen, 1), F.col(value) - _lag(value, 1)).alias(name) for name, (value, seen) in moves.items())
    )


def _with_scales(rows: DataFrame) -> DataFrame:
    """Scale of a pool at D: mean absolute move of 30 days, never under a floor; a move is cut at four times the upper quartile of its 30 days."""
    frame = _frame(30)
    floors = {"apy": F.lit(APY_FLOOR) + F.abs("apy") * APY_RELATIVE_FLOOR, "tvl": F.lit(TVL_FLOOR)}
    arrays = rows.select("*", *(F.sort_array(F.collect_list(F.abs(f"{name}_move")).over(frame)).alias(f"{name}_sorted") for name in floors))
    capped = arrays.select(
        "*",
        *(F.least(F.abs(f"{name}_move"), _quantile(f"{name}_sorted", 0.75) * 4 + floor).alias(f"{name}_capped") for name, floor in floors.items()),
    )
    return capped.select(
        "*", *(F.greatest(floor, F.avg(f"{name}_capped").over(frame)).alias(f"{name}_scale") for name, floor in floors.items())
    ).drop("apy_sorted", "tvl_sorted", "tvl_capped")


def _with_apy_history(rows: DataFrame) -> DataFrame:
    week, month = _frame(7), _frame(30)
    rolled = rows.select(
        "*",
        _in_scales(F.col("apy_move")).alias("apy_move_today"),
        _median(F.sort_array(F.collect_list("apy").over(week))).alias("apy_median_7"),
        _median(F.sort_array(F.collect_list("apy").over(month))).alias("apy_median_30"),
        F.min("apy").over(month).alias("apy_lowest_30"),
        *(_in_scales(_lag("apy", lag) - F.col("apy")).alias(f"apy_lag_{lag}") for lag in LAGS),
        *(_in_scales(F.avg("apy").over(_frame(days)) - F.col("apy")).alias(f"apy_mean_gap_{days}") for days in (7, 30)),
        *(_in_scales(F.stddev_samp("apy").over(_frame(days))).alias(f"apy_std_{days}") for days in (7, 30)),
        _in_scales(F.avg("apy_capped").over(week)).alias("apy_abs_move_7"),
        F.avg(F.when(F.col("apy_move").isNotNull(), (F.abs("apy_move") < 1e-9).cast("double"))).over(month).alias("apy_still_share_30"),
    )
    return rolled.select(
        "*",
        F.asinh(F.col("apy") / 0.1).alias("apy_level"),
        F.log(F.col("apy_scale") / (F.abs("apy") + 0.1)).alias("apy_scale_relative"),
        _lag("apy_move_today", 1).alias("apy_move_yesterday"),
        (-F.col("apy_lag_7")).alias("apy_change_7"),
        *(_in_scales(F.col(f"apy_median_{days}") - F.col("apy")).alias(f"apy_median_gap_{days}") for days in (7, 30)),
        _spike(F.col("apy_move_today")).alias("apy_spike"),
        _spike(_lag("apy_move_today", 1)).alias("apy_spike_yesterday"),
    )


def _with_tvl_history(rows: DataFrame) -> DataFrame:
    level = F.col("log_tvl")
    move = _clip(F.col("tvl_move") / F.col("tvl_scale"), MOVE_LIMIT)
    rolled = rows.select(
        "*",
        level.alias("tvl_level"),
        move.alias("tvl_move_today"),
        _median(F.sort_array(F.collect_list("tvl").over(_frame(7)))).alias("tvl_median_7"),
        *(_in_tvl_scales(level - _lag("log_tvl", days)).alias(f"tvl_change_{days}") for days in (7, 30)),
        *(_in_tvl_scales(F.avg("log_tvl").over(_frame(days)) - level).alias(f"tvl_mean_gap_{days}") for days in (7, 30)),
        F.stddev_samp("log_tvl").over(_frame(30)).alias("tvl_std_30"),
    )
    return rolled.select("*", _lag("tvl_move_today", 1).alias("tvl_move_yesterday"))


def _with_calendar(rows: DataFrame) -> DataFrame:
    seen_on = F.last(F.when(F.col("apy_observed"), F.col("date")), ignorenulls=True).over(_frame(31))
    return rows.select(
        "*",
        F.dayofweek("date").alias("weekday"),
        F.count("*").over(_frame(31)).alias("age_days"),
        F.sum(F.col("apy_observed").cast("int")).over(_frame(30)).alias("observed_30"),
        F.datediff("date", seen_on).alias("days_since_observed"),
    )


def _with_market(rows: DataFrame) -> DataFrame:
    return rows.select(
        "*", *(F.log(F.col(series) / _lag(series, days)).alias(f"{series}_change_{days}") for series in ("eth", "btc", "gas") for days in (1, 7))
    )


def _with_cross_section(rows: DataFrame) -> DataFrame:
    """Mean, median, dispersion and share up of the day's moves over all pools and over the pool's group, and each pool's share of the day's TVL."""
    move = F.col("apy_move_today")
    sections = []
    for scope, window in (("all", _day()), ("group", _group())):
        sections += [
            F.avg(move).over(window).alias(f"{scope}_move_mean"),
            F.percentile(move, 0.5).over(window).alias(f"{scope}_move_median"),
            F.stddev_samp(move).over(window).alias(f"{scope}_move_dispersion"),
            F.avg((move > 0).cast("double")).over(window).alias(f"{scope}_up_share"),
            F.avg("tvl_move_today").over(window).alias(f"{scope}_tvl_move_mean"),
        ]
    total = F.sum("tvl").over(_day())
    return rows.select("*", *sections, F.when(total > 0, F.col("tvl") / total).alias("tvl_share"))


def _pool() -> WindowSpec:
    return Window.partitionBy("pool_id").orderBy("date")


def _day() -> WindowSpec:
    return Window.partitionBy("date").orderBy("pool_group", "pool_id").rowsBetween(Window.unboundedPreceding, Window.unboundedFollowing)


def _group() -> WindowSpec:
    return Window.partitionBy("date", "pool_group").orderBy("pool_id").rowsBetween(Window.unboundedPreceding, Window.unboundedFollowing)


def _frame(days: int) -> WindowSpec:
    """The last `days` calendar days of the pool, today's included: rows are days on the dense panel."""
    return _pool().rowsBetween(1 - days, 0)


def _lag(column: str, days: int) -> Column:
    return F.lag(column, days).over(_pool())


def _if_observed(target: str, value: Column) -> Column:
    return F.when(F.col(f"{target}_observed"), value)


def _clip(value: Column, limit: float) -> Column:
    return F.when(value.isNotNull(), F.greatest(F.lit(-limit), F.least(F.lit(limit), value)))


def _in_scales(apy_points: Column) -> Column:
    return _clip(apy_points / F.col("apy_scale"), MOVE_LIMIT)


def _in_tvl_scales(log_points: Column) -> Column:
    return _clip(log_points / F.col("tvl_scale"), MOVE_LIMIT)


def _spike(move: Column) -> Column:
    return (F.abs(move) > SPIKE_SCALES).cast("int")


def _quantile(sorted_array: str, share: float) -> Column:
    """Nearest-rank quantile (Hyndman and Fan 1996, type 1) of a sorted array; null when empty."""
    return F.get(F.col(sorted_array), F.ceil(F.size(sorted_array) * share).cast("int") - 1)


def _median(ordered: Column) -> Column:
    size = F.size(ordered)
    return (F.get(ordered, F.floor((size - 1) / 2).cast("int")) + F.get(ordered, F.floor(size / 2).cast("int"))) / 2
