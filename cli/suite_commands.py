"""`test`: runs pytest and, in parallel, linter, formatter, type checker and import rules.

The tools run with the whole suite and with `--fast`. If the arguments name files or tests,
pytest runs alone. The output of pytest is followed by one line for each tool and its findings.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Annotated

import typer

from cli.app import MACHINE, app
from cli.options import load_command_settings
from cli.terminal import say

ROOT = Path(__file__).resolve().parents[1]

TOOLS = (
    ("ruff", "check", "."),
    ("ruff", "format", "--check", "."),
    ("mypy", "."),
    ("lint-imports", "--no-cache"),
)

# Selects tests that start no other process (markers of tests/support/markers.py)
FAST = "unit and not long"


@app.command(
    "test",
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    rich_help_panel=MACHINE,
)
def run_suite(
    context: typer.Context,
    fast: Annotated[
        bool, typer.Option("--fast", help="Run only tests that start no other program.")
    ] = False,
) -> None:
    """Run the test suite, ruff, mypy and import-linter; further arguments go to pytest.

    Example: python run_spark_local.py test tests/database/test_run_ledger.py -x
    """
    environment = dict(os.environ) if fast else _environment_with_jars()
    selection = ["-m", FAST] if fast else []
    with _tools_running(() if _names_tests(context.args) else TOOLS) as tools:
        finished = subprocess.run(
            [sys.executable, "-m", "pytest", *selection, *context.args],
            cwd=ROOT,
            env=environment,
            check=False,
        )
        findings = [tool for tool in tools if not tool.is_clean()]
    # findings of a tool fail a run whose tests passed
    raise typer.Exit(finished.returncode or bool(findings))


def _environment_with_jars() -> dict[str, str]:
    """Return the environment with JARS_DIR, after all jars have been fetched.

    Raises:
        EnvironmentNotReady: a jar cannot be fetched.
    """
    from local_runtime import jars as local_jars
    from spark.jar_sets import jars_folder

    settings = load_command_settings()
    local_jars.prepare_process()
    local_jars.ensure_jars(jars_folder(settings), say)
    return {**os.environ, "JARS_DIR": str(jars_folder(settings))}


def _names_tests(arguments: Sequence[str]) -> bool:
    return any((ROOT / argument.partition("::")[0]).exists() for argument in arguments)


@dataclass(frozen=True)
class Tool:
    """A running tool. Its output is a file, so that the tool never waits for a reader."""

    command: tuple[str, ...]
    process: subprocess.Popen[bytes]
    output: IO[bytes]

    def is_clean(self) -> bool:
        """Wait for the tool, print its findings, and return whether there are none."""
        code = self.process.wait()
        say(f"{' '.join(self.command)}: {'failed' if code else 'no findings'}")
        if code:
            self.output.seek(0)
            sys.stderr.write(self.output.read().decode(errors="replace"))
        return code == 0


@contextmanager
def _tools_running(commands: Sequence[tuple[str, ...]]) -> Iterator[list[Tool]]:
    """Start the tools, and end those that still run at the end of the block."""
    tools = []
    for command in commands:
        output = tempfile.TemporaryFile()  # noqa: SIM115 - closed below
        process = subprocess.Popen(
            # the pinned tools of this environment, not others on PATH
            [str(Path(sys.executable).with_name(command[0])), *command[1:]],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        tools.append(Tool(command, process, output))
    try:
        yield tools
    finally:
        for tool in tools:
            tool.process.terminate()
            tool.process.wait()
            tool.output.close()
