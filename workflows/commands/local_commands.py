"""`python -m workflows local`: runs the pipeline on an emulated cloud on this machine."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import threading
from dataclasses import asdict, dataclass
from datetime import date, timedelta
from typing import Annotated, Any

import typer
from sqlalchemy import text

from cli.options import AsJson, DryRun, End, Engine, Start, load_command_settings
from cli.terminal import out, print_json, print_pairs, print_table, say, step
from common.errors import YieldSparkError
from config_spark import Settings, load_settings
from database.connections.engine import make_engine
from emulator.local.local_cloud import ROOT, LocalCloud, local_cloud
from monitoring.series import PREFIX
from sample_data import SAMPLE_FILES
from workflows.clients.executions import ExecutionSummary
from workflows.commands.app import app
from workflows.commands.options import FullRefresh, OnPlatform
from workflows.commands.run_commands import (
    pipeline_argument,
    print_pipeline,
    require_validation,
    run_pipeline,
)
from workflows.inside_network.container_runs import container_arguments, run_container
from workflows.releases.release import PublishedRelease, publish
from workflows.spec.release_paths import OPERATOR_JOB

local = typer.Typer(
    no_args_is_help=True,
    help="The emulator of Google Cloud on this machine.",
)
app.add_typer(local, name="local")

SECONDS_BETWEEN = 0.5
"""Polling interval."""

NEWEST_DAY = text(
    "SELECT max((timestamp AT TIME ZONE 'UTC')::date) FROM raw_defillama_pool_history"
)


@dataclass(frozen=True)
class LocalRun:
    """A run of the pipeline in the emulator, with its release, the name of its database, and the
    newest point of each time series.
    """

    pipeline: ExecutionSummary
    release: PublishedRelease
    database: str
    series: list[dict[str, Any]]

    def payload(self) -> dict[str, Any]:
        """Return the `--json` payload."""
        own = {"release": asdict(self.release), "database": self.database}
        return asdict(self.pipeline) | own | {"series": self.series}


@local.command()
def up(
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="TCP port; 0 selects a free one.")
    ] = 8085,
    as_json: AsJson = False,
) -> None:
    """Run the emulator until Ctrl-C; it prints the variables that direct other commands to it.

    Example: python -m workflows local up
    """
    with local_cloud(load_command_settings(), port) as cloud:
        if as_json:
            print_json({"url": cloud.url, "variables": dict(cloud.variables)})
        else:
            out.print(
                "\n".join(
                    f"export {name}={shlex.quote(value)}" for name, value in cloud.variables.items()
                ),
                markup=False,
                soft_wrap=True,
            )
        say(f"the local cloud listens at {cloud.url}; Ctrl-C ends it and its running batches")
        # until a signal raises KeyboardInterrupt
        threading.Event().wait()


@local.command()
def run(
    start: Start = None,
    end: End = None,
    full_refresh: FullRefresh = False,
    engine: Engine = None,
    platform: OnPlatform = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Release the working tree to the emulator, and run the whole pipeline there.

    Example: python -m workflows local run
    """
    argument = pipeline_argument(
        None,
        start,
        end,
        full_refresh=full_refresh,
        engine=engine,
        platform=platform,
        dry_run=dry_run,
    )
    local_run = run_in_local_cloud(load_command_settings(), argument)
    print_json(local_run.payload()) if as_json else _print_run(local_run)
    require_validation(local_run.pipeline)


@local.command()
def apply(as_json: AsJson = False) -> None:
    """Apply terraform/ to emulated Google APIs and run the pipeline on the result.

    Requires Terraform, and Go to build the provider once.

    Example: python -m workflows local apply
    """
    command = [sys.executable, "-m", "emulator.project.apply", *(["--json"] if as_json else [])]
    # a separate program: the emulator is not part of the product and reports its own errors
    variables = {**os.environ, "PYTHONPATH": str(ROOT)}
    # a session of its own: otherwise Ctrl-C reaches it twice and interrupts its clean-up
    with subprocess.Popen(command, env=variables, start_new_session=True) as process:
        try:
            code = process.wait()
        except KeyboardInterrupt:
            process.terminate()
            code = process.wait()
    # the program has printed its result or error already
    sys.exit(code)


def run_in_local_cloud(settings: Settings, argument: dict[str, Any]) -> LocalRun:
    """Release the working tree to the emulator, migrate its database and run the pipeline.

    Args:
        settings: The user's settings; those of the emulator replace them.
        argument: Argument of the pipeline's `main`.
    """
    with local_cloud(settings) as cloud:
        # what the user has set, such as EXPECTED_ROWS, without the password of the real database
        own_settings = settings.model_dump(include=settings.model_fields_set - {"db_password"})
        cloud_settings = load_settings(
            **own_settings | {name.lower(): value for name, value in cloud.variables.items()}
        )
        with step("1/3 release of the working tree"):
            release = publish(cloud_settings, allow_dirty=True, say=say)
        with step("2/3 database"):
            if not argument.get("dry_run"):
                _migrate(cloud_settings, release.version)
            # never into the user's own database
            if not settings.db_host:
                _load_sample(cloud)
                argument = _day_of_sample(cloud, argument) | argument
        with step("3/3 pipeline"):
            pipeline = run_pipeline(
                cloud_settings,
                argument | {"version": release.version},
                seconds_between=SECONDS_BETWEEN,
                owns_cloud=True,
            )
        return LocalRun(pipeline, release, cloud.database.db_name, cloud.monitoring.newest())


def _migrate(settings: Settings, version: str) -> None:
    """Run the migration as an operator does, by the Cloud Run job."""
    run_container(
        settings,
        OPERATOR_JOB,
        container_arguments(["db", "migrate"], version),
        lambda line: say(line.text),
        seconds_between=SECONDS_BETWEEN,
        owns_cloud=True,
    )


def _load_sample(cloud: LocalCloud) -> None:
    """Load the sample with the product's own command if the emulator's own database is empty."""
    with make_engine(cloud.database).connect() as connection:
        table = connection.execute(text("SELECT to_regclass('pools')")).scalar_one()
        if table and connection.execute(text("SELECT 1 FROM pools LIMIT 1")).first():
            return
    command = [sys.executable, str(ROOT / "run_spark_local.py"), "load", *map(str, SAMPLE_FILES)]
    process = subprocess.run(
        command, env=cloud.environment(), stdout=subprocess.DEVNULL, check=False
    )
    if process.returncode:
        raise YieldSparkError(
            "the sample could not be loaded: `run_spark_local.py load` ended with exit code"
            f" {process.returncode}; its error is above"
        )


def _day_of_sample(cloud: LocalCloud, argument: dict[str, Any]) -> dict[str, str]:
    """Return the pipeline's key of the day to validate: the sample ends long before today."""
    with make_engine(cloud.database).connect() as connection:
        newest: date = connection.execute(NEWEST_DAY).scalar_one()
    last = date.fromisoformat(argument["end"]) - timedelta(days=1) if "end" in argument else newest
    return {"validate_as_of": min(last, newest).isoformat()}


def _print_run(local_run: LocalRun) -> None:
    print_pipeline(local_run.pipeline)
    rows = [
        [point["type"].removeprefix(PREFIX + "/"), point["labels"], point["value"]]
        for point in local_run.series
    ]
    print_table(["series", "labels", "value"], rows, title="time series in Cloud Monitoring")
    print_pairs({"version": local_run.release.version, "database": local_run.database})
