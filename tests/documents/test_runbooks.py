"""Tests the commands of the runbooks as they are written: each exists with its options, those for
the private network are allowed there, and those that change nothing run.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import typer
from sqlalchemy import Engine

from cli import main as local_entry  # noqa: F401
from cli.app import app as local_app
from config_spark import Settings
from docs.generate.cli_page import leaf_commands
from emulator.services.batch_lifecycle import BatchScript
from tests.support.defillama_pulls import fill
from tests.support.defillama_server import running
from tests.support.metrics_store import execute, rows_of
from tests.support.processes import PROJECT, CommandLineHere
from tests.support.undone_runs import last_run_id
from tests.support.validated_runs import put_daily_run
from tests.workflows.test_batch_commands import AT_ONCE, FAILS, SUBMIT, served
from workflows.commands import main as entry  # noqa: F401
from workflows.commands.allowed_commands import require_allowed_command
from workflows.commands.app import app

RUNBOOKS = sorted((PROJECT / "docs" / "runbooks").glob("*.md"))
PROGRAM, INSIDE = "python -m workflows ", "operator -- "
BROKEN_ROW = """
    SELECT setval(pg_get_serial_sequence('raw_defillama_pool_history', 'id'), max(id))
    FROM raw_defillama_pool_history;
    INSERT INTO raw_defillama_pool_history (pool_id, timestamp, raw_json_data)
    SELECT pool_id, timestamp + interval '1 minute', '{"apy": "none", "tvlUsd": 1}'
    FROM raw_defillama_pool_history
    LIMIT 1
"""


def commands_of(page: Path) -> list[str]:
    """Return the commands of a page's blocks, and of its sentences and tables."""
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    lines = [line.strip() for block in blocks for line in block.splitlines()]
    rest = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    lines += [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", rest)]
    return [line.removeprefix(PROGRAM) for line in lines if line.startswith(PROGRAM)]


CLOUD_COMMANDS = sorted({command for page in RUNBOOKS for command in commands_of(page)})
INSIDE_COMMANDS = [
    command.removeprefix(INSIDE) for command in CLOUD_COMMANDS if command.startswith(INSIDE)
]


@pytest.mark.parametrize("command", CLOUD_COMMANDS)
def test_a_command_of_a_runbook_is_understood(command: str) -> None:
    found: Any = typer.main.get_command(app)
    arguments = shlex.split(command)
    while hasattr(found, "commands"):
        found = found.commands[arguments.pop(0)]
    assert found.make_context(found.name, arguments).args == []


@pytest.mark.parametrize("command", INSIDE_COMMANDS)
def test_a_command_of_a_runbook_is_allowed_in_the_network(command: str) -> None:
    require_allowed_command(shlex.split(re.sub(r"\bID\b", "1", command)))


def test_a_command_without_its_program_exists() -> None:
    """In sentences and tables, such as `quarantine replay`."""
    paths = {" ".join(path) for path, _ in leaf_commands(local_app)}
    groups = {path.partition(" ")[0] for path in paths if " " in path}
    named = {
        code
        for page in RUNBOOKS
        for code in re.findall(r"`([a-z]+ [a-z-]+)`", page.read_text(encoding="utf-8"))
        if code.partition(" ")[0] in groups
    }
    assert len(named) > 2
    assert named <= paths


@pytest.mark.usefixtures("processes")
def test_the_commands_of_the_runbooks_run_in_the_network(
    run_here: CommandLineHere, database: Settings, engine: Engine
) -> None:
    """After a daily run with a broken row; the commands run in this process."""
    put_daily_run(database, engine)
    execute(engine, BROKEN_ROW)
    run_here.environment |= {"EXECUTOR": "inprocess"}
    assert run_here("calculate_metrics", "--full-refresh").returncode == 0
    (rejected,) = rows_of(engine, "SELECT id FROM yieldspark.quarantine LIMIT 1")
    values = {"RUN_ID": last_run_id(engine), "ID": str(rejected["id"])}
    # the validation reads days of this week, and there is no model to go back to
    codes = {"validate": 1, "models rollback": 1}
    with running() as llama:
        fill(llama, "pool-1")
        llama.pools[0]["tvlUsd"] = 5e7
        run_here.environment |= {
            "DEFILLAMA_YIELDS_URL": llama.url,
            "DEFILLAMA_COINS_URL": llama.url,
        }
        for command in INSIDE_COMMANDS:
            finished = run_here(*filled(command, values))
            assert finished.returncode == codes.get(command, 0), (command, finished.stderr)
            assert "Traceback" not in finished.stderr
            assert finished.stdout + finished.stderr
        assert llama.requested_charts() == ["pool-1"]


def filled(command: str, values: dict[str, str]) -> Sequence[str]:
    """Return the arguments of a command, with values in place of its names in capitals."""
    return [values.get(part, part) for part in shlex.split(command)]


@pytest.mark.parametrize("script", [AT_ONCE, FAILS])
def test_the_commands_of_the_runbooks_about_batches_run(
    script: BatchScript, tmp_path: Path
) -> None:
    """With a batch that has succeeded, or failed. `run` and `submit` have tests of their own."""
    about_batches = [
        command
        for command in CLOUD_COMMANDS
        if command.partition(" ")[0] not in ("operator", "run", "submit")
    ]
    assert {command.partition(" ")[0] for command in about_batches} >= {
        *("list", "logs", "status", "cancel", "cost")
    }
    with served(tmp_path, script) as cloud:
        batch = cloud.run.json(*SUBMIT, "--no-wait")["batch"]
        for command in about_batches:
            finished = cloud.run(*filled(command, {"BATCH": batch}))
            assert finished.returncode == 0, (command, finished.stderr)
            assert "Traceback" not in finished.stderr
        assert (batch in cloud.run("list", "--state", "FAILED").stdout) == (script is FAILS)
