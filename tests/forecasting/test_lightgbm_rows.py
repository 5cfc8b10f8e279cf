"""Parallel fits of native LightGBM, on rows that need no Spark."""

from __future__ import annotations

import datetime as dt
import threading

import lightgbm
import numpy as np
import pandas as pd
import pytest

from forecasting.engines.engine import Objective
from forecasting.engines.folds import ONE_DAY, DaySpan
from forecasting.engines.lightgbm_engine import LightgbmRows
from forecasting.engines.model_parameters import ModelParameters

DAY = dt.date(2024, 1, 1)
OUTSIDE = 2.0
"""A quantile that LightGBM refuses, when it fits."""


def test_a_fit_that_fails_leaves_no_thread_that_waits_for_its_rows() -> None:
    """Such a thread would keep the process from ending: the interpreter waits for it."""
    values = np.random.default_rng(5).standard_normal((200, 1)).astype(np.float32)
    frame = pd.DataFrame(
        {
            "pool_id": [f"p{number:03d}" for number in range(len(values))],
            "date": pd.Timestamp(DAY),
            "label": values[:, 0],
        }
    )
    parameters = ModelParameters(seed=1, threads=1, rounds=2)
    rows = LightgbmRows(frame, values, ("signal",), {"label": {DAY: len(values)}}, parameters)
    before = set(threading.enumerate())
    with pytest.raises(lightgbm.basic.LightGBMError):
        rows.fit([Objective("label", alpha=OUTSIDE)] * 5, DaySpan(DAY, DAY + ONE_DAY))
    workers = set(threading.enumerate()) - before
    for worker in workers:
        worker.join(timeout=10.0)
    assert [worker.name for worker in workers if worker.is_alive()] == []
