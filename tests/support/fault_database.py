"""Faults inside PostgreSQL, and comparable contents of tables.

`LOADERS` adds a trigger to the first staging table of a run; it numbers the sessions that load, and
the second one meets the fault once. A gate is an advisory lock that the test holds: sessions wait
there and can be seen waiting. Needs a superuser.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from sqlalchemy import Connection, Engine, text

from tests.support.fault_runs import until
from tests.support.metrics_store import execute, rows_of

GATE = 535_353
WAIT_AT_GATE = f"PERFORM pg_advisory_xact_lock_shared({GATE});"
DISK_IS_FULL = (
    "RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = 'disk_full';"
)
SLEEP_SECONDS = 8
SLEEP = f"PERFORM pg_sleep({SLEEP_SECONDS});"

LOADED_STAGING = r"yieldspark\.staging_.*(?<!_plan)$"

LOADERS = """
CREATE SCHEMA fault;
CREATE SEQUENCE fault.staging;
CREATE SEQUENCE fault.loader;
CREATE TABLE fault.loaded (rows bigint);
CREATE FUNCTION fault.meet() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF coalesce(current_setting('fault.number', true), '') = '' THEN
        PERFORM set_config('fault.number', nextval('fault.loader')::text, false);
        IF current_setting('fault.number') = '2' THEN {action} END IF;
    END IF;
    RETURN NULL;
END $$;
CREATE FUNCTION fault.count() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO fault.loaded SELECT count(*) FROM loaded;
    RETURN NULL;
END $$;
CREATE FUNCTION fault.on_create() RETURNS event_trigger LANGUAGE plpgsql AS $$
DECLARE made record;
BEGIN
    FOR made IN
        SELECT object_identity AS name
        FROM pg_event_trigger_ddl_commands()
        WHERE object_type = 'table'
    LOOP
        IF made.name ~ '{pattern}' AND nextval('fault.staging') = 1 THEN
            EXECUTE format('{prepare}', made.name);
        END IF;
    END LOOP;
END $$;
CREATE EVENT TRIGGER fault ON ddl_command_end
    WHEN TAG IN ('CREATE TABLE')
    EXECUTE FUNCTION fault.on_create();
"""
MEET_EACH_LOADER = (
    "CREATE TRIGGER fault BEFORE INSERT ON %s FOR EACH STATEMENT EXECUTE FUNCTION fault.meet()"
)
COUNT_ROWS = (
    "CREATE TRIGGER fault AFTER INSERT ON %s REFERENCING NEW TABLE AS loaded FOR EACH STATEMENT"
    " EXECUTE FUNCTION fault.count()"
)

MERGED_ROW = """
CREATE SCHEMA fault;
CREATE SEQUENCE fault.merged;
CREATE FUNCTION fault.meet() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF nextval('fault.merged') = {row} THEN {action} END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER fault AFTER INSERT OR UPDATE ON pool_daily_metrics
    FOR EACH ROW EXECUTE FUNCTION fault.meet();
"""

GATED_RAW_TABLE = f"""
CREATE SCHEMA fault;
CREATE FUNCTION fault.pass() RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    {WAIT_AT_GATE}
    RETURN true;
END $$;
ALTER TABLE raw_defillama_pool_history RENAME TO raw_behind_the_gate;
CREATE VIEW raw_defillama_pool_history AS
    SELECT * FROM raw_behind_the_gate WHERE fault.pass();
