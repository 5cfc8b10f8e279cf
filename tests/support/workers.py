"""pytest plugin: parallel workers, the distribution of tests, and instructions to repeat a failure.

A worker is a session with its own database server, JVM, ports and homes. The order is random
(pytest-randomly), except that the longest tests start first. A failure reports its worker, the
tests before it and the seed.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Generator
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

from cli.doctor.machine import memory_gib

WORKER_GIB = 5
"""Memory of a worker: its JVM, and the JVMs of processes that a test starts."""

FEW_FILES = 3
"""Up to this number of files, a second server and JVM take longer to start than they save."""

LONGEST_FIRST = (
    "test_readme.py",
    "test_terraform_apply.py",
    "test_class_data_sharing.py",
    "test_local_cloud.py",
    "test_faults.py",
    "test_engines.py",
    "test_incremental_histories.py",
    "test_local_environment.py",
    "test_code_archive.py",
)
"""Files with tests, or groups of tests, of more than half a minute, the longest first."""

SPARK_LIST = "spark-tests"
"""File with the ids of tests that use the shared Spark session; workers write it, the controller
reads it.
"""


@pytest.hookimpl(tryfirst=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Return the number of workers for `-n auto`; 0 runs the tests in this process."""
    paths = [Path(argument.partition("::")[0]) for argument in config.args]
    if len(paths) <= FEW_FILES and all(path.is_file() for path in paths):
        return 0
    workers = min(len(os.sched_getaffinity(0)), int(memory_gib() / WORKER_GIB))
    return workers if workers > 1 else 0


class Units(LoadScopeScheduling):  # type: ignore[misc]
    """Scheduler: each test is a unit, unless the tests of its file share fixtures.

    Every second worker prefers tests of the shared Spark session, because a warm JVM is several
    times as fast as a new one.
    """

    def __init__(self, config: pytest.Config, log: Any) -> None:
        super().__init__(config, log)
        self._spark_list = _folder(config) / SPARK_LIST

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return file if shares_fixtures(self.config.rootpath / file) else nodeid

    def _assign_work_unit(self, node: Any) -> None:
        prefers_spark = int(node.gateway.id.removeprefix("gw")) % 2 == 0
        spark_units = {self._split_scope(nodeid) for nodeid in self._spark_tests}
        preferred = (unit for unit in self.workqueue if (unit in spark_units) == prefers_spark)
        self.workqueue.move_to_end(next(preferred, next(iter(self.workqueue))), last=False)
        super()._assign_work_unit(node)

    @cached_property
    def _spark_tests(self) -> list[str]:
        return self._spark_list.read_text(encoding="utf-8").splitlines()


@cache
def shares_fixtures(file: Path) -> bool:
    """Return whether the tests of a file share module fixtures."""
    return 'scope="module"' in file.read_text(encoding="utf-8")


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    config.option.loadscopereorder = False
    return Units(config, log)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    items.sort(key=_place)
    if hasattr(config, "workerinput"):
        spark_tests = [
            item.nodeid for item in items if "spark" in getattr(item, "fixturenames", ())
        ]
        # the controller, which collects nothing, reads it before it hands out the first test
        path = _folder(config) / SPARK_LIST
        partial = path.with_name(f"{SPARK_LIST}-of-{os.environ['PYTEST_XDIST_WORKER']}")
        partial.write_text("\n".join(spark_tests), encoding="utf-8")
        partial.replace(path)


def _place(item: pytest.Item) -> int:
    """Return the place of the item's file in LONGEST_FIRST; the others come last."""
    name = item.path.name
    return LONGEST_FIRST.index(name) if name in LONGEST_FIRST else len(LONGEST_FIRST)


def _folder(config: pytest.Config) -> Path:
    """Return the folder for files that outlive the run."""
    # with -p no:cacheprovider the attribute is missing
    cache: pytest.Cache | None = getattr(config, "cache", None)
    if cache is None:
        raise pytest.UsageError("parallel workers need pytest's cache: drop -p no:cacheprovider")
    return cache.mkdir("workers")


class Order:
    """Records the started tests of a process in a file that pytest accepts as an argument."""

    def __init__(self, config: pytest.Config, folder: Path) -> None:
        self._seed = config.getoption("randomly_seed", None)
        self._worker = os.environ.get("PYTEST_XDIST_WORKER", "main")
        self._file = folder / f"tests-of-{self._worker}"
        self._file.unlink(missing_ok=True)

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        with self._file.open("a", encoding="utf-8") as stream:
            stream.write(f"{nodeid}\n")

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        # a worker can't send lone surrogates, as of a file name in a captured message
        report.sections = [
            (title, text.encode(errors="backslashreplace").decode())
            for title, text in report.sections
        ]
        if report.failed:
            again = f"python run_spark_local.py test -n 0 --randomly-seed={self._seed}"
            report.sections.append(
                (
                    "How to run it again",
                    f"alone: {again} {shlex.quote(report.nodeid)}\n"
                    f"after the tests that worker {self._worker} ran before it:"
                    f" {again} --randomly-dont-reorganize @{self._file}",
                )
            )
        return report


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    is_controller = bool(config.option.tx) and not hasattr(config, "workerinput")
    if is_controller:
        # before any worker starts
        _folder(config)
    elif getattr(config, "cache", None):
        config.pluginmanager.register(Order(config, _folder(config)))
