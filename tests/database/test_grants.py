"""`db grant`: each of the three roles can do its work, and nothing else."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr
from sqlalchemy import Engine
from sqlalchemy.exc import ProgrammingError

from common.errors import ConfigurationError, DatabaseRefused, SchemaMismatch
from config_spark import Settings
from database.connections.engine import make_engine
from database.schema.grants import RoleKind, grant_rights
from database.schema.migrate import migrate
from database.undo.undo import undo_run
from reporting.figures.forecasts import status
from reporting.validation.validate import validate
from tests.support.dashboard_pages import show_page
from tests.support.forecast_panels import SHORT
from tests.support.metrics_histories import world
from tests.support.metrics_oracle import differences_of_tables, metrics
from tests.support.metrics_store import execute, job_rows, run_world
from tests.support.owner_schema import put_as_owner
from tests.support.processes import CommandLineHere
from tests.support.undone_runs import last_run_id

NewRole = Callable[[RoleKind], Settings]


@pytest.fixture
def admin(owner_tables: Settings) -> Engine:
    """The superuser, in a database where PUBLIC may not create temporary tables either."""
    engine = make_engine(owner_tables)
    execute(engine, f"REVOKE TEMPORARY ON DATABASE {owner_tables.db_name} FROM PUBLIC")
    return engine


@pytest.fixture
def new_role(owner_tables: Settings, admin: Engine) -> Iterator[NewRole]:
    """Creates a role with a login and no right, and grants it those of a kind."""
    names: list[str] = []

    def create(kind: RoleKind) -> Settings:
        name, password = f"{kind}_{secrets.token_hex(4)}", secrets.token_hex(8)
        execute(admin, f"CREATE ROLE {name} LOGIN PASSWORD '{password}'")
        names.append(name)
        assert grant_rights(admin, name, kind)["status"] == "granted"
        assert grant_rights(admin, name, kind)["status"] == "nothing_to_do"
        return owner_tables.model_copy(update={"db_user": name, "db_password": SecretStr(password)})

    yield create
    for name in reversed(names):
        execute(admin, f"DROP OWNED BY {name} CASCADE")
        execute(admin, f"DROP ROLE {name}")


def refused(settings: Settings, *statements: str) -> None:
    engine = make_engine(settings)
    for statement in statements:
        with pytest.raises(ProgrammingError, match=r"permission denied|must be owner"):
            execute(engine, statement)


def test_each_role_does_its_work_and_nothing_else(new_role: NewRole, admin: Engine) -> None:
    owner = new_role("owner")
    assert migrate(make_engine(owner)) is True
    refused(
        owner,
        "INSERT INTO pools (pool_id) VALUES ('p')",
        "SELECT count(*) FROM raw_defillama_pool_history",
        "DROP TABLE pool_daily_metrics",
        "CREATE ROLE another",
    )

    source = world(2, pools=6, days=45)
    put_as_owner(admin, source)
    job = new_role("job")
    first = run_world(job, source)
    corrected = "UPDATE raw_defillama_pool_history SET insertion_timestamp = now() WHERE id < 20"
    execute(admin, corrected)
    source.now += timedelta(days=1)
    second = run_world(job, source)
    assert (first["status"], second["mode"]) == ("succeeded", "incremental")
    assert undo_run(make_engine(job), second["run_id"], by="tester@host")["status"] == "undone"
    run_world(job, source, full_refresh=True)
    assert differences_of_tables(job_rows(admin), metrics(source)) == []
    assert validate(job, make_engine(job))["job"] == "validate"
    refused(
        job,
        "UPDATE raw_defillama_pool_history SET pool_id = 'p'",
        "DELETE FROM pools",
        "INSERT INTO gas_fees_daily (date) VALUES ('2025-01-01')",
        "CREATE TABLE public.own (id integer)",
        "DROP TABLE yieldspark.run_ledger",
        "ALTER TABLE pool_daily_metrics ADD COLUMN own integer",
    )

    reader = new_role("reader")
    assert status(make_engine(reader))["jobs"]["calculate_metrics"]["status"] == "succeeded"
    refused(
        reader,
        "DELETE FROM pool_daily_metrics",
        "UPDATE yieldspark.run_ledger SET status = 'succeeded'",
        "INSERT INTO yieldspark.forecasts (pool_id) VALUES ('p')",
        "CREATE TABLE yieldspark.own (id integer)",
        "CREATE TEMPORARY TABLE own (id integer)",
    )


def test_command_prints_the_statements_that_it_executes(
    run_here: CommandLineHere, database: Settings, engine: Engine
) -> None:
    role = f"reader_{secrets.token_hex(4)}"
    execute(engine, f"CREATE ROLE {role}")
    try:
        planned = run_here.json("db", "grant", "reader", role, "--dry-run")
        assert planned["status"] == "planned"
        shown = run_here("db", "grant", "reader", role).stdout
        assert all(statement in shown for statement in planned["statements"])
        assert run_here.json("db", "grant", "reader", role)["status"] == "nothing_to_do"
    finally:
        execute(engine, f"DROP OWNED BY {role}")
        execute(engine, f"DROP ROLE {role}")


def test_refuses_what_it_cannot_grant(new_role: NewRole, admin: Engine) -> None:
    with pytest.raises(ConfigurationError, match="there is no role nobody_there: create it first"):
        grant_rights(admin, "nobody_there", "job")
    with pytest.raises(SchemaMismatch, match="the schema yieldspark is missing"):
        new_role("job")
    owner = new_role("owner")
    migrate(make_engine(owner))
    another = f"another_{secrets.token_hex(4)}"
    execute(admin, f"CREATE ROLE {another}")
    try:
        with pytest.raises(DatabaseRefused, match="is no member of another_"):
            grant_rights(make_engine(owner), another, "job")
        # the owner of the schema may not grant rights on tables of another role
        with pytest.raises(DatabaseRefused):
            grant_rights(make_engine(owner), another, "reader")
        with pytest.raises(DatabaseRefused, match="belongs to another role"):
            grant_rights(admin, another, "owner")
    finally:
        execute(admin, f"DROP ROLE {another}")


def _commands_of(settings: Settings, folder: Path) -> CommandLineHere:
    """Return commands of a role, in a folder without settings."""
    folder.mkdir()
    return CommandLineHere(settings, folder)


def _fails_for_rights(commands: CommandLineHere, *arguments: str) -> None:
    finished = commands(*arguments, **SMALL_FORECAST)
    assert finished.returncode == 1, finished.stdout
    refusals = r"has no right|lacks rights|permission denied|GRANT [A-Z]+ ON|run: GRANT"
    assert re.search(refusals, finished.stderr), arguments
    assert "Traceback" not in finished.stderr


SMALL_FORECAST = {
    "EXECUTOR": "inprocess",
    "ENGINE": "lightgbm",
    "TRAIN_DAYS": "30",
    "VALIDATION_DAYS": "20",
    "MODEL_PARAMETERS_FILE": str(SHORT["model_parameters_file"]),
}


def test_commands_of_the_job_and_of_the_reader(
    new_role: NewRole, admin: Engine, tmp_path: Path
) -> None:
    """As logins of their own: every command of their work, and none of another's.

    Over 10 s: forecasts and a backtest fit models.
    """
    migrate(make_engine(new_role("owner")))
    source = world(2, pools=6, days=70)
    put_as_owner(admin, source)
    job = _commands_of(new_role("job"), tmp_path / "job")
    as_of = max(row.timestamp for row in source.rows).date().isoformat()
    for arguments in (
        ("calculate_metrics",),
        ("forecast_pools",),
        ("backtest", "--days", "5", "--refit", "5"),
        ("evaluate",),
        ("validate", "--as-of", as_of),
        ("quarantine", "list"),
        ("runs", "list"),
        ("status",),
        ("report",),
    ):
        finished = job(*arguments, **SMALL_FORECAST)
        assert finished.returncode in (0, arguments[0] == "validate"), finished.stderr
        assert "right" not in finished.stderr, finished.stderr
    forecast = last_run_id(admin, "forecast_pools")
    assert job("undo", forecast).returncode == 0
    _fails_for_rights(job, "load", str(_history_file(tmp_path)))

    settings = new_role("reader")
    reader = _commands_of(settings, tmp_path / "reader")
    for arguments in (
        *(("status",), ("runs", "list"), ("runs", "show", forecast), ("runs", "diff", forecast)),
        *(("report",), ("quarantine", "list"), ("undo", forecast, "--dry-run")),
    ):
        finished = reader(*arguments, **SMALL_FORECAST)
        assert "permission denied" not in finished.stderr, finished.stderr
        assert "no right" not in finished.stderr, finished.stderr
    for page in ("runs", "data"):
        assert not show_page(settings, page).error
    for arguments in (
        ("calculate_metrics", "--full-refresh"),
        ("load", str(_history_file(tmp_path))),
    ):
        _fails_for_rights(reader, *arguments)


def _history_file(folder: Path) -> Path:
    path = folder / "history.csv"
    path.write_text("pool_id,timestamp,apy,tvlUsd\nnew,2024-05-01T12:00:00Z,5,1000\n")
    return path
