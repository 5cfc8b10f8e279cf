"""Tests that the spike check's query equals the plain definition, on small random histories with
unusable rows, missing values, simultaneous rows, and old rows next to new ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import chain, groupby
from random import Random
from typing import Any

from sqlalchemy import Engine, text

from config_spark import Settings
from data_processing.commit.spikes import FLOORS, spike_preparation, spike_query
from data_processing.planning.plan import plan_metrics
from data_processing.planning.run_request import Request
from tests.support.commit_runs import DAY, NEWEST, NOW, TODAY, DailyRun, at
from tests.support.metrics_oracle import RawRow
from tests.support.metrics_plans import add_run

CASES = 120
MOST_ROWS = 14
APY = (5.0, 5.5, 60.0, 700.0, 0.0, None)
TVL = (1e5, 1.1e5, 2e6, 3e7, 0.0, 999.0, None)
UNUSABLE = ("bad", 2e12, -1.0)

Spike = tuple[str, datetime, str, float, float, float, bool]


def random_rows(random: Random, pool: str) -> list[RawRow]:
    """Return up to MOST_ROWS rows of NEWEST on a grid of half hours, so that some share a
    moment.
    """
    return [
        RawRow(
            0,
            pool,
            at(NEWEST, random.randrange(48) / 2),
            {
                "apy": random.choice(APY),
                "tvlUsd": random.choice(UNUSABLE if random.random() < 0.15 else TVL),
            },
        )
        for _ in range(random.randint(1, MOST_ROWS))
    ]


def is_usable(document: Mapping[str, Any]) -> bool:
    return document["tvlUsd"] not in UNUSABLE and any(
        document[name] is not None for name in ("apy", "tvlUsd")
    )


def defined_spikes(
    rows: Sequence[RawRow], new: set[datetime], within: timedelta, factor: float
) -> Iterator[Spike]:
    """Return snapshots far from the previous one whose next one is near it again.

    `rows` are one pool's, in the order of their ids. The value of a moment is that of its last
    usable row.
    """
    usable = sorted((row for row in rows if is_usable(row.document)), key=lambda row: row.timestamp)
    snapshots = [list(same)[-1] for _, same in groupby(usable, key=lambda row: row.timestamp)]
    for measure, name in (("apy", "apy"), ("tvl", "tvlUsd")):
        with_value = [row for row in snapshots if row.document[name] is not None]
        for three in zip(with_value, with_value[1:], with_value[2:], strict=False):
            before, spike, after = (row.document[name] for row in three)
            low, high, back = (max(abs(value), FLOORS[measure]) for value in (before, spike, after))
            if (
                three[2].timestamp - three[0].timestamp <= within
                and any(row.timestamp in new for row in three)
                and (high > factor * low or low > factor * high)
                and back <= factor * low
                and low <= factor * back
            ):
                days = [row.timestamp.astimezone(UTC).date() for row in three]
                yield (
                    three[1].pool_id,
                    three[1].timestamp,
                    measure,
                    before,
                    spike,
                    after,
                    days[2] > days[1],
                )


def test_query_equals_definition(database: Settings, engine: Engine) -> None:
    random = Random(17)
    daily_run = DailyRun(database, engine)
    pools = [f"case-{number:03d}" for number in range(CASES)]
    old = {pool: random_rows(random, pool) if random.random() < 0.5 else [] for pool in pools}
    new = {pool: random_rows(random, pool) for pool in pools}
    daily_run.store_history(pools)
    daily_run.insert_rows(list(chain.from_iterable(old[pool] for pool in pools)))
    add_run(engine, database, datetime.now(UTC), TODAY - DAY)
    daily_run.insert_rows(list(chain.from_iterable(new[pool] for pool in pools)))
    plan = plan_metrics(database, engine, Request(), table="yieldspark.a_plan", now=NOW)
    with engine.connect() as connection:
        for statement in spike_preparation(database, plan):
            connection.execute(text(statement))
        query, parameters = spike_query(database, plan)
        spikes = [tuple(row) for row in connection.execute(text(query), parameters)]
    window = timedelta(hours=database.spike_window_hours)
    expected: list[Spike] = []
    for pool in pools:
        new_moments = {row.timestamp for row in new[pool]}
        rows = old[pool] + new[pool]
        expected += defined_spikes(rows, new_moments, window, database.max_spike_factor)
    assert sorted(spikes) == sorted(expected)
    assert len(expected) > CASES / 2