"""


def fault_second_loader(engine: Engine, action: str) -> None:
    """Run `action` (PL/pgSQL) at the first statement of the second session that loads staging."""
    _script(engine, LOADERS.format(action=action, pattern=LOADED_STAGING, prepare=MEET_EACH_LOADER))


def fault_first_loader(engine: Engine, action: str) -> None:
    """Do the same for the first session, for loads of one session."""
    _script(
        engine,
        LOADERS.replace("= '2'", "= '1'").format(
            action=action, pattern=LOADED_STAGING, prepare=MEET_EACH_LOADER
        ),
    )


def fault_every_loader(engine: Engine, action: str) -> None:
    """Do the same for the first and the second session."""
    _script(
        engine,
        LOADERS.replace("= '2'", "IN ('1', '2')").format(
            action=action, pattern=LOADED_STAGING, prepare=MEET_EACH_LOADER
        ),
    )


def move_staging_to(engine: Engine, tablespace: str) -> None:
    """Move the staging table to `tablespace` when a run creates it."""
    _script(
        engine,
        LOADERS.format(
            action="NULL;",
            pattern=LOADED_STAGING,
            prepare=f"ALTER TABLE %s SET TABLESPACE {tablespace}",
        ),
    )


def count_loaded_rows(engine: Engine) -> None:
    """Count the rows that are committed to the first staging table, for `loaded_rows`."""
    _script(engine, LOADERS.format(action="NULL;", pattern=LOADED_STAGING, prepare=COUNT_ROWS))


def loaded_rows(engine: Engine) -> int:
    return int(rows_of(engine, "SELECT sum(rows) AS n FROM fault.loaded")[0]["n"])


def gate_raw_reads(engine: Engine) -> None:
    """Make each read of a raw row pass the gate; a query for the columns does not."""
    _script(engine, GATED_RAW_TABLE)


def fault_merged_row(engine: Engine, action: str, row: int = 100) -> None:
    """Run `action` once at the `row`th row that is written to `pool_daily_metrics`."""
    _script(engine, MERGED_ROW.format(action=action, row=row))


def remove_faults(engine: Engine) -> None:
    """Restore the database for the next run."""
    execute(engine, "DROP EVENT TRIGGER IF EXISTS fault")
    if rows_of(engine, "SELECT 1 FROM pg_tables WHERE tablename = 'raw_behind_the_gate'"):
        execute(engine, "DROP VIEW raw_defillama_pool_history")
        execute(engine, "ALTER TABLE raw_behind_the_gate RENAME TO raw_defillama_pool_history")
    execute(engine, "DROP SCHEMA IF EXISTS fault CASCADE")


def loaders(engine: Engine) -> int:
    """Return the number of sessions that have loaded staging since the fault was added."""
    return int(
        rows_of(
            engine, "SELECT CASE WHEN is_called THEN last_value ELSE 0 END AS n FROM fault.loader"
        )[0]["n"]
    )


def _script(engine: Engine, script: str) -> None:
    with engine.begin() as connection:
        connection.connection.cursor().execute(script)


@contextmanager
def closed_gate(engine: Engine) -> Iterator[Connection]:
    """Close the gate until the block or its connection ends."""
    with engine.connect() as connection:
        connection.execute(text(f"SELECT pg_advisory_lock({GATE})"))
        connection.commit()
        yield connection


def wait_for_backend_at_gate(engine: Engine) -> int:
    """Wait for a backend at the gate and return its process id."""
    query = (
        "SELECT pid FROM pg_locks JOIN pg_database ON oid = database AND datname ="
        f" current_database() WHERE locktype = 'advisory' AND objid = {GATE} AND NOT granted"
    )
    return int(until(lambda: rows_of(engine, query), "a backend waits at the gate")[0]["pid"])


@contextmanager
def full_tablespace(engine: Engine) -> Iterator[str]:
    """Yield a tablespace on a small disk that overflows when a staging table is loaded. Skips if
    mounting is not allowed.
    """
    # outside pytest's folder, which each run of pytest closes to the server's account
    with TemporaryDirectory(prefix="yieldspark-disk-") as folder:
        Path(folder).chmod(0o711)
        disk, name = Path(folder) / "disk", "tiny"
        disk.mkdir()
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(disk)],
            capture_output=True,
            text=True,
            check=False,
        )
        if mounted.returncode != 0:
            pytest.skip(f"no disk of one's own: {mounted.stderr.strip()}")
        admin = engine.execution_options(isolation_level="AUTOCOMMIT")
        try:
            servers = Path(rows_of(admin, "SHOW data_directory")[0]["data_directory"]).stat()
            os.chown(disk, servers.st_uid, servers.st_gid)
            execute(admin, f"CREATE TABLESPACE {name} LOCATION '{disk}'")
            yield name
            execute(admin, f"DROP TABLESPACE {name}")
        finally:
            subprocess.run(["umount", "--lazy", str(disk)], check=True)


def backends(engine: Engine, doing: str) -> list[int]:
    """Return ids of this database's other backends for which the condition `doing` on
    pg_stat_activity holds.
    """
    query = (
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <>"
        f" pg_backend_pid() AND {doing}"
    )
    return [row["pid"] for row in rows_of(engine, query)]


def lock_holders(engine: Engine) -> list[int]:
    """Return the backend of the run's own connection, which has the job's advisory lock."""
    return backends(
        engine,
        "pid IN (SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted AND classid ="
        " (hashtext('yieldspark')::bigint & 4294967295)::oid)",
    )


def terminate(engine: Engine, pids: list[int]) -> None:
    """Terminate the backends."""
    assert pids, "no such backend"
    for pid in pids:
        execute(engine, "SELECT pg_terminate_backend(:pid, 10000)", pid=pid)


def staging_tables(engine: Engine) -> list[str]:
    return [
        row["tablename"]
        for row in rows_of(
            engine, "SELECT tablename FROM pg_tables WHERE tablename LIKE 'staging%' ORDER BY 1"
        )
    ]


def staged_rows(engine: Engine) -> int:
    """Return the number of committed rows in all staging tables except the plan's."""
    names = [name for name in staging_tables(engine) if not name.endswith("_plan")]
    return sum(
        rows_of(engine, f"SELECT count(*) AS n FROM yieldspark.{name}")[0]["n"] for name in names
    )


