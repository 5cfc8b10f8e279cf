"""Problems of the tables are named before a job starts, with the statement that solves each."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from sqlalchemy import Engine

from cli.doctor.check import DoctorResult
from cli.doctor.checks import run_checks
from common.errors import DatabaseRefused, SchemaMismatch
from config_spark import Settings
from data_processing.calculate_pool_metrics_spark import run_metrics
from data_processing.quarantine.queries import Selection
from data_processing.quarantine.replay import Replay, replay_rows
from database.connections.engine import make_engine
from database.schema.check import TableProblems, find_table_problems, verify_tables
from database.schema.migrate import migrate, require_current
from database.schema.table_use import FORECAST_USE, JOBS_USE, LOAD_USE, METRICS_USE, TableUse
from tests.support.metrics_store import execute, rows_of
from tests.support.owner_schema import documented_grants, role_with
from tests.support.processes import CommandLineHere

HISTORY = "raw_defillama_pool_history"


@pytest.fixture
def admin(owner_tables: Settings) -> Engine:
    return make_engine(owner_tables)


def examined(settings: Settings, uses: Sequence[TableUse] = JOBS_USE) -> TableProblems:
    with make_engine(settings).connect() as connection:
        return find_table_problems(connection, uses)


def tables_of_doctor(settings: Settings) -> DoctorResult:
    return next(finding for finding in run_checks(settings) if finding.name == "tables")


def test_owner_tables_pass_with_the_documented_rights(restricted: Settings) -> None:
    problems = examined(restricted)
    assert (problems.missing, problems.problems, problems.grants) == ([], [], [])
    assert problems.indexes == [
        f"CREATE INDEX CONCURRENTLY ON public.{HISTORY} (pool_id, timestamp);",
        f"CREATE INDEX CONCURRENTLY ON public.{HISTORY} (insertion_timestamp);",
    ]


def test_ignores_columns_that_no_job_uses(owner_database: Settings) -> None:
    engine = make_engine(owner_database)
    execute(engine, "DROP VIEW pool_metrics_extended")
    execute(
        engine,
        "ALTER TABLE pools DROP COLUMN poolmeta, DROP COLUMN underlying_tokens, ALTER COLUMN tvl"
        " TYPE text",
    )
    execute(engine, "ALTER TABLE gas_fees_daily DROP COLUMN forecasted_avg_gas_gwei")
    execute(
        engine,
        "ALTER TABLE pool_daily_metrics ALTER COLUMN filter_reason TYPE varchar(20), ALTER COLUMN"
        " pool_group TYPE jsonb USING to_jsonb(pool_group)",
    )
    assert examined(owner_database).problems == []
    assert examined(owner_database, LOAD_USE["pools"]).problems == [
        "column pools.tvl is text, expected number",
        "column pools.poolmeta is missing",
    ]


def test_reported_statements_create_the_indexes(
    owner_database: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    engine = make_engine(owner_database).execution_options(isolation_level="AUTOCOMMIT")
    with engine.connect() as connection, caplog.at_level(logging.WARNING):
        verify_tables(connection, METRICS_USE)
        assert f"CREATE INDEX CONCURRENTLY ON public.{HISTORY}" in caplog.text
        for statement in examined(owner_database).indexes:
            connection.exec_driver_sql(statement)
    assert examined(owner_database).indexes == []
    execute(engine, f"DROP INDEX {HISTORY}_pool_id_timestamp_idx")
    execute(engine, f"CREATE INDEX ON {HISTORY} (pool_id, timestamp) WHERE id > 5")
    execute(engine, f"CREATE INDEX ON {HISTORY} (timestamp, pool_id)")
    assert len(examined(owner_database).indexes) == 1


def test_reported_index_works_for_partitioned_history(
    owner_database: Settings,
) -> None:
    engine = make_engine(owner_database)
    execute(engine, f"ALTER TABLE {HISTORY} RENAME TO part")
    execute(engine, f"CREATE TABLE {HISTORY} (LIKE part) PARTITION BY HASH (pool_id)")
    execute(
        engine,
        f"ALTER TABLE {HISTORY} ATTACH PARTITION part FOR VALUES WITH (MODULUS 1, REMAINDER 0)",
    )
    statements = examined(owner_database).indexes
    assert len(statements) == 2
    for statement in statements:
        execute(engine, statement)
    assert examined(owner_database).indexes == []


REVOKED = [
    f"SELECT ON {HISTORY}",
    "SELECT ON pools",
    "SELECT ON raw_coinmarketcap_ohlcv",
    "SELECT ON gas_fees_daily",
    "INSERT ON pool_daily_metrics",
    "UPDATE ON pool_daily_metrics",
    "DELETE ON pool_daily_metrics",
    "SELECT ON pool_daily_metrics",
    "USAGE ON SEQUENCE pool_daily_metrics_id_seq",
    "USAGE ON SCHEMA public",
]


@pytest.mark.parametrize("right", REVOKED)
def test_names_missing_right_with_its_grant(
    right: str, restricted: Settings, admin: Engine
) -> None:
    execute(admin, f"REVOKE {right} FROM {restricted.db_user}, PUBLIC")
    with pytest.raises(DatabaseRefused) as caught:
        run_metrics(restricted)
    message = str(caught.value)
    assert f"role {restricted.db_user} lacks" in message
    assert "is missing" not in message
    problems = examined(restricted)
    assert len(problems.grants) == 1
    assert problems.grants[0] in message
    assert right.split()[0] in problems.grants[0]
    execute(admin, problems.grants[0])
    assert examined(restricted).grants == []
    assert run_metrics(restricted)["status"] == "nothing_to_do"


def test_rights_on_tables_of_another_role(owner_database: Settings, admin: Engine) -> None:
    """Each printed statement grants a right, from none to a complete run."""
    execute(admin, f"REVOKE TEMPORARY ON DATABASE {owner_database.db_name} FROM PUBLIC")
    with role_with(owner_database, "SELECT") as settings:
        problems = examined(settings)
        assert any("ON ALL TABLES IN SCHEMA yieldspark" in grant for grant in problems.grants)
        assert tables_of_doctor(settings).result == "fail"
        for statement in problems.grants:
            execute(admin, statement)
        assert examined(settings).grants == []
        assert not migrate(make_engine(settings))
        assert run_metrics(settings)["status"] == "nothing_to_do"


def test_accepts_rights_on_all_columns(restricted: Settings, admin: Engine) -> None:
    execute(admin, f"REVOKE SELECT ON pools FROM {restricted.db_user}")
    execute(admin, f"GRANT SELECT (pool_id, is_active) ON pools TO {restricted.db_user}")
    assert examined(restricted, METRICS_USE).grants == []
    assert examined(restricted, FORECAST_USE).grants == [
        f"GRANT SELECT ON public.pools TO {restricted.db_user};"
    ]


def test_reports_how_to_create_the_schema(owner_tables: Settings, admin: Engine) -> None:
    with role_with(owner_tables, documented_grants()) as settings:
        execute(admin, "DROP SCHEMA yieldspark")
        with pytest.raises(DatabaseRefused) as caught:
            migrate(make_engine(settings))
        statement = f"CREATE SCHEMA yieldspark AUTHORIZATION {settings.db_user};"
        assert statement in str(caught.value)
        execute(admin, statement)
        assert migrate(make_engine(settings))


HIDDEN = [
    ("pool_daily_metrics", "CREATE POLICY own ON {table} USING (pool_id = 'mine')"),
    (HISTORY, "CREATE POLICY own ON {table} FOR SELECT USING (pool_id = 'mine')"),
    ("pools", "CREATE POLICY own ON {table} TO pg_monitor USING (true)"),
    ("gas_fees_daily", "CREATE POLICY own ON {table} USING (true)"),
]


@pytest.mark.parametrize("number", range(len(HIDDEN)))
def test_rejects_row_level_security_with_the_statements_that_help(
    number: int, restricted: Settings, admin: Engine
) -> None:
    """Each of the two statements is used for half of the tables."""
    table, policy = HIDDEN[number]
    execute(admin, f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
    execute(admin, policy.format(table=table))
    with pytest.raises(SchemaMismatch, match=f"row-level security of {table} applies") as refused:
        run_metrics(restricted)
    statements = re.findall("ALTER [^;]+;", str(refused.value))
    assert len(statements) == 2
    execute(admin, statements[number % 2])
    assert run_metrics(restricted)["status"] == "nothing_to_do"


Wrong = tuple[list[str], str]
UNWRITABLE: dict[str, Wrong] = {
    "generated": (
        [
            "DROP VIEW pool_metrics_extended",
            "ALTER TABLE pool_daily_metrics DROP COLUMN apy_delta_today_yesterday",
            "ALTER TABLE pool_daily_metrics ADD COLUMN apy_delta_today_yesterday numeric(20,4)"
            " GENERATED ALWAYS AS (actual_apy - rolling_apy_7d) STORED",
        ],
        "pool_daily_metrics.apy_delta_today_yesterday is generated",
    ),
    "view": (
        [
            "ALTER TABLE pool_daily_metrics RENAME TO all_metrics",
            "CREATE VIEW pool_daily_metrics AS SELECT * FROM all_metrics",
        ],
        "pool_daily_metrics is a view, and YieldSpark writes to it",
    ),
    "rule": (
        [
            "CREATE RULE keep AS ON UPDATE TO pool_daily_metrics WHERE old.actual_apy > 5 DO"
            " INSTEAD NOTHING",
        ],
        "pool_daily_metrics has a rule that replaces writes",
    ),
    "required": (
        ["ALTER TABLE pool_daily_metrics ADD COLUMN made_by text NOT NULL"],
        "pool_daily_metrics.made_by is NOT NULL without a default",
    ),
}


@pytest.mark.parametrize("kind", UNWRITABLE)
def test_rejects_tables_that_cannot_be_written_before_the_run(
    kind: str, owner_database: Settings
) -> None:
    statements, message = UNWRITABLE[kind]
    engine = make_engine(owner_database)
    for statement in statements:
        execute(engine, statement)
    with pytest.raises(SchemaMismatch) as caught:
        run_metrics(owner_database)
    assert message in str(caught.value)
    assert message in tables_of_doctor(owner_database).found


def test_accepts_a_view_for_a_read_only_table(owner_tables: Settings) -> None:
    engine = make_engine(owner_tables)
    execute(engine, f"ALTER TABLE {HISTORY} RENAME TO all_history")
    execute(engine, f"CREATE VIEW {HISTORY} AS SELECT * FROM all_history")
    migrate(engine)
    assert run_metrics(owner_tables)["status"] == "nothing_to_do"
    assert examined(owner_tables).indexes == []


Commands = Callable[[Settings], CommandLineHere]


@pytest.fixture
def commands(tmp_path: Path) -> Commands:
    return lambda settings: CommandLineHere(settings, tmp_path)


def test_doctor_migrate_and_dry_runs_show_the_statements(
    restricted: Settings, admin: Engine, commands: Commands
) -> None:
    command = commands(restricted)
    assert "CREATE INDEX CONCURRENTLY" in command("calculate_metrics", "--dry-run").stderr
    assert tables_of_doctor(restricted).result == "warn"
    payload = command.json("db", "migrate")
    assert payload == {"changed": False, "indexes": examined(restricted).indexes}
    execute(admin, f"REVOKE SELECT ON {HISTORY}, pools FROM {restricted.db_user}")
    grants = [
        f"GRANT SELECT ON public.{table} TO {restricted.db_user};" for table in ("pools", HISTORY)
    ]
    assert command.json("db", "migrate", code=1)["grants"] == grants
    assert grants[0] in command("db", "migrate").stdout
    for job in ("calculate_metrics", "forecast_pools"):
        assert grants[0] in command.json(job, "--dry-run", code=1)["error"]
    finding = tables_of_doctor(restricted)
    assert (finding.result, all(grant in finding.fix for grant in grants)) == ("fail", True)


def test_doctor_lists_tables_that_a_migration_creates(owner_tables: Settings) -> None:
    execute(make_engine(owner_tables), "DROP TABLE gas_fees_daily")
    finding = tables_of_doctor(owner_tables)
    assert (finding.result, finding.found) == ("warn", "missing: gas_fees_daily")
    assert "db migrate" in finding.fix


def grants_in(refused: DatabaseRefused) -> list[str]:
    """Return the GRANT statements of an error."""
    return re.findall(r"GRANT [^;]+;", str(refused))


@pytest.mark.parametrize("command", [require_current, migrate])
@pytest.mark.parametrize("granted", ["SELECT 1", "GRANT USAGE ON SCHEMA yieldspark TO yieldspark"])
def test_reports_grants_for_the_own_schema(
    command: Callable[[Engine], object], granted: str, owner_database: Settings, admin: Engine
) -> None:
    with role_with(owner_database, granted) as settings:
        engine = make_engine(settings)
        with pytest.raises(DatabaseRefused, match="lacks USAGE, CREATE on schema yieldspark") as no:
            command(engine)
        for statement in grants_in(no.value):
            execute(admin, statement)
        command(engine)


def test_replay_checks_its_rights_first(restricted: Settings, admin: Engine) -> None:
    replay = Replay(Selection(), "me")
    engine = make_engine(restricted)
    for dry_run in (True, False):
        with pytest.raises(DatabaseRefused, match=f"lacks INSERT on public.{HISTORY}|USAGE") as no:
            replay_rows(restricted, engine, replay, dry_run=dry_run)
    assert rows_of(admin, "SELECT job FROM yieldspark.run_ledger") == []
    for statement in grants_in(no.value):
        execute(admin, statement)
    assert replay_rows(restricted, engine, replay)["status"] == "succeeded"
