"""`test`: runs pytest and, in parallel, linter, formatter, type checker and import rules.

The tools run with the whole suite and with `--fast`. If the arguments name files or tests,
pytest runs alone. The output of pytest is followed by one line for each tool and its findings, also
after Ctrl-C or SIGTERM.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO, Annotated

import typer

from cli.app import MACHINE, app
from cli.options import load_command_settings
from cli.terminal import say
from common.errors import Interrupted

ROOT = Path(__file__).resolve().parents[1]

TOOLS = (
    ("ruff", "check", "."),
    ("ruff", "format", "--check", "."),
    ("mypy", "."),
    ("lint-imports", "--no-cache"),
)

# Selects tests that start no other process (markers of tests/support/markers.py)
FAST = "unit and not long"

# Time for the summary of pytest after a signal; its workers are given 10 s to end
SUMMARY_SECONDS = 20.0


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
        try:
            code = _run_pytest([*selection, *context.args], environment)
        except KeyboardInterrupt:
            for tool in tools:
                tool.print_state()
            raise Interrupted("the tests were interrupted before all of them had run") from None
        findings = [tool for tool in tools if not tool.is_clean()]
    # findings of a tool fail a run whose tests passed
    raise typer.Exit(code or bool(findings))


def _run_pytest(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run pytest and return its exit code.

    Raises:
        KeyboardInterrupt: after a signal, when pytest has printed its summary.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", *arguments],
        cwd=ROOT,
        env=environment,
        # Ctrl-C reaches this process only: a second SIGINT would end pytest without a summary
        start_new_session=True,
    )
    with _terminal_signals(process.pid):
        try:
            return process.wait()
        except KeyboardInterrupt:
            _interrupt(process)
            raise


@contextmanager
def _terminal_signals(group: int) -> Iterator[None]:
    """Let the terminal's other signals reach pytest: Ctrl-Z suspends its process group too, and a
    closed terminal interrupts it.
    """

    def suspend(_number: int, _frame: FrameType | None) -> None:
        os.killpg(group, signal.SIGSTOP)
        os.kill(os.getpid(), signal.SIGSTOP)
        os.killpg(group, signal.SIGCONT)

    handlers = {signal.SIGTSTP: suspend, signal.SIGHUP: signal.default_int_handler}
    # a signal that a shell ignores stays ignored
    previous = {
        number: signal.signal(number, handler)
        for number, handler in handlers.items()
        if signal.getsignal(number) == signal.SIG_DFL
    }
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _interrupt(process: subprocess.Popen[bytes]) -> None:
    """Interrupt pytest and its workers; kill them after SUMMARY_SECONDS, or at another signal."""
    # it may have ended by now
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGINT)
    try:
        process.wait(SUMMARY_SECONDS)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        say("pytest is killed before it has printed its summary")
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


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

    def print_state(self) -> None:
        """Print the tool's findings if it has ended, else that it has not."""
        if self.process.poll() is None:
            say(f"{' '.join(self.command)}: not finished")
        else:
            self.is_clean()

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
            # Ctrl-C would make it fail
            start_new_session=True,
        )
        tools.append(Tool(command, process, output))
    try:
        yield tools
    finally:
        for tool in tools:
            tool.process.terminate()
            tool.process.wait()
            tool.output.close()
