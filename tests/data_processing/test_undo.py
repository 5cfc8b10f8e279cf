"""`undo` restores what a metrics run replaced, and the next run continues from the run before."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine

from common.errors import CheckFailed, ConfigurationError, RunInProgress
from config_spark import Settings
from database.connections.engine import make_engine
from database.ledger.runs import open_run
from database.undo.undo import undo_run
from tests.support.killed_process import kill_at_each
from tests.support.metrics_histories import START, world
from tests.support.metrics_oracle import RawRow, World, differences_of_tables, metrics
from tests.support.metrics_store import execute, job_rows, put, put_rows, rows_of, run_world
from tests.support.owner_schema import put_as_owner
from tests.support.processes import CommandLineHere
from tests.support.undone_runs import contents, last_run_id, undo_in_process

DAYS = 60
NOW = START + timedelta(days=DAYS)


@pytest.fixture
def source(engine: Engine) -> World:
    generated = world(3, pools=10, days=DAYS)
    put(engine, generated)
    return generated


def next_day(engine: Engine, source: World, *, apy: float = 3.0) -> None:
    """A day later: new rows of all pools, a correction of an old day, and another gas value."""
    number = 1 + max(row.id for row in source.rows)
    pools = sorted({row.pool_id for row in source.rows})
    rows = [
        RawRow(number + place, pool, source.now + timedelta(hours=1), {"apy": apy, "tvlUsd": 5.0})
        for place, pool in enumerate(pools)
    ]
    # the last row of its day counts
    late = (source.now - timedelta(days=30)).replace(hour=23, minute=59)
    rows.append(RawRow(number + len(pools), pools[0], late, {"apy": 8.0, "tvlUsd": 7.0}))
    rows.append(RawRow(number + len(pools) + 1, pools[1], late, {"apy": "oops", "tvlUsd": 7.0}))
    put_rows(engine, rows)
    source.rows += rows
    day = (source.now - timedelta(days=20)).date()
    source.gas[day] = apy
    execute(
        engine,
        "INSERT INTO gas_fees_daily (date, actual_avg_gas_gwei) VALUES (:day, :gas) ON CONFLICT"
        " (date) DO UPDATE SET actual_avg_gas_gwei = :gas",
        day=day,
        gas=apy,
    )
    source.now += timedelta(days=1)


def undo(engine: Engine, run_id: str, **options: Any) -> dict[str, Any]:
    return undo_run(engine, run_id, by="tester@host", **options)


def test_undo_restores_every_table_and_the_next_run_equals_a_full_one(
    database: Settings, engine: Engine, source: World
) -> None:
    first = run_world(database, source)
    # the next run never continues from a run of some days
    run_world(database, source, start=NOW - timedelta(days=3), end=NOW)
    before = contents(engine)
    next_day(engine, source)
    wrong = run_world(database, source)
    assert min(wrong["rows"]["inserted"], wrong["rows"]["updated"]) > 0
    assert contents(engine) != before
    result = undo(engine, wrong["run_id"])
    assert (result["status"], result["runs"]) == ("undone", [wrong["run_id"]])
    assert result["continues_from"] == first["run_id"]
    assert contents(engine) == before
    again = run_world(database, source)
    assert again["mode"] == "incremental"
    assert again["rows"] == wrong["rows"]
    assert differences_of_tables(job_rows(engine), metrics(source)) == []


def test_undo_of_the_first_run_leaves_empty_tables(
    database: Settings, engine: Engine, source: World
) -> None:
    empty = contents(engine)
    first = run_world(database, source)
    result = undo(engine, first["run_id"])
    assert result["continues_from"] is None
    assert contents(engine) == empty
    assert run_world(database, source)["mode"] == "full_refresh"
    assert differences_of_tables(job_rows(engine), metrics(source)) == []


def test_later_runs_are_undone_with_cascade_only(
    database: Settings, engine: Engine, source: World
) -> None:
    run_world(database, source)
    before = contents(engine)
    next_day(engine, source)
    first = run_world(database, source)
    idle = run_world(database, source)
    assert idle["status"] == "nothing_to_do"
    after_first = contents(engine)
    next_day(engine, source, apy=4.0)
    second = run_world(database, source)
    with pytest.raises(ConfigurationError, match=rf"{second['run_id']} ran later.*--cascade"):
        undo(engine, first["run_id"])
    planned = undo(engine, first["run_id"], cascade=True, dry_run=True)
    ids = [second["run_id"], idle["run_id"], first["run_id"]]
    assert (planned["status"], planned["runs"]) == ("planned", ids)
    assert planned["rows"]["public.pool_daily_metrics"] == sum(
        run["rows"]["inserted"] + run["rows"]["updated"] for run in (first, second)
    )
    undo(engine, second["run_id"])
    assert contents(engine) == after_first
    # a run without work does not hold up the undo of the run before it
    assert undo(engine, first["run_id"])["runs"] == ids[1:]
    assert contents(engine) == before
    with pytest.raises(ConfigurationError, match="is undone already"):
        undo(engine, first["run_id"])
    run_world(database, source)
    assert differences_of_tables(job_rows(engine), metrics(source)) == []


def test_cascade_restores_the_rows_before_all_runs(
    database: Settings, engine: Engine, source: World
) -> None:
    run_world(database, source)
    before, ids = contents(engine), []
    for apy in (3.0, 4.0, 5.0):
        next_day(engine, source, apy=apy)
        ids.append(run_world(database, source)["run_id"])
    undo(engine, ids[0], cascade=True)
    assert contents(engine) == before
    statuses = rows_of(
        engine, "SELECT status, undone_by FROM yieldspark.run_ledger WHERE mode <> 'full_refresh'"
    )
    assert {tuple(row.values()) for row in statuses} == {("undone", "tester@host")}


def test_removed_and_provisional_days_come_back(
    owner_tables: Settings, restricted: Settings, source_of_owner: World
) -> None:
    """Rows that a run deleted come back with the owner's id and all other columns, also if the role
    has the documented rights only.
    """
    engine = make_engine(owner_tables)
    settings = restricted.model_copy(
        update={"include_today": True, "check_severities": "many_days_removed=off"}
    )
    run_world(settings, source_of_owner)
    execute(engine, "ALTER TABLE pool_daily_metrics ADD COLUMN note text DEFAULT 'none'")
    execute(engine, "UPDATE pool_daily_metrics SET forecasted_apy = 1 WHERE id % 5 = 0")
    before = contents(engine)
    execute(engine, "DELETE FROM raw_defillama_pool_history WHERE timestamp < '2024-03-20'")
    source_of_owner.now += timedelta(days=1)
    wrong = run_world(settings, source_of_owner, retire_missing=True)
    assert wrong["rows"]["removed"] > 50
    assert contents(engine) != before
    undo(make_engine(settings), wrong["run_id"])
    assert contents(engine) == before


@pytest.fixture
def source_of_owner(owner_tables: Settings) -> World:
    generated = world(4, pools=6, days=DAYS)
    put_as_owner(make_engine(owner_tables), generated)
    return generated


def test_values_of_other_jobs_since_the_run_stay(
    database: Settings, engine: Engine, source: World
) -> None:
    run_world(database, source)
    before = job_rows(engine)
    next_day(engine, source)
    wrong = run_world(database, source)
    new = sorted(job_rows(engine).keys() - before.keys())
    filtered, forecast = new[0], new[1]
    for (pool, day), values in (
        (filtered, "is_filtered_out = true, filter_reason = 'small'"),
        (forecast, "forecasted_apy = 5"),
    ):
        execute(
            engine,
            f"UPDATE pool_daily_metrics SET {values} WHERE pool_id = :pool AND date = :day",
            pool=pool,
            day=day,
        )
    undo(engine, wrong["run_id"])
    after = job_rows(engine)
    assert sorted(after.keys() - before.keys()) == [filtered, forecast]
    assert (after[filtered]["actual_apy"], after[filtered]["filter_reason"]) == (None, "small")
    assert (after[forecast]["actual_apy"], after[forecast]["forecasted_apy"]) == (None, 5)


def test_decisions_on_quarantined_rows_stay(
    run_here: CommandLineHere, database: Settings, engine: Engine, source: World
) -> None:
    run_world(database, source)
    next_day(engine, source)
    wrong = run_world(database, source)
    row = rows_of(
        engine, f"SELECT id FROM yieldspark.quarantine WHERE run_id = '{wrong['run_id']}'"
    )
    run_here.json("quarantine", "drop", str(row[0]["id"]), "--note", "checked", "--yes")
    undo(engine, wrong["run_id"])
    left = rows_of(engine, "SELECT note FROM yieldspark.quarantine WHERE resolution = 'dropped'")
    assert left == [{"note": "checked"}]


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ("UPDATE yieldspark.run_ledger SET status = 'failed'", "is failed and has changed nothing"),
        ("UPDATE yieldspark.run_ledger SET job = 'ingest'", "only runs of calculate_metrics and"),
        ("UPDATE yieldspark.run_ledger SET is_undoable = false", "older than UNDO_DAYS"),
        ("DELETE FROM yieldspark.run_ledger", "there is no run"),
    ],
)
def test_refuses_a_run_that_cannot_be_undone(engine: Engine, statement: str, reason: str) -> None:
    with open_run(engine, job="calculate_metrics", mode="incremental") as run:
        run.undo_days = 7
    execute(engine, statement)
    with pytest.raises(ConfigurationError, match=reason):
        undo(engine, run.run_id)


def test_waits_for_no_run_that_is_alive(engine: Engine) -> None:
    with open_run(engine, job="forecast_pools", mode="daily"):
        with pytest.raises(RunInProgress, match="forecast_pools is already running"):
            undo(engine, "calculate_metrics_x")


def test_kept_rows_are_deleted_after_the_days_of_the_setting(
    database: Settings, engine: Engine, source: World
) -> None:
    first = run_world(database, source)
    next_day(engine, source)
    without = database.model_copy(update={"undo_days": 0})
    second = run_world(without, source)
    kept = "SELECT DISTINCT run_id FROM yieldspark.run_changes"
    assert rows_of(engine, kept) == [{"run_id": first["run_id"]}]
    with pytest.raises(ConfigurationError, match=f"{second['run_id']} can't be undone.*UNDO_DAYS"):
        undo(engine, first["run_id"], cascade=True)
    execute(engine, "UPDATE yieldspark.run_ledger SET finished_at = now() - interval '8 days'")
    next_day(engine, source)
    third = run_world(database, source)
    assert rows_of(engine, kept) == [{"run_id": third["run_id"]}]
    orphans = (
        "SELECT count(*) AS rows FROM yieldspark.replaced_rows WHERE change_id NOT IN (SELECT id"
        " FROM yieldspark.run_changes)"
    )
    assert rows_of(engine, orphans) == [{"rows": 0}]


def test_trigger_that_changes_restored_values_prevents_the_undo(
    database: Settings, engine: Engine, source: World
) -> None:
    run_world(database, source)
    next_day(engine, source)
    wrong = run_world(database, source)
    execute(
        engine,
        "CREATE FUNCTION rounded() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN"
        " NEW.rolling_apy_7d = 0; RETURN NEW; END$$",
    )
    execute(
        engine,
        "CREATE TRIGGER rounded BEFORE UPDATE ON pool_daily_metrics FOR EACH ROW EXECUTE FUNCTION"
        " rounded()",
    )
    before = contents(engine)
    with pytest.raises(CheckFailed, match="a trigger of the table"):
        undo(engine, wrong["run_id"])
    assert contents(engine) == before


@pytest.mark.usefixtures("processes")
def test_killed_undo_leaves_the_tables_as_they_were(
    database: Settings, engine: Engine, source: World
) -> None:
    """Killed before every eighth statement, COMMIT among them; the last attempt finishes."""
    run_world(database, source)
    before = contents(engine)
    next_day(engine, source)
    wrong = run_world(database, source)
    after, kills = contents(engine), 0
    for _ in kill_at_each(undo_in_process, database, wrong["run_id"], step=8):
        kills += 1
        assert contents(engine) == after
        assert last_run_id(engine) == wrong["run_id"]
    assert kills > 3
    assert contents(engine) == before


def test_commands_list_show_compare_and_undo_runs(
    run_here: CommandLineHere, database: Settings, engine: Engine, source: World
) -> None:
    run_world(database, source)
    next_day(engine, source)
    run_id = run_world(database, source)["run_id"]
    assert run_here.json("runs", "list", "--limit", "1")["runs"][0]["run_id"] == run_id
    assert run_id in run_here("runs", "list").stdout
    shown = run_here.json("runs", "show", run_id)
    assert shown["plan"]["mode"] == "incremental"
    assert "public.pool_daily_metrics" in {change["table"] for change in shown["changes"]}
    assert "compute_and_load" in run_here("runs", "show", run_id).stdout
    difference = run_here.json("runs", "diff", run_id)
    assert "rolling_apy_30d" in run_here("runs", "diff", run_id).stdout
    planned = run_here.json("undo", run_id, "--dry-run")
    assert planned["status"] == "planned"
    assert run_here.json("undo", run_id)["status"] == "undone"
    assert run_here.json("runs", "show", run_id)["status"] == "undone"
    assert difference["tables"]
    refused = run_here("runs", "diff", run_id)
    assert (refused.returncode, "are not kept" in refused.stderr) == (2, True)
    assert run_here("runs", "show", "nothing").returncode == 2


def test_diff_has_the_changes_of_a_run_whatever_ran_later(
    run_here: CommandLineHere, database: Settings, engine: Engine, source: World
) -> None:
    run_world(database, source)
    before = job_rows(engine)
    next_day(engine, source)
    run_id = run_world(database, source)["run_id"]
    after = job_rows(engine)
    first = run_here.json("runs", "diff", run_id)
    next_day(engine, source, apy=9.0)
    run_world(database, source)
    assert run_here.json("runs", "diff", run_id) == first
    table = next(t for t in first["tables"] if t["table"] == "public.pool_daily_metrics")
    changed = [
        (abs(after[key]["gas_price_gwei"] - row["gas_price_gwei"]), key)
        for key, row in before.items()
        if row["gas_price_gwei"] not in (None, after[key]["gas_price_gwei"])
    ]
    columns = {row["column"]: row for row in table["columns"]}
    assert columns["gas_price_gwei"]["changed"] >= len(changed) > 0
    largest = [row for row in table["largest"] if row["column"] == "gas_price_gwei"]
    sizes = [abs(float(row["after"]) - float(row["before"])) for row in largest]
    assert sizes == [float(size) for size, _ in sorted(changed, reverse=True)[:3]]
