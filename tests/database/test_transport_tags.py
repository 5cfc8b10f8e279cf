"""Modules that a Python worker imports before its first row, which takes time
in every small run.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from pyspark.serializers import CloudPickleSerializer
from pyspark.sql import types as T

from data_processing.metrics.market_columns import market_columns
from data_processing.metrics.pool_metrics import SCHEMA, Provenance, compute_pool_metrics
from database.connections.session_check import ServerIdentity, TaskSession
from database.transport.adbc import _reader, _writer
from database.transport.query import ArrowTransform, PortableQuery, tag_rows
from database.transport.tags import add_tag_columns

PROJECT = Path(__file__).resolve().parents[2]

UNPICKLE = (
    "import json, pickle, sys; pickle.load(sys.stdin.buffer);"
    " print(json.dumps(sorted(sys.modules)))"
)
SESSION = TaskSession("host=nowhere", "nowhere", "somebody", {}, ServerIdentity("", "", ()))
DAYS = compute_pool_metrics(7, market_columns(()), Provenance("raw", "run"))
QUERY = PortableQuery("SELECT 1 AS one", T.StructType([T.StructField("one", T.IntegerType())]))


@pytest.mark.parametrize(
    "task",
    [
        _writer(SESSION, "yieldspark.staging", tag_rows(ArrowTransform(DAYS, SCHEMA))),
        _reader(SESSION, QUERY, None),
        add_tag_columns(None),
        DAYS,
    ],
    ids=["write", "read", "tag", "days"],
)
@pytest.mark.usefixtures("processes")
def test_task_imports_neither_sqlalchemy_nor_the_settings(task: Callable[..., object]) -> None:
    pickled: bytes = CloudPickleSerializer().dumps(task)  # type: ignore[no-untyped-call]
    finished = subprocess.run(
        [sys.executable, "-c", UNPICKLE],
        cwd=PROJECT,
        input=pickled,
        capture_output=True,
        check=True,
    )
    loaded = json.loads(finished.stdout)
    assert "pyarrow" in loaded
    assert {"sqlalchemy", "pydantic", "config_spark"}.isdisjoint(loaded)
