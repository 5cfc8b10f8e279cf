"""Thirty good days of time series in the fake of Cloud Monitoring, by the product's emitter."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from config_spark import Settings
from emulator.services.fake_monitoring import FakeMonitoring
from monitoring.cloud_monitoring import CloudMonitoringEmitter
from monitoring.series import (
    COST,
    DATA_AGE,
    FORECASTS_WRITTEN,
    INTERVAL_COVERAGE,
    JOB_DURATION,
    MAE_RATIO,
    MODEL_AGE,
    MONTH_COST,
    OWNERS_JOB_DURATION,
    PERSISTENCE_SHARE,
    QUARANTINE_SHARE,
    ROWS,
    STAGE_SECONDS,
    Point,
)
from tests.support.monitoring_series import terraform_descriptors

FIRST = datetime(2026, 10, 1, tzinfo=UTC)
DAYS = 30
LAST = FIRST + timedelta(days=DAYS)
METRICS, FORECAST, ENGINE = "calculate_metrics", "forecast_pools", "lightgbm"
HOUR = 3600.0


@dataclass
class Days:
    """The fake, and the emitter on the clock of the days."""

    fake: FakeMonitoring
    emitter: CloudMonitoringEmitter
    clock: list[datetime]
    random: random.Random = field(default_factory=lambda: random.Random(20))

    def emit(self, points: Sequence[Point], at: datetime) -> None:
        """Write points at a moment."""
        self.clock[0] = at
        self.emitter.emit(points, at, 5.0)

    def good_day(self, day: int, without: Sequence[str] = ()) -> None:
        """Write the points of a day: both jobs after 02:20, the costs of the day before at 06:46.

        Args:
            day: number of the day, from 0.
            without: jobs that do not run.
        """
        start = FIRST + timedelta(days=day, hours=2, minutes=20 + self.random.uniform(0, 30))
        if METRICS not in without:
            self.emit(self._metrics(), start)
        if FORECAST not in without:
            self.emit(self._forecast(day), start + timedelta(minutes=self.random.uniform(5, 20)))
        costs_at = FIRST + timedelta(days=day, hours=6, minutes=46)
        self.emit(self._costs(day), costs_at)

    def _metrics(self) -> list[Point]:
        draw = self.random.uniform
        # a day without changes reads nothing
        status = "nothing_to_do" if draw(0, 1) < 0.1 else "succeeded"
        seconds = draw(60, 400)
        return [
            Point(DATA_AGE, (METRICS,), draw(2.2, 3) * HOUR),
            Point(JOB_DURATION, (METRICS, status), seconds),
            Point(OWNERS_JOB_DURATION, (METRICS,), seconds),
            Point(STAGE_SECONDS, (METRICS, "plan"), draw(1, 5)),
            Point(ROWS, (METRICS, "read"), self.random.randrange(10**6)),
            Point(QUARANTINE_SHARE, (METRICS,), draw(0, 0.02)),
        ]

    def _forecast(self, day: int) -> list[Point]:
        draw = self.random.uniform
        seconds = draw(100, 900)
        targets = ("apy", "tvl")
        return [
            Point(DATA_AGE, (FORECAST,), draw(2.4, 3.3) * HOUR),
            Point(JOB_DURATION, (FORECAST, "succeeded"), seconds),
            Point(OWNERS_JOB_DURATION, (FORECAST,), seconds),
            Point(FORECASTS_WRITTEN, (ENGINE, "1"), 480),
            Point(MODEL_AGE, (ENGINE, "1"), 1 + day % 7),
            Point(PERSISTENCE_SHARE, (ENGINE, "apy", "1"), draw(0.1, 0.6)),
            # nearly a random walk: the gate is often shut
            Point(PERSISTENCE_SHARE, (ENGINE, "tvl", "1"), draw(0.9, 1.0)),
            *(Point(MAE_RATIO, (ENGINE, target, "1"), draw(0.9, 1.0)) for target in targets),
            *(
                Point(INTERVAL_COVERAGE, (ENGINE, target, "1"), draw(0.76, 0.84))
                for target in targets
            ),
        ]

    def _costs(self, day: int) -> list[Point]:
        draw = self.random.uniform
        return [
            Point(COST, (METRICS,), draw(0.02, 0.1)),
            Point(COST, (FORECAST,), draw(0.02, 0.15)),
            Point(MONTH_COST, (), 0.1 * (day + 1)),
        ]


@contextmanager
def served_days(settings: Settings) -> Iterator[Days]:
    """Serve a fake on the clock of the days."""
    clock = [FIRST]
    fake = FakeMonitoring(terraform_descriptors(), now=lambda: clock[0])
    with fake.listening() as address:
        emitted = settings.model_copy(
            update={"project_id": "test-project", "monitoring_endpoint": address}
        )
        yield Days(fake, CloudMonitoringEmitter(emitted), clock)
