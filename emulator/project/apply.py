"""`python -m emulator.project.apply`: applies `terraform/` to an emulated project on this machine
and runs the pipeline on it. Starts its own PostgreSQL server. `python -m workflows local apply`
starts this command.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NoReturn

import typer

from cli.options import AsJson, load_command_settings
from cli.run_application import run_application
from cli.terminal import print_json, print_pairs, print_table, say, step
from common.errors import EnvironmentNotReady, YieldSparkError, summarize_error
from common.private_files import private_folder
from config_spark import Settings
from database.embedded.server import EmbeddedServer
from emulator.control_plane.policies import Grant
from emulator.local.local_cloud import exclusive_folder, repeated
from emulator.project import daily_run
from emulator.project.cloud import EmulatedCloud, emulated_cloud
from emulator.project.current_sample import write_current_sample
from emulator.project.database_server import DatabaseServer
from emulator.project.identities import Refusal
from emulator.terraform import terraform_apply
from emulator.terraform.google_provider import VERSION, built_provider, obstacle
from workflows.clients.executions import ExecutionSummary
from workflows.commands.run_commands import require_validation
from workflows.commands.tables import print_entries
from workflows.releases.release_content import read_jars

ROOT = Path(__file__).resolve().parents[2]

PROJECT, REGION = "local-project", "europe-west1"
SECRET = "yieldspark-database-password"
OPERATOR = "user:operator@example.com"

SECONDS_BETWEEN = 5.0
"""Interval between progress lines."""

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass(frozen=True)
class AppliedRun:
    """Result of an apply, a second plan and one daily run.

    Attributes:
        resources: Number of resources in the state, by type.
        second_plan: Changes of the second plan; empty.
        grants: Every grant of the project.
        refused: Permissions that a call required and that no grant gave.
        unused_grants: Grants that no call has needed.
        release: Version of the release.
        run: The execution of the daily run.
        rows: Rows of the database.
    """

    resources: dict[str, int]
    second_plan: list[str]
    grants: list[Grant]
    refused: list[Refusal]
    unused_grants: list[Grant]
    release: str
    run: ExecutionSummary
    rows: daily_run.RowCounts

    def payload(self) -> dict[str, Any]:
        """Return the `--json` payload."""
        return {
            "provider": VERSION,
            **asdict(self),
            "grants": [grant.payload() for grant in self.grants],
            "unused_grants": [grant.payload() for grant in self.unused_grants],
        }


def main() -> NoReturn:
    """Run the command of `sys.argv` and exit with its code."""
    run_application(app, _failure, prog_name="python -m emulator.project.apply")


@app.command()
def apply(as_json: AsJson = False) -> None:
    """Apply terraform/ to fakes of Google's APIs, plan again, and run the pipeline once.

    Example: python -m emulator.project.apply --json
    """
    settings = load_command_settings()
    if reason := obstacle():
        raise EnvironmentNotReady(
            f"{reason}. `local apply` needs Terraform 1.11 or newer, and Go 1.25 or newer for the"
            f" first build of the Google provider {VERSION}; install them, or try the cloud without"
            " Terraform: python -m workflows local run"
        )
    # checked now, because the release that needs them comes a minute later
    read_jars(settings)
    # the emulated project has its own settings; the user's must not reach it
    for name in Settings.model_fields:
        os.environ.pop(name.upper(), None)
    applied = apply_and_run(settings, settings.yieldspark_home / "emulator")
    print_json(applied.payload()) if as_json else _print_applied(applied)
    require_validation(applied.run)


def apply_and_run(settings: Settings, folder: Path) -> AppliedRun:
    """Apply the configuration to an empty project and run the pipeline.

    Args:
        settings: The user's settings.
        folder: Emptied first.
    """
    with step(f"1/6 Google provider {VERSION}"):
        built_provider(say)
    with exclusive_folder(folder):
        server = EmbeddedServer(folder)
        server.reset()
        # a second apply starts from nothing: its state, tokens and objects must not remain
        for path in folder.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        try:
            with emulated_cloud(folder, PROJECT, SECRET) as cloud:
                with step("2/6 database server"):
                    cloud.server = DatabaseServer(server)
                return _run_steps(settings, cloud, folder)
        finally:
            server.stop()


def _run_steps(settings: Settings, cloud: EmulatedCloud, folder: Path) -> AppliedRun:
    variables = {
        "project_id": PROJECT,
        "region": REGION,
        "operators": [OPERATOR],
        "schedule_paused": False,
        # batches are sized for the sample
        "expected_rows": 10_000,
    }
    with step("3/6 terraform apply, and a second plan"):
        terraform = terraform_apply.prepare_configuration(
            folder / "configuration", cloud.url, variables, say, token=cloud.token
        )
        with _progress(cloud):
            terraform_apply.apply(terraform)
        say("second plan")
        changes = terraform_apply.changes(terraform)
        outputs = terraform_apply.outputs(terraform)
    if changes:
        raise YieldSparkError(f"the second plan is not empty: {'; '.join(changes)}")
    with step("4/6 release of the working tree"):
        release = daily_run.publish_release(
            cloud, outputs, settings.yieldspark_home, settings.jars_dir, say
        )
    with step("5/6 tables and sample data"):
        database = daily_run.migrate_database(cloud, outputs, OPERATOR, say)
        _load_sample(database, folder)
    with step("6/6 daily run"):
        run = daily_run.scheduled_run(cloud, outputs, OPERATOR, say)
    resources = Counter(address.split(".")[0] for address in terraform_apply.addresses(terraform))
    return AppliedRun(
        resources=dict(sorted(resources.items())),
        second_plan=changes,
        grants=cloud.plane.policies.grants(),
        refused=cloud.identities.refusals(),
        unused_grants=cloud.identities.unused_grants(),
        release=release.version,
        run=run,
        rows=daily_run.rows(database),
    )


@contextmanager
def _progress(cloud: EmulatedCloud) -> Iterator[None]:
    """Report the numbers of resources and grants during an apply, which takes most of a minute."""

    def count() -> None:
        resources = sum(cloud.plane.store.counts().values())
        say(f"{resources} resources, {len(cloud.plane.policies.grants())} grants")

    with repeated(count, SECONDS_BETWEEN):
        yield


def _load_sample(database: Settings, folder: Path) -> None:
    """Load the sample, moved to end yesterday, with the product's own command, as the database's
    user, in a folder without `.env`.
    """
    names = ("db_host", "db_port", "db_name", "db_user", "db_sslmode")
    password = database.db_password.get_secret_value() if database.db_password else ""
    variables = {name.upper(): str(getattr(database, name)) for name in names}
    yesterday = datetime.now(UTC).date() - timedelta(days=1)
    files = write_current_sample(private_folder(folder / "sample"), yesterday)
    command = [sys.executable, str(ROOT / "run_spark_local.py"), "load", *map(str, files)]
    process = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **variables, "DB_PASSWORD": password},
        stdout=subprocess.DEVNULL,
        check=False,
    )
    if process.returncode:
        raise YieldSparkError(
            "the sample could not be loaded: `run_spark_local.py load` ended with exit"
            f" code {process.returncode}; its error is above"
        )


def _print_applied(applied: AppliedRun) -> None:
    resources = applied.resources
    print_table(["resource", "number"], list(resources.items()), title="made by terraform apply")
    grants = Counter(grant.member.partition("@")[0] for grant in applied.grants)
    print_table(["member", "grants"], sorted(grants.items()), title="grants")
    result = applied.run.result
    print_entries(
        ["job", "batch", "state", "seconds"],
        [*result["steps"], {"seconds": None} | result["validation"]],
        title=f"execution {applied.run.execution}: {applied.run.state}",
    )
    print_pairs(
        {
            "resources": sum(resources.values()),
            "second plan": "empty",
            "permissions refused": len(applied.refused),
            "grants without a call": len(applied.unused_grants),
            "release": applied.release,
            **asdict(applied.rows),
        }
    )


def _failure(error: BaseException, arguments: list[str]) -> dict[str, Any]:
    return {"command": "apply", "status": "failed", "error": summarize_error(error)} | getattr(
        error, "document", {}
    )


if __name__ == "__main__":
    main()
