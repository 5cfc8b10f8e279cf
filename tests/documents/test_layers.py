"""Import rules that import-linter (`pyproject.toml`) cannot check: what a process loads."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.support.processes import PROJECT

# an API computes features and publishes forecasts with these modules, without Spark
MODULES_WITHOUT_SPARK = (
    "forecasting/features/feature_names.py",
    "forecasting/features/labelled_features.py",
    "forecasting/features/pool_features.py",
    "forecasting/features/pool_history.py",
    "forecasting/publishing/publish.py",
    "forecasting/registry/serving.py",
    "forecasting/registry/versions.py",
    "forecasting/run/plan.py",
)

MODULES_OF_A_RUN_IN_PROCESS = (
    "data_processing/calculate_pool_metrics_spark.py",
    "data_processing/executors/in_process.py",
    "data_processing/executors/partition_process.py",
    "database/staging.py",
    "forecasting/executors/in_process.py",
    "forecasting/features/feature_rows.py",
    "forecasting/forecast_pools_spark.py",
    "forecasting/run/execution.py",
)


@pytest.mark.usefixtures("processes")
@pytest.mark.parametrize("folder", ["workflows", "data_processing/planning", "reporting"])
def test_a_folder_that_runs_without_spark_imports_none(folder: str) -> None:
    """Commands of the cloud, a plan and a report start within a second, and need no Java."""
    assert_imports_no_spark(
        [path.relative_to(PROJECT).as_posix() for path in (PROJECT / folder).rglob("*.py")]
    )


@pytest.mark.usefixtures("processes")
@pytest.mark.parametrize("modules", [MODULES_WITHOUT_SPARK, MODULES_OF_A_RUN_IN_PROCESS])
def test_modules_without_a_jvm_import_no_spark(modules: Iterable[str]) -> None:
    assert_imports_no_spark(modules)


def assert_imports_no_spark(paths: Iterable[str]) -> None:
    modules = sorted(".".join(Path(path).with_suffix("").parts) for path in paths)
    imports = "; ".join(f"import {name}" for name in modules if not name.endswith("__main__"))
    heavy = "{'pyspark', 'py4j', 'lightgbm'}"
    finished = subprocess.run(
        [sys.executable, "-c", f"import sys; {imports}; print(sorted({heavy} & set(sys.modules)))"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.stdout == "[]\n", finished.stdout + finished.stderr
