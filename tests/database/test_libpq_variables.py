"""libpq's environment variables: the product rejects those that differ from its settings."""

from __future__ import annotations

import re
from pathlib import Path

import adbc_driver_postgresql
import psycopg2
import pytest

from common import libpq_variables
from config_spark import Settings
from database.connections.engine import probe_session
from database.connections.parameters import connection_parameters
from database.db_utils_spark import (
    execute_sql,
)
from database.embedded.resolve import resolve_database
from tests.database.test_connection import PAGE, answer_by_adbc
from tests.support.processes import CommandLineHere

VARIABLES = {
    "PGHOSTADDR": "192.0.2.1",
    "PGSERVICE": "nowhere",
    "PGSSLMODE": "verify-full",
    "PGSSLROOTCERT": "/nowhere.crt",
    "PGTARGETSESSIONATTRS": "standby",
    "PGREQUIREAUTH": "none",
    "PGCHANNELBINDING": "require",
    "PGOPTIONS": "-c nothing=1",
    "PGTZ": "Europe/Berlin",
    "PGDATABASE": "elsewhere",
    "PGPASSWORD": "very-secret",
    "PGPORT": "1",
}


@pytest.mark.parametrize("variable", VARIABLES)
def test_rejects_libpq_variable_that_differs_from_its_setting(
    variable: str, run_here: CommandLineHere
) -> None:
    refused = run_here("status", **{variable: VARIABLES[variable]})
    assert refused.returncode == 2
    assert f"the environment has {variable}" in refused.stderr
    assert VARIABLES[variable] not in refused.stderr or variable == "PGPORT"


def test_accepts_libpq_variables_that_agree_or_have_no_effect(
    run_here: CommandLineHere, database: Settings
) -> None:
    parameters = connection_parameters(database)
    same = parameters.libpq_variables() | {"PGDATABASE": database.db_name}
    others = {"PGAPPNAME": "other", "PGCLIENTENCODING": "LATIN1", "PGHOSTADDR": ""}
    assert run_here("status", **same | others).returncode == 0


def test_embedded_server_ignores_libpq_variables(
    server: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    resolved = resolve_database(server.model_copy(update={"db_host": None}))
    assert execute_sql(resolved, "SHOW TimeZone") == [{"TimeZone": "UTC"}]
    assert (
        answer_by_adbc(probe_session(resolved), "SELECT current_database()::text")
        == resolved.db_name
    )


def test_documentation_lists_libpq_variables() -> None:
    for names in (libpq_variables.SETTINGS, libpq_variables.WITHOUT_EFFECT):
        assert f"- {', '.join(f'`{name}`' for name in names)}: " in PAGE


def test_rule_covers_every_variable_of_the_installed_libpq() -> None:
    """psycopg2 and ADBC have a libpq each, whose text has the names of the variables."""
    libraries = [
        *Path(psycopg2.__file__).parents[1].glob("psycopg2_binary.libs/libpq*"),
        *Path(adbc_driver_postgresql.__file__).parent.glob("*.so"),
    ]
    for library in libraries:
        names = set(re.findall(rb"\0(PG[A-Z]{2,})(?=\0)", library.read_bytes()))
        assert b"PGHOSTADDR" in names
        assert {name.decode() for name in names} <= set(libpq_variables.ALL), library.name
