"""From what Terraform made to forecast rows: a release by the build's account, a migrated database,
and the nightly run, begun by its schedule.

In: an emulated project to which the configuration was applied, with a database server. Out: the
execution's result and what is in the tables. Every call is made as the identity that makes it on
Google, with that identity's grants.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import text

from config_spark import Settings, load_settings
from database.connection import make_engine
from database.migrate import migrate
from database.secret_password import with_password
from emulator.cloud import EmulatedCloud
from product_errors import ConfigurationError
from workflows.executions import Executions, wait_for_execution
from workflows.releases.release import publish

Say = Callable[[str], None]

SETTINGS_OBJECT = "settings.env"
NIGHTLY = "yieldspark-nightly"
SECONDS_BETWEEN = 0.5

ROWS = text("""
    SELECT count(actual_apy) AS days,
        count(forecasted_apy) AS forecasts,
        count(DISTINCT pool_id) AS pools
    FROM pool_daily_metrics
""")


@dataclass(frozen=True)
class Identities:
    """Who calls, as a policy names them."""

    build: str
    container: str
    operator: str

    @classmethod
    def of(cls, outputs: Mapping[str, Any], operator: str) -> Identities:
        """Args: outputs are those of the configuration."""
        accounts = outputs["accounts"]
        return cls(
            f"serviceAccount:{accounts['build']}",
            f"serviceAccount:{accounts['container']}",
            operator,
        )


def settings_of(
    cloud: EmulatedCloud, outputs: Mapping[str, Any], member: str, **others: Any
) -> Settings:
    """The product's settings in the project, for one identity: those of settings.env."""
    variables = cloud.settings_env(outputs["buckets"]["code"], SETTINGS_OBJECT)
    return load_settings(
        _env_file=None,
        **{name.lower(): value for name, value in variables.items()},
        google_api_url=cloud.address_of(member),
        **others,
    )


def database_settings(
    cloud: EmulatedCloud, outputs: Mapping[str, Any], member: str, **others: Any
) -> Settings:
    """The same, with the server's own address in place of the private name, and the password from
    the secret.

    Raises: CloudRefused where the identity may not read the secret.
    """
    if cloud.server is None:
        raise ConfigurationError("this emulated project has no database server")
    found = with_password(settings_of(cloud, outputs, member, **others))
    return found.model_copy(
        update={"db_host": cloud.server.host, "db_port": cloud.server.port, "db_sslmode": "prefer"}
    )


def released(
    cloud: EmulatedCloud, outputs: Mapping[str, Any], build: str, home: Path, jars: Path, say: Say
) -> dict[str, Any]:
    """Release the working tree as the build's account, with an image of the project's repository.

    Returns: what `release` returns.
    """
    settings = settings_of(
        cloud,
        outputs,
        build,
        yieldspark_home=home,
        jars_dir=jars,
        container_image=f"{outputs['registry']}/batch@sha256:{'0' * 64}",
    )
    return publish(settings, allow_dirty=True, say=say)


def migrated(cloud: EmulatedCloud, outputs: Mapping[str, Any], container: str) -> Settings:
    """The tables, made as the database's user. Returns: settings that reach the database."""
    settings = database_settings(cloud, outputs, container)
    migrate(make_engine(settings))
    return settings


def scheduled_run(
    cloud: EmulatedCloud, outputs: Mapping[str, Any], operator: str, say: Say
) -> dict[str, Any]:
    """Send the schedule's request, and see its execution through as an operator.

    Returns: `{"execution", "state", "seconds", "result"}`. Raises: BatchFailed.
    """
    started = cloud.dispatch(NIGHTLY)
    settings = settings_of(cloud, outputs, operator)
    say(f"execution {started['name'].rpartition('/')[2]} of {settings.workflow_name}")
    return wait_for_execution(Executions(settings), started["name"], say, SECONDS_BETWEEN)


def rows(database: Settings) -> dict[str, int]:
    """What the run has written: days with metrics, forecasts, pools."""
    with make_engine(database).connect() as connection:
        return dict(connection.execute(ROWS).mappings().one())
