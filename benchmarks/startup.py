"""Measures commands that have nothing to compute, as whole processes: `--help`, the inspecting
commands, both jobs without changes, and a second demo.

Runs the demo once in a temporary home, not timed; its embedded server keeps running. Each command
then runs several times, in turns. Seconds are wall time; processor seconds are those of the process
and its descendants, without the server. A clone needs its `.venv`: without one, every start also
compares the installed packages with the pins.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage
from statistics import median
from time import monotonic
from typing import Any

from benchmarks.forecast_data import COMMAND
from benchmarks.metrics_data import Say
from benchmarks.metrics_table import machine_facts
from config_spark import load_settings
from database.embedded.server import EmbeddedServer
from spark.jar_sets import jars_folder

REPEAT = 3

GOALS = {
    "--help": 0.5,
    "status": 1.5,
    "doctor": 1.5,
    "evaluate": 1.5,
    "report": 1.5,
    "calculate_metrics": 2.0,
    "forecast_pools": 2.0,
    "demo": 12.0,
}
"""Largest wall seconds of each command on an idle machine with two cores."""

UNCHANGED = ("calculate_metrics", "forecast_pools")
"""Jobs that must end as `nothing_to_do`: otherwise the figures are of another case."""

FINDS_PROBLEMS = ("doctor",)
"""Commands whose exit code 1 is a finding about the machine."""


@dataclass(frozen=True)
class Start:
    """One command.

    Attributes:
        command: the command line after `run_spark_local.py`.
        seconds: median of the wall seconds.
        cpu_seconds: median of the processor seconds.
        goal: largest wall seconds.
    """

    command: str
    seconds: float
    cpu_seconds: float
    goal: float


def environment_of_home(home: Path) -> Mapping[str, str]:
    """Return the variables of a user whose home is this folder and who has no database."""
    user_settings = load_settings()
    # no PYTHONPATH either: with it, `run_spark_local.py` starts a second interpreter
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("DB_") and name != "PYTHONPATH"
    }
    return inherited | {
        "YIELDSPARK_HOME": str(home),
        "JARS_DIR": str(jars_folder(user_settings)),
        "REPORT_DIR": str(home / "reports"),
    }


def measure_starts(commands: Sequence[str], home: Path, *, repeat: int, say: Say) -> list[Start]:
    """Run the demo once, then the commands in turns.

    Args:
        commands: keys of GOALS.
        home: an empty folder.
        repeat: number of runs of each command.
        say: receives progress lines.

    Raises:
        RuntimeError: a command failed, or a job had something to do.
    """
    variables = environment_of_home(home)
    seconds, _ = _run("demo", variables, home)
    say(f"first demo: {seconds:.1f} s")
    timings: dict[str, list[tuple[float, float]]] = {command: [] for command in commands}
    for _ in range(repeat):
        for command in commands:
            timings[command].append(_run(command, variables, home))
            say(f"{command}: {timings[command][-1][0]:.2f} s")
    starts = []
    for command, runs in timings.items():
        wall = round(median(seconds for seconds, _ in runs), 2)
        cpu = round(median(seconds for _, seconds in runs), 2)
        starts.append(Start(command, wall, cpu, GOALS[command]))
    return starts


def _run(command: str, variables: Mapping[str, str], folder: Path) -> tuple[float, float]:
    """Wall and processor seconds of one process."""
    has_json = not command.startswith("-")
    line = [*COMMAND, command, *(["--json"] if has_json else [])]
    before, started = getrusage(RUSAGE_CHILDREN), monotonic()
    process = subprocess.run(
        line, env=dict(variables), cwd=folder, capture_output=True, text=True, check=False
    )
    seconds, after = monotonic() - started, getrusage(RUSAGE_CHILDREN)
    if process.returncode and not (process.returncode == 1 and command in FINDS_PROBLEMS):
        raise RuntimeError(f"{command} failed: {process.stderr[-2000:].strip()}")
    if command in UNCHANGED and (status := json.loads(process.stdout)["status"]) != "nothing_to_do":
        raise RuntimeError(f"{command} ended as {status}, not as nothing_to_do")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return seconds, cpu


def result_text(starts: Sequence[Start]) -> str:
    """Describe each command and its goal in one line."""
    return "\n".join(
        f"{start.command:<18} {start.seconds:6.2f} s {start.cpu_seconds:6.2f} s processor   goal"
        f" {start.goal:4.1f} s: {_verdict(start)}"
        for start in starts
    )


def _verdict(start: Start) -> str:
    if start.seconds <= start.goal:
        return "hit"
    return f"missed by {start.seconds - start.goal:.2f} s"


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.startup", description=__doc__)
    parser.add_argument("--repeat", type=int, default=REPEAT, help=f"default: {REPEAT}")
    parser.add_argument("--only", help="only these commands, separated by commas")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args(argv)
    commands = options.only.split(",") if options.only else list(GOALS)
    if unknown := set(commands) - set(GOALS):
        parser.error(f"no such command: {', '.join(sorted(unknown))}; allowed: {', '.join(GOALS)}")
    facts: dict[str, Any] = machine_facts()
    if not options.json:
        print(*(f"{name}: {value}" for name, value in facts.items()), sep="\n", flush=True)

    def say(line: str) -> None:
        if not options.json:
            print(f"  {line}", flush=True)

    with tempfile.TemporaryDirectory(prefix="yieldspark-benchmark-") as folder:
        home = Path(folder)
        try:
            starts = measure_starts(commands, home, repeat=options.repeat, say=say)
        finally:
            EmbeddedServer(home).reset()
    if options.json:
        print(json.dumps(facts | {"starts": [asdict(start) for start in starts]}, indent=2))
    else:
        print(result_text(starts))


if __name__ == "__main__":
    main()
