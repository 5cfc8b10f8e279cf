"""What a Python worker loads before its first row: seconds of every small run."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from pyspark.serializers import CloudPickleSerializer
from pyspark.sql import types as T

from database.staging_tags import tagged_by_task
from database.transport import PortableQuery
from database.transport_adbc import _reader, _writer

PROJECT = Path(__file__).resolve().parents[1]

UNPICKLE = "import json, pickle, sys; pickle.load(sys.stdin.buffer); print(json.dumps(sorted(sys.modules)))"
QUERY = PortableQuery("SELECT 1 AS one", T.StructType([T.StructField("one", T.IntegerType())]))


@pytest.mark.parametrize(
    "task", [_writer("postgresql://", "yieldspark", "staging"), _reader("postgresql://", QUERY, None), tagged_by_task], ids=["write", "read", "tag"]
)
def test_a_task_loads_neither_sqlalchemy_nor_the_settings(task: Callable[..., object]) -> None:
    pickled: bytes = CloudPickleSerializer().dumps(task)  # type: ignore[no-untyped-call]
    done = subprocess.run([sys.executable, "-c", UNPICKLE], cwd=PROJECT, input=pickled, capture_output=True, check=True)
    loaded = json.loads(done.stdout)
    assert "pyarrow" in loaded
    assert {"sqlalchemy", "pydantic", "config_spark"}.isdisjoint(loaded)
