"""`python -m emulator.project.apply`: the configuration of `terraform/` on this machine, from an
empty project to forecast rows.

In: Terraform, and Go where the provider is not built yet. Out: a table, or one JSON document, of
what was made. It starts a PostgreSQL server of its own, and ends it. `python -m workflows local
apply` is this command for people.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import typer

from cli.options import AsJson, edge_settings
from cli.run_application import run_application
from cli.terminal import print_json, print_pairs, print_table, say, step
from common.errors import EnvironmentNotReady, YieldSparkError, summarize_error
from config_spark import Settings
from database.embedded.server import EmbeddedServer
from emulator.local.local_cloud import alone_in, repeated
from emulator.project import daily_run as nightly_run
from emulator.project.cloud import EmulatedCloud, emulated_cloud
from emulator.project.database_server import DatabaseServer
from emulator.terraform import terraform_apply
from emulator.terraform.google_provider import VERSION, built_provider, obstacle
from sample_data import SAMPLE_FILES
from workflows.releases.release_content import read_jars

ROOT = Path(__file__).resolve().parents[2]

PROJECT, REGION = "local-project", "europe-west1"
SECRET = "yieldspark-database-password"
OPERATOR = "user:operator@example.com"

SECONDS_BETWEEN = 5.0
"""Between two lines of progress."""

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def main() -> NoReturn:
    """Run the command of `sys.argv` and exit with its code."""
    run_application(app, _failure, prog_name="python -m emulator.project.apply")


@app.command()
def apply(as_json: AsJson = False) -> None:
    """Apply terraform/ to fakes of Google's APIs, plan again, and run the pipeline once.

    Example: python -m emulator.project.apply --json
    """
    settings = edge_settings()
    if reason := obstacle():
        raise EnvironmentNotReady(
            f"{reason}. `local apply` needs Terraform 1.11 or newer, and Go 1.25 or newer for the"
            f" first build of the Google provider {VERSION}; install them, or try the cloud without"
            " Terraform: python -m workflows local run"
        )
    # a release needs them, and that comes a minute later
    read_jars(settings)
    # the emulated project has settings of its own: none of the user's may reach it
    for name in Settings.model_fields:
        os.environ.pop(name.upper(), None)
    document = applied(settings, settings.yieldspark_home / "emulator")
    print_json(document) if as_json else _print(document)


def applied(settings: Settings, folder: Path) -> dict[str, Any]:
    """Args: folder is emptied first: every apply begins with an empty project. Returns: the
    command's document.
    """
    with step(f"1/6 Google provider {VERSION}"):
        built_provider(say)
    with alone_in(folder):
        server = EmbeddedServer(folder)
        server.reset()
        for path in folder.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        try:
            with emulated_cloud(folder, PROJECT, SECRET) as cloud:
                with step("2/6 database server"):
                    cloud.server = DatabaseServer(server)
                return _from_apply_to_rows(settings, cloud, folder)
        finally:
            server.stop()


def _from_apply_to_rows(settings: Settings, cloud: EmulatedCloud, folder: Path) -> dict[str, Any]:
    variables = {
        "project_id": PROJECT,
        "region": REGION,
        "operators": [OPERATOR],
        "schedule_paused": False,
        # of the sample: batches are sized for it
        "expected_rows": 10_000,
    }
    with step("3/6 terraform apply, and a second plan"):
        terraform = terraform_apply.laid_out(
            folder / "configuration", cloud.url, variables, say, token=cloud.token
        )
        with _counted(cloud):
            terraform_apply.apply(terraform)
        say("second plan")
        changes = terraform_apply.changes(terraform)
        outputs = terraform_apply.outputs(terraform)
    if changes:
        raise YieldSparkError(f"the second plan is not empty: {'; '.join(changes)}")
    with step("4/6 release of the working tree"):
        release = nightly_run.released(
            cloud, outputs, settings.yieldspark_home, settings.jars_dir, say
        )
    with step("5/6 tables and sample data"):
        database = nightly_run.migrated(cloud, outputs, OPERATOR, say)
        _load_sample(database, folder)
    with step("6/6 nightly run"):
        run = nightly_run.scheduled_run(cloud, outputs, OPERATOR, say)
    made = Counter(address.split(".")[0] for address in terraform_apply.addresses(terraform))
    return {
        "provider": VERSION,
        "resources": dict(sorted(made.items())),
        "second_plan": changes,
        "grants": cloud.plane.policies.grants(),
        "refused": cloud.refusals(),
        "unused_grants": cloud.unused_grants(),
        "release": release["version"],
        "run": run,
        "rows": nightly_run.rows(database),
    }


@contextmanager
def _counted(cloud: EmulatedCloud) -> Iterator[None]:
    """Say every few seconds how much is there: an apply takes most of a minute."""

    def count() -> None:
        resources = sum(cloud.plane.store.counts().values())
        say(f"{resources} resources, {len(cloud.plane.policies.grants())} grants")

    with repeated(count, SECONDS_BETWEEN):
        yield


def _load_sample(database: Settings, folder: Path) -> None:
    """By the product's own command, as the database's user, in a folder without an `.env`."""
    names = ("db_host", "db_port", "db_name", "db_user", "db_sslmode")
    password = database.db_password.get_secret_value() if database.db_password else ""
    variables = {name.upper(): str(getattr(database, name)) for name in names}
    command = [sys.executable, str(ROOT / "run_spark_local.py"), "load", *map(str, SAMPLE_FILES)]
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **variables, "DB_PASSWORD": password},
        stdout=subprocess.DEVNULL,
        check=False,
    )
    if done.returncode:
        raise YieldSparkError(
            "the sample could not be loaded: `run_spark_local.py load` ended with"
            f" {done.returncode}; its words are above"
        )


def _print(document: dict[str, Any]) -> None:
    resources = document["resources"]
    print_table(["resource", "number"], list(resources.items()), title="made by terraform apply")
    grants = Counter(grant["member"].partition("@")[0] for grant in document["grants"])
    print_table(["member", "grants"], sorted(grants.items()), title="grants")
    steps = document["run"]["result"]["steps"]
    columns = ["job", "batch", "state", "seconds"]
    print_table(
        columns,
        [[one[column] for column in columns] for one in steps],
        title=f"execution {document['run']['execution']}: {document['run']['state']}",
    )
    print_pairs(
        {
            "resources": sum(resources.values()),
            "second plan": "empty",
            "permissions refused": len(document["refused"]),
            "grants without a call": len(document["unused_grants"]),
            "release": document["release"],
            **document["rows"],
        }
    )


def _failure(error: BaseException, words: list[str]) -> dict[str, Any]:
    return {"command": "apply", "status": "failed", "error": summarize_error(error)} | getattr(
        error, "document", {}
    )


if __name__ == "__main__":
    main()
