"""Tests the suite itself: markers, workers, the text of a failure, and the tools that run in
parallel. Each test runs it on a small project with tests of its own.
"""

from __future__ import annotations

import os
import re
import secrets
import shlex
import signal
import subprocess
import sys
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.fault_runs import TOKEN, processes_with, until
from tests.support.processes import PROJECT
from tests.support.workers import pytest_xdist_auto_num_workers

SMALL_PROJECT = {
    "pyproject.toml": """
[tool.mypy]
strict = true
[tool.importlinter]
root_package = "tests"
[[tool.importlinter.contracts]]
name = "layers"
type = "layers"
layers = ["tests.test_small", "tests.conftest"]
[tool.pytest.ini_options]
testpaths = ["tests"]
addopts = "--strict-markers -n auto"
markers = ["unit: .", "spark: .", "postgres: .", "process: .", "long: ."]
""",
    "tests/conftest.py": """
import pytest

pytest_plugins = ("tests_plugins.markers", "tests_plugins.workers")


@pytest.fixture
def spark() -> str:
    return "a session"


@pytest.fixture
def server() -> str:
    return "settings"


@pytest.fixture
def processes() -> None:
    pass


@pytest.fixture
def engine(server: str) -> str:
    return server
""",
    "tests/test_small.py": """
import subprocess

ORDER: list[str] = []


def test_alone() -> None:
    ORDER.append("alone")


def test_with_spark(spark: str) -> None:
    ORDER.append(spark)


def test_with_a_database(engine: str) -> None:
    ORDER.append(engine)


def test_with_a_process(processes: None) -> None:
    ORDER.append("process")
""",
}


@pytest.fixture
def project(processes: None, tmp_path: Path) -> Path:
    """A project with our plugins under another name, because `tests` is its own package."""
    for name, text in SMALL_PROJECT.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text.lstrip())
    (tmp_path / "tests" / "__init__.py").touch()
    (tmp_path / "tests_plugins").symlink_to(PROJECT / "tests" / "support")
    return tmp_path


def run_pytest(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pytest", *arguments],
        cwd=project,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(PROJECT), "HOME": str(project)},
        capture_output=True,
        text=True,
        check=False,
    )


SHOW_MARKERS = """

def pytest_collection_finish(session: pytest.Session) -> None:
    for item in session.items:
        print(item.name, *sorted(marker.name for marker in item.iter_markers()))
"""


def test_markers_follow_from_fixtures(project: Path) -> None:
    with (project / "tests" / "conftest.py").open("a") as file:
        file.write(SHOW_MARKERS)
    finished = run_pytest(project, "--collect-only", "-q", "-n", "0")
    assert set(re.findall(r"^test_(\w+ .*)$", finished.stdout, re.MULTILINE)) == {
        "alone unit",
        "with_spark spark",
        "with_a_database postgres",
        "with_a_process process",
    }


STARTING_TESTS = """
import os
import subprocess


def test_java(processes: None) -> None:
    subprocess.run(["java", "-version"])


def test_git() -> None:
    subprocess.run(["git", "--version"])


def test_fork() -> None:
    os.fork()


def test_with_its_marker(processes: None) -> None:
    subprocess.run(["true"], check=True)


def test_with_another_marker(spark: str) -> None:
    subprocess.run(["true"], check=True)
"""


def test_a_start_without_its_marker_fails_the_test(project: Path) -> None:
    """Also if the program does not exist."""
    (project / "tests" / "test_small.py").write_text(STARTING_TESTS)
    finished = run_pytest(project, "-n", "0")
    refused = re.findall(r"^E +AssertionError: (.*): take one of", finished.stdout, re.MULTILINE)
    assert sorted(refused) == [
        "git is started by a test that is not marked `process`",
        "java is started by a test that is not marked `spark`",
        "os.fork is started by a test that is not marked `process`",
    ]
    assert "3 failed, 2 passed" in finished.stdout


