"""The clock of a soak: one shift of the machine's clock for the jobs, the emulated services and the
database, so that a night takes a minute.

PostgreSQL's `now()` and `clock_timestamp()` are replaced in the soak's own database, because the
ledger's times and insertion timestamps are the server's. The shift is never positive: the server's
own times, such as the start of a transaction, are then never before the soak's.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from sqlalchemy import Engine

from config_spark import Settings
from database.connections.engine import make_engine

SHIFT = "soak.shift_seconds"
"""Parameter of the database."""

FUNCTIONS = {"now": "STABLE", "clock_timestamp": "VOLATILE"}


class SoakClock:
    """The clock; it advances with the machine's.

    Args:
        start: first moment, UTC.
    """

    def __init__(self, start: datetime) -> None:
        self._shift = 0
        self.set(start)

    def set(self, moment: datetime) -> None:
        """Move the clock.

        Raises:
            ValueError: the moment is in the future of this machine.
        """
        shift = int((moment - datetime.now(UTC)).total_seconds())
        if shift > 0:
            raise ValueError(f"{moment} is in the future: a soak's clock is behind this machine's")
        self._shift = shift

    @property
    def shift_seconds(self) -> int:
        return self._shift

    def now(self) -> datetime:
        """Return the time, UTC."""
        return datetime.now(UTC) + timedelta(seconds=self._shift)

    def seconds(self) -> float:
        """Return the time in seconds since the epoch."""
        return self.now().timestamp()

    def variables(self) -> Mapping[str, str]:
        """Return the variables that give a job this clock."""
        return {"CLOCK_SHIFT_SECONDS": str(self._shift)}


def administrator(settings: Settings) -> Engine:
    """Return an engine for statements that are no part of a transaction."""
    return make_engine(settings.model_copy(update={"db_name": "postgres"})).execution_options(
        isolation_level="AUTOCOMMIT"
    )


def create_database(settings: Settings, name: str) -> Settings:
    """Create an empty database whose clock `set_server_clock` moves; return its settings."""
    with administrator(settings).connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    set_server_clock(settings, name, 0)
    own = settings.model_copy(update={"db_name": name})
    with make_engine(own).begin() as connection:
        for function, volatility in FUNCTIONS.items():
            connection.exec_driver_sql(f"""
                ALTER FUNCTION pg_catalog.{function}() RENAME TO server_{function};
                CREATE FUNCTION pg_catalog.{function}() RETURNS timestamptz
                LANGUAGE sql {volatility} PARALLEL SAFE AS $$
                    SELECT pg_catalog.server_{function}()
                        + make_interval(secs => current_setting('{SHIFT}')::float8)
                $$
            """)
    return own


def set_server_clock(settings: Settings, name: str, shift_seconds: int) -> None:
    """Move the clock of a database, for sessions that begin from now on."""
    with administrator(settings).connect() as connection:
        connection.exec_driver_sql(f"ALTER DATABASE {name} SET {SHIFT} = '{shift_seconds}'")