def ledger(engine: Engine) -> list[tuple[str, str | None]]:
    """Return status and error of every run, in order."""
    return [
        (row["status"], row["error"])
        for row in rows_of(
            engine, "SELECT status, error FROM yieldspark.run_ledger ORDER BY started_at"
        )
    ]


VOLATILE = """
SELECT table_schema || '.' || table_name AS name,
    array_agg(column_name::text) FILTER (
        WHERE column_name = 'run_id'
            OR is_identity = 'YES'
            OR column_default ~ 'now|timestamp'
    ) AS volatile
FROM information_schema.columns
JOIN information_schema.tables USING (table_schema, table_name)
WHERE table_type = 'BASE TABLE'
    AND table_schema IN ('public', 'yieldspark')
    AND table_name NOT IN ('run_ledger', 'alembic_version')
    AND table_name NOT LIKE 'staging%'
GROUP BY 1
ORDER BY 1
"""


KEPT_BY_RUN_ID = {"yieldspark.run_changes", "yieldspark.replaced_rows"}
"""Tables whose values are ids and times of runs; `test_undo.py` compares them."""


def exact_contents(engine: Engine) -> Mapping[str, str]:
    """Return the MD5 of all rows of each table, except the ledger's."""
    return {row["name"]: _md5(engine, row["name"], "t::text") for row in rows_of(engine, VOLATILE)}


def computed_contents(engine: Engine) -> Mapping[str, str]:
    """Return the same without values that differ between equal runs: run ids, identities, insertion
    times.
    """
    contents = {}
    tables = rows_of(engine, VOLATILE)
    for row in (table for table in tables if table["name"] not in KEPT_BY_RUN_ID):
        names = ", ".join(f"'{name}'" for name in row["volatile"] or [])
        contents[row["name"]] = _md5(
            engine, row["name"], f"(to_jsonb(t) - ARRAY[{names}]::text[])::text"
        )
    return contents


def _md5(engine: Engine, table: str, row: str) -> str:
    query = (
        f"SELECT count(*) || ' rows, ' || coalesce(md5(string_agg({row}, ' ' ORDER BY {row})), '')"
        f" AS contents FROM {table} AS t"
    )
    return str(rows_of(engine, query)[0]["contents"])
