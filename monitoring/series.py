"""The time series that runs write: one table.

docs/reference/monitoring.md and terraform/metric_descriptors.json are made from it, and the
emitters take names, kinds and labels from it. Labels are few and bounded: never an id of a run,
batch or pool.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

PREFIX = "custom.googleapis.com/yieldspark"
"""Types of user-defined metrics begin with custom.googleapis.com/
(https://cloud.google.com/monitoring/custom-metrics).
"""

HORIZON = "horizon_days"
"""Label of series of forecasts: days from the as-of day to the target day, each of HORIZONS."""

ValueType = Literal["DOUBLE", "INT64"]


@dataclass(frozen=True)
class Series:
    """A metric: one time series for each combination of its labels' values.

    Attributes:
        type: type of the metric in Cloud Monitoring.
        unit: unit of a value (UCUM); `1` is a number or a share of 0 to 1.
        labels: names of its labels.
        description: what a point is, for its descriptor and the documentation.
        value_type: type of a value.
        kind: GAUGE: each point is the state at the end of a run.
    """

    type: str
    unit: str
    labels: tuple[str, ...]
    description: str
    value_type: ValueType = "DOUBLE"
    kind: Literal["GAUGE"] = "GAUGE"

    @property
    def name(self) -> str:
        """The type without the prefix."""
        return self.type.removeprefix(f"{PREFIX}/").removeprefix("custom.googleapis.com/")


def _series(
    name: str,
    unit: str,
    labels: tuple[str, ...],
    description: str,
    value_type: ValueType = "DOUBLE",
) -> Series:
    return Series(f"{PREFIX}/{name}", unit, labels, description, value_type)


DATA_AGE = _series(
    "data_age_seconds",
    "s",
    ("job",),
    "Time from the end of the newest day with data to the end of the run. calculate_metrics: newest"
    " observed day of any pool; forecast_pools: as-of day.",
)
JOB_DURATION = _series(
    "job_duration_seconds",
    "s",
    ("job", "status"),
    "Duration of a run, by its status: succeeded, nothing_to_do, blocked or failed.",
)
OWNERS_JOB_DURATION = Series(
    "custom.googleapis.com/dataproc/job_duration",
    "s",
    ("job_name",),
    "The same duration, for dashboards of the earlier system.",
)
STAGE_SECONDS = _series("stage_seconds", "s", ("job", "stage"), "Duration of a stage of a run.")
ROWS = _series(
    "rows",
    "1",
    ("job", "kind"),
    "Rows of a run by kind: read, quarantined, inserted, updated, unchanged, removed.",
    "INT64",
)
QUARANTINE_SHARE = _series(
    "quarantine_share",
    "1",
    ("job",),
    "Share of the rows read that the run quarantined and no earlier run had. A run that reads or"
    " writes nothing has no point.",
)
FORECASTS_WRITTEN = _series(
    "forecasts_written",
    "1",
    ("engine", HORIZON),
    "Pools with a forecast from the as-of day.",
    "INT64",
)
PERSISTENCE_SHARE = _series(
    "persistence_share",
    "1",
    ("engine", "target", HORIZON),
    "Share of these forecasts that publish persistence in place of the model's value.",
)
MODEL_AGE = _series(
    "model_age_days",
    "d",
    ("engine", HORIZON),
    "Days from the as-of day of the run that fitted the version to the as-of day of its forecasts.",
)
MAE_RATIO = _series(
    "mae_ratio",
    "1",
    ("engine", "target", HORIZON),
    "Mean absolute error over 30 target days relative to persistence (under 1 is better), of pools"
    " with a TVL over 1 M USD and an APY under 100 %, or of all pools where there are none.",
)
INTERVAL_COVERAGE = _series(
    "interval_coverage",
    "1",
    ("engine", "target", HORIZON),
    "Share of actual values inside the published interval over the last 14 target days; no point"
    " with fewer than 7 such days.",
)
COST = _series(
    "cost_usd",
    "{USD}",
    ("job",),
    "Cost of the day's most expensive batch of the job, by reported usage and list prices; written"
    " by `workflows cost --day`.",
)
MONTH_COST = _series(
    "month_cost_usd",
    "{USD}",
    (),
    "Cost of all batches of the month so far; written by `workflows cost --day`.",
)

SERIES = (
    DATA_AGE,
    JOB_DURATION,
    OWNERS_JOB_DURATION,
    STAGE_SECONDS,
    ROWS,
    QUARANTINE_SHARE,
    FORECASTS_WRITTEN,
    PERSISTENCE_SHARE,
    MODEL_AGE,
    MAE_RATIO,
    INTERVAL_COVERAGE,
    COST,
    MONTH_COST,
)


@dataclass(frozen=True)
class Point:
    """One value of one time series.

    Attributes:
        series: the metric.
        labels: values of all of its labels, in their order.
        value: in the metric's unit.
    """

    series: Series
    labels: tuple[str, ...]
    value: float

    def __post_init__(self) -> None:
        if len(self.labels) != len(self.series.labels):
            raise ValueError(f"{self.series.type} has the labels {self.series.labels}")

    @property
    def label_values(self) -> dict[str, str]:
        """The labels by name."""
        return dict(zip(self.series.labels, self.labels, strict=True))

    def __str__(self) -> str:
        labels = ", ".join(self.labels)
        return f"{self.series.name}{f'({labels})' if labels else ''}={self.value:g}"
