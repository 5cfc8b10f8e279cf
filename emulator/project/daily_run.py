"""From Terraform's result to forecast rows: release by the build's account, migration, and the
daily run by its schedule. Each call has the identity and permissions that it has on Google.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import text

from common.errors import ConfigurationError
from config_spark import Settings, load_settings
from database.connections.engine import make_engine
from database.connections.secret_manager import with_password
from emulator.project.cloud import EmulatedCloud
from workflows.clients.executions import Executions, ExecutionSummary, wait_for_execution
from workflows.inside_network.container_runs import container_arguments, run_container
from workflows.releases.release import PublishedRelease, publish
from workflows.spec.release_paths import OPERATOR_JOB

Say = Callable[[str], None]

SETTINGS_OBJECT = "settings.env"
SCHEDULE = "yieldspark-nightly"
"""Name in terraform/schedule.tf."""
SECONDS_BETWEEN = 0.5
"""Polling interval."""

ROWS = text("""
    SELECT count(actual_apy) AS days,
        count(forecasted_apy) AS forecasts,
        count(DISTINCT pool_id) AS pools
    FROM pool_daily_metrics
""")


@dataclass(frozen=True)
class RowCounts:
    """Numbers of days with metrics, of forecasts and of pools."""

    days: int
    forecasts: int
    pools: int


def settings_of(
    cloud: EmulatedCloud, outputs: Mapping[str, Any], member: str, **others: Any
) -> Settings:
    """Return the product's settings in the project for one identity, from settings.env.

    Args:
        cloud: The project.
        outputs: Terraform's outputs.
        member: Identity, as in a policy.
        others: Further settings.
    """
    variables = cloud.settings_env(outputs["buckets"]["code"], SETTINGS_OBJECT)
    access = cloud.identities.access_of(member)
    return load_settings(
        # the .env of the working folder is the user's
        _env_file=None,
        **{name.lower(): value for name, value in variables.items()},
        google_api_endpoint=access.address,
        google_api_token_file=access.token_file,
        **others,
    )


def publish_release(
    cloud: EmulatedCloud, outputs: Mapping[str, Any], home: Path, jars: Path | None, say: Say
) -> PublishedRelease:
    """Release the working tree as the build's account, with an image of the project's
    repository.
    """
    settings = settings_of(
        cloud,
        outputs,
        f"serviceAccount:{outputs['accounts']['build']}",
        yieldspark_home=home,
        jars_dir=jars,
        # no image is pulled here; the digest only has to look like one
        container_image=f"{outputs['registry']}/batch@sha256:{'0' * 64}",
    )
    return publish(settings, allow_dirty=True, say=say)


def migrate_database(
    cloud: EmulatedCloud, outputs: Mapping[str, Any], operator: str, say: Say
) -> Settings:
    """Create the tables by `operator -- db migrate` in a container of the release.

    Returns:
        Settings that reach the database as its user.

    Raises:
        ContainerFailed: The migration fails.
    """
    settings = settings_of(cloud, outputs, operator)
    arguments = container_arguments(("db", "migrate"))
    run_container(settings, OPERATOR_JOB, arguments, lambda line: say(line.text), owns_cloud=True)
    return _database_settings(cloud, outputs)


def _database_settings(cloud: EmulatedCloud, outputs: Mapping[str, Any]) -> Settings:
    """Return settings with the server's address in place of the private name, and the password from
    the jobs' secret.
    """
    if cloud.server is None:
        raise ConfigurationError("this emulated project has no database server")
    member = f"serviceAccount:{outputs['accounts']['container']}"
    settings = with_password(settings_of(cloud, outputs, member))
    return settings.model_copy(
        update={"db_host": cloud.server.host, "db_port": cloud.server.port, "db_sslmode": "prefer"}
    )


def scheduled_run(
    cloud: EmulatedCloud, outputs: Mapping[str, Any], operator: str, say: Say
) -> ExecutionSummary:
    """Send the schedule's request and wait for its execution as an operator.

    Raises:
        BatchFailed: The run fails.
    """
    execution = cloud.dispatch(SCHEDULE)
    settings = settings_of(cloud, outputs, operator)
    say(f"execution {execution['name'].rpartition('/')[2]} of {settings.workflow_name}")
    return wait_for_execution(Executions(settings), execution["name"], say, SECONDS_BETWEEN)


def rows(database: Settings) -> RowCounts:
    """Count the rows of `pool_daily_metrics`."""
    with make_engine(database).connect() as connection:
        return RowCounts(**connection.execute(ROWS).mappings().one())
