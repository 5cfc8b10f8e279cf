"""`db start | stop | url | psql | migrate | grant | reset`: the embedded server, or your own with
DB_HOST.

Each command imports the parts of `database/` that it needs.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.app import DATABASE, app
from cli.context import JobContext
from cli.options import AsJson, load_command_settings, run_in_context
from cli.terminal import out, print_json, print_pairs
from common.errors import ConfigurationError, EnvironmentNotReady

if TYPE_CHECKING:
    from config_spark import Settings

db_app = typer.Typer(
    no_args_is_help=True, help="The database: the embedded server, or your own with DB_HOST."
)
app.add_typer(db_app, name="db", rich_help_panel=DATABASE)


@db_app.command()
def start(as_json: AsJson = False) -> None:
    """Start the embedded server if it is not running, and migrate its tables.

    Example: python run_spark_local.py db start
    """
    status = run_in_context(_start)
    print_json(status) if as_json else print_pairs(status)


@db_app.command("migrate")
def migrate_tables(as_json: AsJson = False) -> None:
    """Create missing tables, and report missing rights and indexes; your own tables are never
    altered.

    Tables of an older MLflow registry are upgraded.

    Example: python run_spark_local.py db migrate
    """
    from database.connections.engine import checked_connection, make_engine
    from database.embedded.resolve import resolve_database
    from database.schema.check import find_table_problems, problems_payload
    from database.schema.migrate import migrate
    from database.schema.table_use import JOBS_USE
    from forecasting.registry.mlflow_tables import upgrade_tables

    settings = resolve_database(load_command_settings())
    engine = make_engine(settings)
    changed = migrate(engine)
    # after the product's own tables: an MLflow that fails leaves those usable
    registry = upgrade_tables(settings)
    with checked_connection(engine) as connection:
        findings = find_table_problems(connection, JOBS_USE)
    document = problems_payload(findings)
    if as_json:
        print_json({"changed": changed, **({"registry": registry} if registry else {}), **document})
    else:
        out.print("the tables are up to date" if changed else "nothing to do")
        if registry in ("made", "upgraded"):
            out.print(f"the model registry's tables are {registry}")
        for sentence in [
            findings.missing_tables_message,
            *findings.problems,
            findings.missing_rights_message,
            findings.missing_indexes_message,
        ]:
            if sentence:
                out.print(sentence, soft_wrap=True, markup=False)
    if findings.missing or findings.problems or findings.grants:
        raise typer.Exit(1)


class RoleKind(StrEnum):
    owner = "owner"
    job = "job"
    reader = "reader"


@db_app.command("grant")
def grant(
    kind: Annotated[
        RoleKind,
        typer.Argument(
            help="owner migrates, job runs both jobs, reader reads.", show_default=False
        ),
    ],
    role: Annotated[
        str, typer.Argument(help="Name of an existing role.", metavar="ROLE", show_default=False)
    ],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the statements; change nothing.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Grant a role the rights that it lacks; run it as the owner of the tables.

    Run it again after `db migrate`, for the tables of a new version.

    Example: python run_spark_local.py db grant reader dashboards --dry-run
    """
    from database.connections.engine import make_engine
    from database.embedded.resolve import resolve_database
    from database.schema.grants import grant_rights

    settings = resolve_database(load_command_settings())
    result = grant_rights(make_engine(settings), role, kind.value, dry_run=dry_run)
    if as_json:
        print_json(result)
        return
    out.print(f"{role}: {result['status'].replace('_', ' ')}", markup=False)
    for statement in result["statements"]:
        out.print(statement, soft_wrap=True, markup=False)


@db_app.command()
def stop(as_json: AsJson = False) -> None:
    """Stop the embedded server; its data is kept.

    Example: python run_spark_local.py db stop
    """
    settings = load_command_settings()
    _require_embedded(settings)
    from database.embedded.server import EmbeddedServer

    stopped = EmbeddedServer(settings.yieldspark_home).stop()
    if as_json:
        print_json({"stopped": stopped})
    else:
        out.print("stopped" if stopped else "it was not running")


@db_app.command()
def url(as_json: AsJson = False) -> None:
    """Print the SQLAlchemy URL of the database, including the password.

    Example: psql "$(python run_spark_local.py db url | sed s/+psycopg2//)"
    """
    from database.connections.parameters import connection_parameters
    from database.embedded.resolve import resolve_database

    url = connection_parameters(resolve_database(load_command_settings())).sqlalchemy_url()
    # the one command that shows the password, for programs that need it
    url_text = url.render_as_string(hide_password=False)
    print_json({"url": url_text}) if as_json else out.print(url_text, soft_wrap=True, markup=False)


@db_app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def psql(context: typer.Context) -> None:
    """Open psql on the database; further arguments go to psql.

    Example: python run_spark_local.py db psql -c "select count(*) from pools"
    """
    from database.connections.parameters import connection_parameters
    from database.embedded.resolve import resolve_database
    from database.embedded.server import EmbeddedServer

    settings = resolve_database(load_command_settings())
    # some wheels of the embedded server come without psql
    program = shutil.which("psql") or EmbeddedServer(settings.yieldspark_home).psql
    if program is None:
        raise EnvironmentNotReady(
            "there is no psql in the installed wheel, nor on PATH; apt install postgresql-client,"
            " or use `db url` with a client of your own"
        )
    login = connection_parameters(settings).libpq_variables() | {"PGDATABASE": settings.db_name}
    raise typer.Exit(
        subprocess.run(
            [str(program), *context.args], env={**os.environ, **login}, check=False
        ).returncode
    )


@db_app.command()
def reset(
    yes: Annotated[bool, typer.Option("--yes", help="Skip the confirmation.")] = False,
    as_json: AsJson = False,
) -> None:
    """Delete the embedded server and all its data.

    Example: python run_spark_local.py db reset --yes
    """
    settings = load_command_settings()
    _require_embedded(settings)
    question = f"Delete all data of the embedded server in {settings.yieldspark_home}?"
    # a script has nobody who could answer
    if not yes and not (sys.stdin.isatty() and typer.confirm(question, err=True)):
        raise ConfigurationError("nothing was deleted: answer `db reset` with yes, or give --yes")
    from database.embedded.server import EmbeddedServer

    EmbeddedServer(settings.yieldspark_home).reset()
    print_json({"reset": True}) if as_json else out.print("deleted")


def _require_embedded(settings: Settings) -> None:
    if settings.db_host:
        raise ConfigurationError(
            f"DB_HOST is set ({settings.db_host}): this command is for the embedded server only;"
            " unset DB_HOST"
        )


def _start(context: JobContext) -> dict[str, Any]:
    from database.embedded.server import EmbeddedServer

    _require_embedded(context.base_settings)
    status = EmbeddedServer(context.settings.yieldspark_home).status()
    # a port is no quantity: a number would be printed with separators
    return {**status, "port": str(status["port"])}
