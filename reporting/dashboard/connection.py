"""The database of the dashboard: one engine of the process, and its state in one sentence.

Sessions are read-only and have a time limit for each statement. Streamlit runs the pages in threads
of the server's process, where `use` has set the settings before.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

from sqlalchemy import Engine, create_engine, text
from sqlalchemy.pool import QueuePool

from common.errors import DatabaseUnreachable, YieldSparkError, summarize_error
from config_spark import Settings
from database.connections.engine import METRICS_OPTION, checked_connection, connect
from database.connections.parameters import connection_parameters
from database.schema.migrate import require_current
from database.schema.own_schema import require_read_rights

STATEMENT_SECONDS = 60
"""A statement that takes longer is cancelled: its page would be abandoned by then."""
# the role may have the right to write: the pages never do
READ_ONLY_SESSION = {
    "default_transaction_read_only": "on",
    "statement_timeout": f"{STATEMENT_SECONDS}s",
}
CONNECTIONS = 4
"""Kept open: a login takes longer than most of the pages' statements."""

# a run that failed may have changed rows too, so every end counts
NEWEST_RUN = """
SELECT run_id
FROM yieldspark.run_ledger
WHERE finished_at IS NOT NULL
ORDER BY finished_at DESC, run_id DESC
LIMIT 1
"""


@dataclass(frozen=True)
class DataVersion:
    """Key of cached figures: they change when a run ends.

    Attributes:
        database: server, database and role.
        run_id: the run that ended last; None before the first.
    """

    database: str
    run_id: str | None


@dataclass(frozen=True)
class Connected:
    """The settings of this process and the engine of its pages."""

    settings: Settings
    engine: Engine
    name: str


_connected: list[Connected] = []


def use(settings: Settings) -> None:
    """Set the database of all pages of this process.

    Args:
        settings: with DB_* of a running server.
    """
    parameters = connection_parameters(settings)
    parameters = replace(parameters, session={**parameters.session, **READ_ONLY_SESSION})
    engine = create_engine(
        parameters.sqlalchemy_url(),
        poolclass=QueuePool,
        creator=partial(connect, parameters),
        pool_size=CONNECTIONS,
        # the server may have been restarted since the last visit
        pool_pre_ping=True,
    ).execution_options(**{METRICS_OPTION: settings.metrics_table})
    # their connections would stay open for the life of the process
    for earlier in _connected:
        earlier.engine.dispose()
    _connected[:] = [Connected(settings, engine, parameters.where)]


def connected() -> Connected:
    """Return the database of the pages; `use` must have set it."""
    return _connected[0]


def database_problem() -> str | None:
    """Return why the pages cannot read the database, with the next step; None if they can."""
    try:
        with checked_connection(connected().engine) as connection:
            require_read_rights(connection)
        require_current(connected().engine)
    except DatabaseUnreachable as error:
        return f"{summarize_error(error)}. Start the server, or correct DB_HOST, then reload."
    except YieldSparkError as error:
        return summarize_error(error)
    return None


def data_version() -> DataVersion:
    """Return the key of cached figures.

    Raises:
        DatabaseError: the database does not answer or refuses the statement.
    """
    with checked_connection(connected().engine) as connection:
        newest = connection.execute(text(NEWEST_RUN)).scalar()
    return DataVersion(connected().name, newest)
