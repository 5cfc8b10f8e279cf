"""Fuzz tests of input from outside: files, corrections, answers of DefiLlama, environment
variables.

The four long runs take 30 minutes together (FUZZ_MINUTES) and print their seed; FUZZ_SEED and
FUZZ_CASE repeat a case (`tests/fuzz/cases.py`). The regular suite runs the first cases of a fixed
seed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Connection

from config_spark import Settings
from database.connections.engine import make_engine
from tests.fuzz.api_answers import change_answers, good_world, pull_and_compare
from tests.fuzz.cases import FuzzRun, fuzz_run, require_contract, short_run
from tests.fuzz.corrections import read_and_compare
from tests.fuzz.files import empty, fuzzed_file, load_and_compare
from tests.fuzz.variables import prepare, run_and_check, wrong_environment
from tests.support.defillama_server import running
from tests.support.processes import PROJECT, CommandLine, CommandLineHere

EVERY_TENTH = 10
"""Of the files goes through the command too, and of the variables into a process of its own."""


def finish(run: FuzzRun, capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        print(f"\n{run.report()}")
    require_none(run)


def require_none(run: FuzzRun) -> None:
    if run.failures:
        pytest.fail("\n".join(run.failures), pytrace=False)


@pytest.fixture(scope="module")
def seeds() -> Sequence[Path]:
    """The sample data, and the reported files if they are next to the checkout."""
    samples = sorted((PROJECT / "sample_data").glob("*.parquet"))
    reported = sorted((PROJECT.parent / "shared" / "cases").glob("*.[cptj][sqax]*"))
    return [path for path in (*samples, *reported) if path.suffix in {".csv", ".txt", ".parquet"}]


def run_files(
    run: FuzzRun, here: CommandLineHere, database: Settings, seeds: Sequence[Path]
) -> None:
    with own_connection(database) as connection:
        for case in run.cases():
            rng = case.random
            with run.watched(case):
                empty(connection)
                file = fuzzed_file(rng, here.folder, seeds)
                try:
                    outcome = load_and_compare(database, connection, file, rng)
                    if case.number % EVERY_TENTH == 0:
                        finished = here("load", str(file.path), "--json")
                        require_contract(finished, as_json=True)
                except AssertionError as error:
                    raise AssertionError(f"{file.description}: {error}") from error
                run.outcomes[f"{file.description}: {outcome}"] += 1


@contextmanager
def own_connection(database: Settings) -> Iterator[Connection]:
    """A connection that commits each statement."""
    engine = make_engine(database).execution_options(isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        yield connection


@pytest.mark.long
def test_files(
    run_here: CommandLineHere,
    database: Settings,
    seeds: Sequence[Path],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Changed files for 0.45 of FUZZ_MINUTES: each gives its rows, or one sentence."""
    run = fuzz_run("files", share=0.45)
    run_files(run, run_here, database, seeds)
    finish(run, capsys)


def test_some_files(run_here: CommandLineHere, database: Settings, seeds: Sequence[Path]) -> None:
    run = short_run("files", 25)
    run_files(run, run_here, database, seeds)
    require_none(run)
    assert {name.split(": ")[-1] for name in run.outcomes} == {"loaded", "refused"}


def run_corrections(run: FuzzRun, folder: Path) -> None:
    for case in run.cases():
        with run.watched(case):
            run.outcomes[read_and_compare(case.random, folder)] += 1


@pytest.mark.long
def test_corrections(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Changed corrections for a twentieth of FUZZ_MINUTES."""
    run = fuzz_run("corrections", share=0.05)
    run_corrections(run, tmp_path)
    finish(run, capsys)


def test_some_corrections(tmp_path: Path) -> None:
    run = short_run("corrections", 60)
    run_corrections(run, tmp_path)
    require_none(run)


def run_answers(run: FuzzRun, database: Settings) -> None:
    with own_connection(database) as connection, running() as server:
        settings = database.model_copy(
            update={"defillama_yields_url": server.url, "defillama_coins_url": server.url}
        )
        for case in run.cases():
            rng = case.random
            with run.watched(case):
                empty(connection)
                good_world(rng, server)
                changed = change_answers(rng, server)
                description = f"{changed.description} for {changed.target}"
                try:
                    outcome = pull_and_compare(settings, connection, changed, server)
                except AssertionError as error:
                    raise AssertionError(f"{description}: {error}") from error
                run.outcomes[f"{description}: {outcome}"] += 1


@pytest.mark.long
def test_answers(database: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    """Wrong answers for a third of FUZZ_MINUTES: the good pool is stored, everything else is
    reported.
    """
    run = fuzz_run("answers", share=0.3)
    run_answers(run, database)
    finish(run, capsys)


def test_some_answers(database: Settings) -> None:
    run = short_run("answers", 12)
    run_answers(run, database)
    require_none(run)


def run_variables(run: FuzzRun, here: CommandLineHere, database: Settings) -> None:
    processes = CommandLine(database, here.folder)
    with own_connection(database) as connection, running() as server:
        for line in (here, processes):
            line.environment |= {
                "HOME": str(here.folder),
                "JARS_DIR": str(database.jars_dir),
                "DEFILLAMA_YIELDS_URL": server.url,
                "DEFILLAMA_COINS_URL": server.url,
            }
        for case in run.cases():
            rng, process = case.random, case.number % EVERY_TENTH == EVERY_TENTH - 1
            with run.watched(case):
                empty(connection)
                environment = wrong_environment(rng, process=process)
                prepare(environment, here.folder)
                line = processes if process else here
                try:
                    outcome = run_and_check(line, environment, connection, process=process)
                except AssertionError as error:
                    raise AssertionError(f"{str(environment)[:300]!a}: {error}") from error
                place = "in a process" if process else "here"
                run.outcomes[f"{environment.command[0]} {place}: {outcome}"] += 1


@pytest.mark.long
def test_variables(
    run_here: CommandLineHere,
    jvm: Path,
    database: Settings,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Wrong variables for a fifth of FUZZ_MINUTES: the command works or prints one sentence."""
    run = fuzz_run("variables", share=0.2)
    run_variables(run, run_here, database)
    finish(run, capsys)


def test_some_variables(run_here: CommandLineHere, jvm: Path, database: Settings) -> None:
    run = short_run("variables", 12)
    run_variables(run, run_here, database)
    require_none(run)
