"""A world and its database kept in step: each change is done to both, transactions that stay open
included.

In: an engine of a migrated database and changes of `metrics_changes`. Out: the `World` as a run
sees it, rows of open transactions left out, and what an incremental run may read at most, counted
here on plain Python data.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time, timedelta
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
    """A connection whose transaction began as the `begun`-th, and the rows in it that nobody else
    sees.
    """

    connection: Connection
    begun: int
    rows: list[RawRow] = field(default_factory=list)


@dataclass(frozen=True)
class Known:
    """What the last good run left behind: rows of transactions begun before `begun` and of days
    before `end` are in the table, made under the limits and from the prices and gas of that run, or
    of one of the partial runs since.
    """

    begun: int
    end: date | None
    limits: frozenset[tuple[int, float]]
    markets: tuple[World, ...]


class ChangingWorld:
    """Starts empty, in an emptied database; `now` is noon of the 70th day."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        empty(engine)
        self.world = World(now=datetime.combine(START + timedelta(days=70), time(12), UTC))
        self.begun: dict[int, int] = {}
        self.known: Known | None = None
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
        for one in changes:
            _DOING[type(one)](self, one)

    def close(self, *, commit: bool) -> None:
        """End every open transaction."""
        for slot in list(self._open):
            self._end(slot, commit=commit)

    def seen_now(self, before: date | None = None) -> Known:
        """What a run of all pools that plans now leaves behind, should it end well. It looks at
        days before `before` only, if given.
        """
        begun = min((one.begun for one in self._open.values()), default=self._transactions + 1)
        return Known(
            begun,
            run_end(self.days_before(before)),
            frozenset([self._limits_now()]),
            (self._market(),),
        )

    def learn(self, seen: Known) -> None:
        """A run of all pools ended well: each day's last accepted row is stored by now."""
        self.known = seen
        self.lost_rows = False
        rejected = quarantine(self.world)
        for row in sorted(self.world.rows, key=lambda row: (row.timestamp, row.id)):
            day = row.timestamp.date()
            if (
                row.id not in rejected
                and self.begun[row.id] < seen.begun
                and seen.end
                and day < seen.end
            ):
                self.world.stored[row.pool_id, day] = row
        self.world.reached = max(filter(None, (self.world.reached, seen.end)), default=None)

    def retire(self) -> None:
        """What was stored of rows that are gone is wanted to go, and no end is kept."""
        there = {content(row) for row in self.world.rows}
        stored = self.world.stored.items()
        self.world.stored = {day: row for day, row in stored if content(row) in there}
        self.world.reached = None
        self.pruned.clear()
        self.never_pruned = list(self.world.rows)
        self.departed.clear()

    def pruned_pools(self) -> set[str]:
        """Pools of which rows are gone, and whose metrics must be as if they were not."""
        return {pool for pool, _ in self.pruned} - self.departed

    def unpruned(self) -> World:
        """Their part of a world in which no row was ever taken away and none came again."""
        pools = self.pruned_pools()
        rows = [row for row in self.never_pruned if row.pool_id in pools]
        return replace(self.world, rows=rows, stored={})

    def partly_made(self, table: Table) -> None:
        """A backfill, or a run of some pools, ended well: what it wrote follows the limits, prices
        and gas of now, the rest those of before. `table` is what it left.
        """
        newest = max((day + DAY for _, day in table), default=None)
        self.world.reached = max(filter(None, (self.world.reached, newest)), default=None)
        if self.known:
            self.known = replace(
                self.known,
                limits=self.known.limits | {self._limits_now()},
                markets=(*self.known.markets, self._market()),
            )

    def days_before(self, end: date | None) -> World:
        """The world without the rows of `end` and later days."""
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
        """How many raw rows an incremental run may read: of each pool those since its first
        affected day less the look-back, and the new rows of no possible day. None: it must be a
        full run. `table` is what the last run left.
        """
        known, end = self.known, run_end(self.world)
        if (
            known is None
            or known.end is None
            or end is None
            or known.limits != {self._limits_now()}
        ):
            return None
        # where rows of the last run's overlap are gone, it cannot tell which of the others are new
        fresh = [
            row for row in self.world.rows if self.lost_rows or self.begun[row.id] >= known.begun
        ]
        first = self._first_affected(table, known, {row.id for row in fresh})
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

    def _first_affected(self, table: Table, known: Known, fresh: set[int]) -> dict[str, date]:
        last_day: dict[str, date] = {}
        last_seen: dict[str, date] = {}
        for (pool, day), stored in table.items():
            last_day[pool] = max(day, last_day.get(pool, day))
            if 0 in (stored["apy_staleness_days"], stored["tvl_staleness_days"]):
                last_seen[pool] = max(day, last_seen.get(pool, day))
        found = [
            (pool, day + DAY) for pool, day in last_day.items() if pool not in self.world.inactive
        ]
        found += [
            (pool, day + DAY)
            for pool, day in last_seen.items()
            if pool in self.world.inactive and day < last_day[pool]
        ]
        for row in self.world.rows:
            day = row.timestamp.date()
            if (
                row.timestamp.year >= 2018
                and day < self.today
                and (row.id in fresh or (known.end and day >= known.end))
            ):
                found += [(row.pool_id, day), (row.pool_id, last_day.get(row.pool_id, day) + DAY)]
        changed = self._first_market_change(known, max(last_day.values(), default=self.today))
        found += [(pool, changed) for pool, day in last_day.items() if changed and day >= changed]
        found += [
            (pool, known.end) for pool, day in last_day.items() if known.end and day >= known.end
        ]
        return {pool: min(day for of, day in found if of == pool) for pool in dict(found)}

    def _first_market_change(self, known: Known, last: date) -> date | None:
        days = [
            START - timedelta(days=200) + number * DAY
            for number in range((last - START).days + 201)
        ]
        now, *before = (market(world, days) for world in (self.world, *known.markets))
        return next((day for day in days if any(old[day] != now[day] for old in before)), None)

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
        # a pruned day takes the last row that is left
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

    def _snapshots(self, one: change.Snapshots) -> None:
        days = [self._day(one.back) + number * one.every * DAY for number in range(one.count)]
        days = [day for day in days if day <= self.today + FARTHEST_AHEAD]
        order = reversed(days) if one.backwards else days
        self._insert(
            one.pool,
            [
                (_moment(day, one.second), lambda number: change.document(one.content, number))
                for day in order
            ],
            one.slot,
        )

    def _again(self, one: change.Again) -> None:
        rows = [row for row in self.world.rows if row.pool_id == pool_name(one.pool)]
        if rows:
            row = rows[one.which % len(rows)]
            content = one.content
            document = (
                (lambda _: row.document)
                if content is None
                else (lambda number: change.document(content, number))
            )
            self._insert(
                one.pool, [(row.timestamp + timedelta(seconds=one.seconds), document)], one.slot
            )

    def _impossible(self, one: change.Impossible) -> None:
        moment = (
            self.world.now + timedelta(days=400)
            if one.future
            else datetime(2017, 12, 31, 23, 59, 59, tzinfo=UTC)
        )
        self._insert(one.pool, [(moment, lambda number: change.document("both", number))], None)

    def _activity(self, one: change.Activity) -> None:
        pool = pool_name(one.pool)
        execute(self.engine, "DELETE FROM pools WHERE pool_id = :pool", pool=pool)
        if one.active != "absent":
            execute(
                self.engine,
                "INSERT INTO pools (pool_id, is_active) VALUES (:pool, :active)",
                pool=pool,
                active=one.active,
            )
        self.world.inactive.discard(pool)
        if one.active is False:
            self.world.inactive.add(pool)

    def _price(self, one: change.Price) -> None:
        at = _moment(self._day(one.back), 86_340)
        self.world.prices[at, one.symbol] = one.close
        put_price(self.engine, at, one.symbol, one.close)

    def _gas(self, one: change.Gas) -> None:
        day = self._day(one.back)
        self.world.gas[day] = one.gwei
        upsert = (
            "VALUES (:day, :gwei) ON CONFLICT (date) DO UPDATE SET actual_avg_gas_gwei ="
            " excluded.actual_avg_gas_gwei"
        )
        execute(
            self.engine,
            f"INSERT INTO gas_fees_daily (date, actual_avg_gas_gwei) {upsert}",
            day=day,
            gwei=one.gwei,
        )

    def _days(self, one: change.Days) -> None:
        self.world.now += timedelta(days=one.count)

    def _transaction(self, one: change.Transaction) -> None:
        if one.word == "begin":
            self._begin(one.slot)
        else:
            self._end(one.slot, commit=one.word == "commit")

    def _deleted(self, one: change.Deleted) -> None:
        first = self._day(one.back)
        gone = {
            row.id
            for row in self.world.rows
            if row.pool_id == pool_name(one.pool)
            and 0 <= (row.timestamp.date() - first).days < one.count
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
        self, one: change.Pruned | change.Fetched
    ) -> dict[tuple[str, date], list[RawRow]]:
        """The rows of the days that a change takes, but for days with rows that no run of all pools
        has seen, or of which parts of the table follow other limits.
        """
        known = self.known
        if known is None or known.end is None or known.limits != {self._limits_now()}:
            return {}
        days: dict[tuple[str, date], list[RawRow]] = {}
        for row in self.world.rows:
            back = (self.today - row.timestamp.date()).days
            chosen = one.pool is None or row.pool_id == pool_name(one.pool)
            if chosen and back >= one.back and back % one.every == 0:
                days.setdefault((row.pool_id, row.timestamp.date()), []).append(row)
        return {
            key: rows
            for key, rows in days.items()
            if key[1] < known.end and all(self.begun[row.id] < known.begun for row in rows)
        }

    def _pruned(self, one: change.Pruned) -> None:
        days = self._known_days(one)
        self.pruned |= days
        self._delete({row.id for rows in days.values() for row in rows})

    def _fetched(self, one: change.Fetched) -> None:
        days = self._known_days(one)
        if one.with_pruned and days:
            days |= self.pruned
            self.pruned = {}
        rows = sorted((row for found in days.values() for row in found), key=lambda row: row.id)
        self._delete({row.id for row in rows})
        # of rows of one moment that with the higher id counts, and rows fetched again get higher
        # ones than those of open transactions
        fetched = {row.pool_id for row in rows}
        self.departed |= {row.pool_id for one in self._open.values() for row in one.rows} & fetched
        again = [replace(row, id=self._ids + number) for number, row in enumerate(rows, start=1)]
        self._ids += len(again)
        self._transactions += 1
        with self.engine.begin() as connection:
            insert_rows(connection, again)
        self.world.rows += again
        self.begun |= {row.id: self._transactions for row in again}

    def _limits(self, one: change.Limits) -> None:
        # pruned rows that are not the stored one of their day may pass by now
        gone = [row for rows in self.pruned.values() for row in rows]
        rejected = quarantine(replace(self.world, rows=gone))
        self.departed |= {pool for (pool, _), rows in self.pruned.items() if len(rows) > 1}
        self.departed |= {row.pool_id for row in gone if row.id in rejected}
        self.world.max_fill_days, self.world.max_apy_percent = (
            one.max_fill_days,
            one.max_apy_percent,
        )


_DOING: dict[type, Callable[[ChangingWorld, Any], None]] = {
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
    """Empty every table but the migrations' own."""
    names = [row["name"] for row in rows_of(engine, f"{TABLES} AND tablename <> 'alembic_version'")]
    execute(engine, f"TRUNCATE {', '.join(names)} RESTART IDENTITY CASCADE")


def fingerprints(engine: Engine) -> dict[str, str]:
    """What every table holds, the ledger left out: a failed run writes there and nowhere else."""
    names = [
        row["name"] for row in rows_of(engine, f"{TABLES} AND tablename <> 'run_ledger' ORDER BY 1")
    ]
    each = [
        f"SELECT '{name}' AS name, md5(coalesce(string_agg(t::text, '|' ORDER BY t::text), '')) AS"
        f" digest FROM {name} AS t"
        for name in names
    ]
    return {row["name"]: row["digest"] for row in rows_of(engine, " UNION ALL ".join(each))}