def test_a_failure_names_seed_and_worker_and_runs_again_in_the_same_order(project: Path) -> None:
    with (project / "tests" / "test_small.py").open("a") as file:
        file.write("\n\ndef test_fails() -> None:\n    assert ORDER == 0\n")
    finished = run_pytest(project, "-n", "2", "-p", "randomly", "--randomly-seed", "7")
    again = re.findall(
        r"^after the tests that worker gw\d ran before it: python run_spark_local.py test (.*)$",
        finished.stdout,
        re.MULTILINE,
    )
    assert (finished.returncode, len(again)) == (1, 1), finished.stdout
    assert "--randomly-seed=7" in again[0]
    order = re.findall(r"assert (\[.*\]) == 0", finished.stdout)
    repeated = run_pytest(project, *shlex.split(again[0]))
    assert re.findall(r"assert (\[.*\]) == 0", repeated.stdout) == order


def test_tests_of_the_shared_session_stay_on_one_of_two_workers(project: Path) -> None:
    lines = [
        f"def test_{fixture or 'alone'}_{number}({fixture}) -> None:\n    pass\n\n"
        for number, fixture in product(range(12), ("spark", ""))
    ]
    (project / "tests" / "test_small.py").write_text("".join(lines))
    finished = run_pytest(project, "-n", "2", "-v")
    passed = re.findall(r"\[(gw\d)\].*PASSED .*::test_(spark|alone)_\d+", finished.stdout)
    assert len(passed) == 24, finished.stdout
    first_half = passed[:12]
    assert {kind for worker, kind in first_half if worker == "gw0"} == {"spark"}
    assert {kind for worker, kind in first_half if worker == "gw1"} == {"alone"}


def test_workers_without_the_cache_are_refused(project: Path) -> None:
    finished = run_pytest(project, "-n", "2", "-p", "no:cacheprovider")
    message = "parallel workers need pytest's cache: drop -p no:cacheprovider"
    assert (finished.returncode, finished.stderr) == (4, f"ERROR: {message}\n\n")
    alone = run_pytest(project, "-n", "0", "-p", "no:cacheprovider")
    assert (alone.returncode, "4 passed" in alone.stdout) == (0, True), alone.stdout


def few(*arguments: str) -> int:
    config: Any = SimpleNamespace(args=list(arguments))
    return pytest_xdist_auto_num_workers(config)


def test_workers_follow_from_cores_memory_and_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr("tests.support.workers.memory_gib", lambda: 62.5)
    assert few("tests") == 8
    assert few("tests/cli/test_suite.py", "tests/cli/test_suite.py::test_x") == 0
    assert few(*["tests/cli/test_suite.py"] * 4) == 8
    monkeypatch.setattr("tests.support.workers.memory_gib", lambda: 15.6)
    assert few("tests") == 3
    monkeypatch.setattr("tests.support.workers.memory_gib", lambda: 7.6)
    assert few("tests") == 0


SUITE = """
import os
import sys
from pathlib import Path

from cli import suite_commands
from cli.main import main

suite_commands.ROOT = Path.cwd()
suite_commands.SUMMARY_SECONDS = float(os.environ.get("SUMMARY_SECONDS", 60))
sys.argv = ["run_spark_local.py", "test", *sys.argv[1:]]
main()
"""


def run_suite(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", SUITE, *arguments],
        cwd=project,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(PROJECT), "HOME": str(project)},
        capture_output=True,
        text=True,
        check=False,
    )


MARKED_BY_NAME = """
from typing import Any


def pytest_collection_modifyitems(items: list[Any]) -> None:
    for item in items:
        item.add_marker(item.name.removeprefix("test_"))
"""


