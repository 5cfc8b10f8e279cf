"""Applies changes of `metrics_changes` to a database and to a `World` in Python at the same time,
open transactions included.

The `World` is the state that a run sees, without rows of open transactions. It also counts on plain
Python data how many rows an incremental run may read at most.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time, timedelta
from itertools import chain
from typing import Any, TypeAlias

from sqlalchemy import Connection, Engine, text

from tests.support import metrics_changes as change
from tests.support.metrics_histories import START
from tests.support.metrics_oracle import DAY, RawRow, World, content, market, quarantine, run_end
from tests.support.metrics_store import execute, insert_rows, put_price, rows_of

FARTHEST_AHEAD = timedelta(days=12)

Table: TypeAlias = Mapping[tuple[str, date], Mapping[str, Any]]


@dataclass
class OpenTransaction:
    """A connection with an open transaction, the `begun`-th of all, and its rows, which no other
    session sees.
    """

    connection: Connection
    begun: int
    rows: list[RawRow] = field(default_factory=list)


@dataclass(frozen=True)
class RunState:
    """State after the last successful run.

    Rows of transactions before number `begun` and of days before `end` are in the metrics table.
    They were computed with the limits and markets of that run, or of one of the partial runs since.
    """

    begun: int
    end: date | None
    limits: frozenset[tuple[int, float]]
    markets: tuple[World, ...]


class ChangingWorld:
    """A database and the `World` that a run sees in it.

    It starts empty; `now` is noon of the 70th day.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        empty(engine)
        self.world = World(now=datetime.combine(START + timedelta(days=70), time(12), UTC))
        self.begun: dict[int, int] = {}
        self.last_run: RunState | None = None
        self.never_pruned: list[RawRow] = []
        self.pruned: dict[tuple[str, date], list[RawRow]] = {}
        self.departed: set[str] = set()
        self.lost_rows = False
        self._open: dict[int, OpenTransaction] = {}
        self._transactions = 0
        self._ids = 0

    @property
    def today(self) -> date:
        return self.world.now.date()

    @property
    def has_open_transactions(self) -> bool:
        return bool(self._open)

    def apply(self, changes: Iterable[change.Change]) -> None:
        for event in changes:
            _HANDLERS[type(event)](self, event)

    def close(self, *, commit: bool) -> None:
        """End every open transaction."""
        for slot in list(self._open):
            self._end(slot, commit=commit)

    def state_after_run_now(self, before: date | None = None) -> RunState:
        """Return the state after a successful run of all pools that plans now.

        The run sees only days before `before`, if given.
        """
        begun = min(
            (transaction.begun for transaction in self._open.values()),
            default=self._transactions + 1,
        )
        return RunState(
            begun,
            run_end(self.days_before(before)),
            frozenset([self._limits_now()]),
            (self._market(),),
        )

    def learn(self, state: RunState) -> None:
        """Record a successful run of all pools: the last accepted row of each day is stored."""
        self.last_run = state
        self.lost_rows = False
        rejected = quarantine(self.world)
        for row in sorted(self.world.rows, key=lambda row: (row.timestamp, row.id)):
            day = row.timestamp.date()
            if (
                row.id not in rejected
                and self.begun[row.id] < state.begun
                and state.end
                and day < state.end
            ):
                self.world.stored[row.pool_id, day] = row
        self.world.reached = max(filter(None, (self.world.reached, state.end)), default=None)

    def retire(self) -> None:
        """Remove stored rows whose raw rows are gone, and forget the end of earlier runs."""
        there = {content(row) for row in self.world.rows}
        stored = self.world.stored.items()
        self.world.stored = {day: row for day, row in stored if content(row) in there}
        self.world.reached = None
        self.pruned.clear()
        self.never_pruned = list(self.world.rows)
        self.departed.clear()

    def pruned_pools(self) -> set[str]:
        """Return pools with deleted raw rows whose metrics must stay as they were."""
        return {pool for pool, _ in self.pruned} - self.departed

    def unpruned(self) -> World:
        """Return these pools' part of a world without deleted or re-inserted rows."""
        pools = self.pruned_pools()
        rows = [row for row in self.never_pruned if row.pool_id in pools]
        return replace(self.world, rows=rows, stored={})

    def partly_computed(self, table: Table) -> None:
        """Record a successful backfill or run of some pools.

        Its days follow the present limits, prices and gas, the other days those of earlier runs.
        `table` is the metrics table after it.
        """
        newest = max((day + DAY for _, day in table), default=None)
        self.world.reached = max(filter(None, (self.world.reached, newest)), default=None)
        if self.last_run:
            self.last_run = replace(
                self.last_run,
                limits=self.last_run.limits | {self._limits_now()},
                markets=(*self.last_run.markets, self._market()),
            )

    def days_before(self, end: date | None) -> World:
        """Return the world without rows of `end` and later days."""
        return (
            self.world
            if end is None
            else replace(
                self.world,
                rows=[row for row in self.world.rows if row.timestamp.date() < end],
                stored={key: row for key, row in self.world.stored.items() if key[1] < end},
            )
        )

    def most_rows(self, table: Table) -> int | None:
        """Return the number of raw rows that an incremental run may read at most.

        It may read each pool's rows since its first affected day less the look-back, and new rows
        of impossible days. None: the run must be a full one. `table` is the metrics table after the
        last run.
        """
        last_run, end = self.last_run, run_end(self.world)
        if (
            last_run is None
            or last_run.end is None
            or end is None
            or last_run.limits != {self._limits_now()}
        ):
            return None
        # if rows of the last run's overlap are gone, the run cannot tell which other rows are new
        fresh = [
            row for row in self.world.rows if self.lost_rows or self.begun[row.id] >= last_run.begun
        ]
        first = self._first_affected(table, last_run, {row.id for row in fresh})
        look_back = timedelta(days=30 + self.world.max_fill_days)
        possible = [
            row
            for row in self.world.rows
            if row.timestamp.year >= 2018 and row.timestamp.date() < end
        ]
        return sum(
            row.pool_id in first and row.timestamp.date() >= first[row.pool_id] - look_back
            for row in possible
        ) + sum(row.timestamp.year < 2018 or row.timestamp > self.world.now for row in fresh)

    def _first_affected(self, table: Table, last_run: RunState, fresh: set[int]) -> dict[str, date]:
        last_day: dict[str, date] = {}
        last_observed: dict[str, date] = {}
        for (pool, day), stored in table.items():
            last_day[pool] = max(day, last_day.get(pool, day))
            if 0 in (stored["apy_staleness_days"], stored["tvl_staleness_days"]):
                last_observed[pool] = max(day, last_observed.get(pool, day))
        affected = [
            (pool, day + DAY) for pool, day in last_day.items() if pool not in self.world.inactive
        ]
        affected += [
            (pool, day + DAY)
            for pool, day in last_observed.items()
            if pool in self.world.inactive and day < last_day[pool]
        ]
        for row in self.world.rows:
            day = row.timestamp.date()
            if (
                row.timestamp.year >= 2018
                and day < self.today
                and (row.id in fresh or (last_run.end and day >= last_run.end))
            ):
                affected += [
                    (row.pool_id, day),
                    (row.pool_id, last_day.get(row.pool_id, day) + DAY),
                ]
        first_change = self._first_market_change(
            last_run, max(last_day.values(), default=self.today)
        )
        affected += [
            (pool, first_change)
            for pool, day in last_day.items()
            if first_change and day >= first_change
        ]
        affected += [
            (pool, last_run.end)
            for pool, day in last_day.items()
            if last_run.end and day >= last_run.end
        ]
        first: dict[str, date] = {}
        for pool, day in affected:
            first[pool] = min(day, first.get(pool, day))
        return first

    def _first_market_change(self, last_run: RunState, last: date) -> date | None:
        days = [
            START - timedelta(days=200) + number * DAY
            for number in range((last - START).days + 201)
        ]
        now, *before = (market(world, days) for world in (self.world, *last_run.markets))
        for day in days:
            if any(old[day] != now[day] for old in before):
                return day
        return None

    def _limits_now(self) -> tuple[int, float]:
        return self.world.max_fill_days, self.world.max_apy_percent

    def _market(self) -> World:
        return replace(
            self.world, rows=[], prices=dict(self.world.prices), gas=dict(self.world.gas)
        )

    def _day(self, back: int) -> date:
        return self.today - timedelta(days=back)

    def _insert(
        self, pool: int, moments: Iterable[tuple[datetime, Callable[[int], Any]]], slot: int | None
    ) -> None:
        rows = []
        for moment, document in moments:
            self._ids += 1
            rows.append(RawRow(self._ids, pool_name(pool), moment, document(self._ids)))
        if slot is not None:
            self._begin(slot)
            insert_rows(self._open[slot].connection, rows)
            self._open[slot].rows += rows
        else:
            self._transactions += 1
            with self.engine.begin() as connection:
                insert_rows(connection, rows)
            self._committed(rows, self._transactions)

    def _committed(self, rows: Iterable[RawRow], begun: int) -> None:
        rows = list(rows)
        self.world.rows += rows
        self.begun |= {row.id: begun for row in rows}
        self.never_pruned += rows
        # a pruned day uses the last of its remaining rows
        self.departed |= {
            row.pool_id for row in rows if (row.pool_id, row.timestamp.date()) in self.pruned
        }

    def _begin(self, slot: int) -> None:
        if slot not in self._open:
            connection = self.engine.connect()
            connection.execute(text("SELECT now()"))
            self._transactions += 1
            self._open[slot] = OpenTransaction(connection, self._transactions)

    def _end(self, slot: int, *, commit: bool) -> None:
        if slot in self._open:
            ended = self._open.pop(slot)
            with ended.connection:
                if commit:
                    ended.connection.commit()
                    self._committed(ended.rows, ended.begun)

    def _snapshots(self, event: change.Snapshots) -> None:
        days = [self._day(event.back) + number * event.every * DAY for number in range(event.count)]
        days = [day for day in days if day <= self.today + FARTHEST_AHEAD]
        order = reversed(days) if event.backwards else days
        self._insert(
            event.pool,
            [
                (_moment(day, event.second), lambda number: change.document(event.content, number))
                for day in order
            ],
            event.slot,
        )

    def _again(self, event: change.Again) -> None:
        rows = [row for row in self.world.rows if row.pool_id == pool_name(event.pool)]
        if rows:
            row = rows[event.which % len(rows)]
            content = event.content
            document = (
                (lambda _: row.document)
                if content is None
                else (lambda number: change.document(content, number))
            )
            self._insert(
                event.pool,
                [(row.timestamp + timedelta(seconds=event.seconds), document)],
                event.slot,
            )

    def _impossible(self, event: change.Impossible) -> None:
        moment = (
            self.world.now + timedelta(days=400)
            if event.future
            else datetime(2017, 12, 31, 23, 59, 59, tzinfo=UTC)
        )
        self._insert(event.pool, [(moment, lambda number: change.document("both", number))], None)

    def _activity(self, event: change.Activity) -> None:
        pool = pool_name(event.pool)
        execute(self.engine, "DELETE FROM pools WHERE pool_id = :pool", pool=pool)
        if event.active != "absent":
            execute(
                self.engine,
                "INSERT INTO pools (pool_id, is_active) VALUES (:pool, :active)",
                pool=pool,
                active=event.active,
            )
        self.world.inactive.discard(pool)
        if event.active is False:
            self.world.inactive.add(pool)

    def _price(self, event: change.Price) -> None:
        at = _moment(self._day(event.back), 86_340)
        self.world.prices[at, event.symbol] = event.close
        put_price(self.engine, at, event.symbol, event.close)

    def _gas(self, event: change.Gas) -> None:
        day = self._day(event.back)
        self.world.gas[day] = event.gwei
        upsert = (
            "VALUES (:day, :gwei) ON CONFLICT (date) DO UPDATE SET actual_avg_gas_gwei ="
            " excluded.actual_avg_gas_gwei"
        )
        execute(
            self.engine,
            f"INSERT INTO gas_fees_daily (date, actual_avg_gas_gwei) {upsert}",
            day=day,
            gwei=event.gwei,
        )

    def _days(self, event: change.Days) -> None:
        self.world.now += timedelta(days=event.count)

    def _transaction(self, event: change.Transaction) -> None:
        if event.word == "begin":
            self._begin(event.slot)
        else:
            self._end(event.slot, commit=event.word == "commit")

    def _deleted(self, event: change.Deleted) -> None:
        first = self._day(event.back)
        gone = {
            row.id
            for row in self.world.rows
            if row.pool_id == pool_name(event.pool)
            and 0 <= (row.timestamp.date() - first).days < event.count
        }
        self._delete(gone)

    def _delete(self, gone: set[int]) -> None:
        self.lost_rows |= bool(gone)
        self.world.rows = [row for row in self.world.rows if row.id not in gone]
        execute(
            self.engine,
            "DELETE FROM raw_defillama_pool_history WHERE id = ANY(:gone)",
            gone=list(gone),
        )

    def _known_days(
        self, event: change.Pruned | change.Fetched
    ) -> dict[tuple[str, date], list[RawRow]]:
        """Return the rows of the days that a change may delete.

        Days are left out if they have rows that no run of all pools has read. There are none if
        parts of the table follow other limits.
        """
        last_run = self.last_run
        if last_run is None or last_run.end is None or last_run.limits != {self._limits_now()}:
            return {}
        days: dict[tuple[str, date], list[RawRow]] = {}
        for row in self.world.rows:
            back = (self.today - row.timestamp.date()).days
            chosen = event.pool is None or row.pool_id == pool_name(event.pool)
            if chosen and back >= event.back and back % event.every == 0:
                days.setdefault((row.pool_id, row.timestamp.date()), []).append(row)
        return {
            key: rows
            for key, rows in days.items()
            if key[1] < last_run.end and self._all_begun_before(rows, last_run.begun)
        }

    def _all_begun_before(self, rows: Iterable[RawRow], begun: int) -> bool:
        return all(self.begun[row.id] < begun for row in rows)

    def _pruned(self, event: change.Pruned) -> None:
        days = self._known_days(event)
        self.pruned |= days
        self._delete({row.id for row in chain.from_iterable(days.values())})

    def _fetched(self, event: change.Fetched) -> None:
        days = self._known_days(event)
        if event.with_pruned and days:
            days |= self.pruned
            self.pruned = {}
        rows = sorted(chain.from_iterable(days.values()), key=lambda row: row.id)
        self._delete({row.id for row in rows})
        # the row with the higher id counts among rows of one moment, and re-inserted rows get
        # higher ids than the rows of open transactions
        fetched = {row.pool_id for row in rows}
        open_rows = chain.from_iterable(transaction.rows for transaction in self._open.values())
        self.departed |= {row.pool_id for row in open_rows} & fetched
        again = [replace(row, id=self._ids + number) for number, row in enumerate(rows, start=1)]
        self._ids += len(again)
        self._transactions += 1
        with self.engine.begin() as connection:
            insert_rows(connection, again)
        self.world.rows += again
        self.begun |= {row.id: self._transactions for row in again}

    def _limits(self, event: change.Limits) -> None:
        # a pruned row that is not the stored row of its day may be valid under the new limits
        gone = list(chain.from_iterable(self.pruned.values()))
        rejected = quarantine(replace(self.world, rows=gone))
        self.departed |= {pool for (pool, _), rows in self.pruned.items() if len(rows) > 1}
        self.departed |= {row.pool_id for row in gone if row.id in rejected}
        self.world.max_fill_days, self.world.max_apy_percent = (
            event.max_fill_days,
            event.max_apy_percent,
        )