def test_the_fast_lane_runs_the_tools_and_the_unit_tests(project: Path) -> None:
    (project / "tests_plugins").unlink()
    (project / "tests" / "conftest.py").write_text(MARKED_BY_NAME.lstrip())
    functions = [f"def test_{name}() -> None:\n    pass\n" for name in ("unit", "process", "spark")]
    (project / "tests" / "test_small.py").write_text("\n\n".join(functions))
    (project / "unused.py").write_text("import os\n")
    failed = run_suite(project, "--fast", "-n", "0")
    assert (failed.returncode, "1 passed, 2 deselected" in failed.stdout) == (1, True), (
        failed.stderr
    )
    lines = failed.stderr.splitlines()
    assert {"  ruff check .: failed", "  ruff format --check .: no findings"} <= set(lines)
    assert "  mypy .: no findings" in lines
    assert "  lint-imports --no-cache: no findings" in lines
    assert "`os` imported but unused" in failed.stderr
    finished = run_suite(project, "--fast", "-n", "0", "tests/test_small.py")
    assert (finished.returncode, "ruff" in finished.stderr) == (0, False)


INTERRUPTED_TESTS = """
import signal
import time
from pathlib import Path


def test_unit() -> None:
    assert 1 == 2, "a failure"


def test_waits(unit: None) -> None:
    {first}
    Path("waiting").touch()
    time.sleep(600)
"""


def interrupted_suite(
    project: Path, sent: signal.Signals, *arguments: str, group: bool = False, first: str = "pass"
) -> tuple[int, str, str]:
    """Interrupt the suite while its second test waits; return exit code, standard output and
    standard error, when all its processes have ended.
    """
    (project / "tests_plugins").unlink()
    (project / "tests" / "conftest.py").write_text(UNIT_TESTS.lstrip())
    source = INTERRUPTED_TESTS.format(first=first)
    (project / "tests" / "test_small.py").write_text(source.lstrip())
    token = secrets.token_hex(8)
    process = subprocess.Popen(
        [sys.executable, "-c", SUITE, "--fast", "-p", "no:randomly", *arguments],
        cwd=project,
        env={
            "PATH": "/usr/bin:/bin",
            "PYTHONPATH": str(PROJECT),
            "HOME": str(project),
            "SUMMARY_SECONDS": "60" if first == "pass" else "1",
            TOKEN: token,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        until((project / "waiting").exists, "the second test runs", 120)
        os.killpg(process.pid, sent) if group else process.send_signal(sent)
        output, errors = process.communicate(timeout=120)
        until(lambda: not processes_with(token), "every process has ended", 30)
    finally:
        for pid in processes_with(token):
            os.kill(pid, signal.SIGKILL)
    return process.returncode, output, errors


UNIT_TESTS = """
import pytest


@pytest.fixture
def unit() -> None:
    pass


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        item.add_marker("unit")
"""


@pytest.mark.parametrize(
    ("workers", "sent", "group"),
    [("0", signal.SIGTERM, False), ("0", signal.SIGINT, True), ("2", signal.SIGINT, True)],
    ids=["SIGTERM", "Ctrl-C", "Ctrl-C with workers"],
)
def test_interrupted_suite_prints_failures_and_the_state_of_the_tools(
    project: Path, workers: str, sent: signal.Signals, group: bool
) -> None:
    """A terminal sends SIGINT to the whole group. Up to 20 s: workers end 5 s after pytest."""
    code, output, errors = interrupted_suite(project, sent, "-n", workers, group=group)
    assert code == 130, errors
    assert "AssertionError: a failure" in output
    assert re.search(r"(?m)^=+ 1 failed.* in [\d.]+s", output), output
    states = re.findall(r"(?m)^  (ruff|mypy|lint-imports)\b.*: (?:failed|no|not) ?", errors)
    assert sorted(states) == ["lint-imports", "mypy", "ruff", "ruff"], errors
    assert errors.splitlines()[-1] == (
        "error: the tests were interrupted before all of them had run"
    )


def test_suite_that_ignores_an_interrupt_is_killed(project: Path) -> None:
    ignore = "signal.signal(signal.SIGINT, signal.SIG_IGN)"
    code, _, errors = interrupted_suite(project, signal.SIGTERM, "-n", "0", first=ignore)
    assert code == 130, errors
    assert "pytest is killed before it has printed its summary" in errors
    assert "Traceback" not in errors