_HANDLERS: dict[type, Callable[[ChangingWorld, Any], None]] = {
    change.Snapshots: ChangingWorld._snapshots,
    change.Again: ChangingWorld._again,
    change.Impossible: ChangingWorld._impossible,
    change.Activity: ChangingWorld._activity,
    change.Price: ChangingWorld._price,
    change.Gas: ChangingWorld._gas,
    change.Days: ChangingWorld._days,
    change.Transaction: ChangingWorld._transaction,
    change.Deleted: ChangingWorld._deleted,
    change.Pruned: ChangingWorld._pruned,
    change.Fetched: ChangingWorld._fetched,
    change.Limits: ChangingWorld._limits,
}


def pool_name(number: int) -> str:
    return f"pool-{number:02d}"


def _moment(day: date, second: int) -> datetime:
    return datetime.combine(day, time(), UTC) + timedelta(seconds=second)


TABLES = (
    "SELECT format('%I.%I', schemaname, tablename) AS name FROM pg_tables WHERE schemaname IN"
    " ('public', 'yieldspark')"
)


def empty(engine: Engine) -> None:
    """Empty every table except `alembic_version`."""
    names = [row["name"] for row in rows_of(engine, f"{TABLES} AND tablename <> 'alembic_version'")]
    execute(engine, f"TRUNCATE {', '.join(names)} RESTART IDENTITY CASCADE")


def fingerprints(engine: Engine) -> dict[str, str]:
    """Return a digest of each table, except the ledger, the only table that a failed run may
    change.
    """
    names = [
        row["name"] for row in rows_of(engine, f"{TABLES} AND tablename <> 'run_ledger' ORDER BY 1")
    ]
    each = [
        f"SELECT '{name}' AS name, md5(coalesce(string_agg(t::text, '|' ORDER BY t::text), '')) AS"
        f" digest FROM {name} AS t"
        for name in names
    ]
    return {row["name"]: row["digest"] for row in rows_of(engine, " UNION ALL ".join(each))}
