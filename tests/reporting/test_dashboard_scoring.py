"""The scores of the page Quality: their process, their progress and their errors."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from typing import Any

import pandas as pd
import pytest
from sqlalchemy import Engine, text
from streamlit.testing.v1 import AppTest

from common.errors import DatabaseUnreachable, ProcessLost
from config_spark import Settings
from reporting.dashboard import connection, scoring
from reporting.dashboard.connection import data_version
from reporting.dashboard.scores import STEPS, compute_scores
from reporting.dashboard.scoring import Scoring, scoring_of
from tests.support.dashboard_pages import shown_text
from tests.support.report_store import fill

SECONDS = 60.0
SCRIPT = "from reporting.dashboard.views import quality\nquality.show()\n"


@pytest.fixture(autouse=True)
def _nothing_kept() -> Iterator[None]:
    scoring._kept.clear()
    yield
    scoring._kept.clear()


def _as_text(scores: Any) -> str:
    """Every number of scores, for a comparison: frames have no equality."""
    frames = {name: frame.to_csv() for name, frame in scores.by_day.items()}
    return repr((scores.scores, frames, scores.segments, scores.errors, scores.reliability))


@pytest.mark.usefixtures("processes")
def test_the_process_computes_the_scores_and_a_killed_one_is_named(
    database: Settings, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(engine)
    connection.use(database)
    version = data_version()
    found = scoring_of(version)
    assert found.ended.wait(SECONDS)
    assert found.error is None
    expected = compute_scores(connection.connected().engine)
    assert expected is not None
    assert _as_text(found.scores) == _as_text(expected)
    assert found.step == len(STEPS) - 1
    assert scoring_of(version) is found, "a version is scored once"
    assert not scoring._children

    start = subprocess.Popen

    def killed(*arguments: Any, **options: Any) -> subprocess.Popen[bytes]:
        process = start(*arguments, **options)
        os.kill(process.pid, signal.SIGKILL)
        return process

    monkeypatch.setattr(subprocess, "Popen", killed)
    scoring._kept.clear()
    lost = scoring_of(version)
    assert lost.ended.wait(SECONDS)
    assert isinstance(lost.error, ProcessLost)
    assert "exit code -9" in str(lost.error)
    assert scoring_of(version) is lost, "a visitor sees the error before it is computed again"


def _page(settings: Settings, scored: Scoring) -> AppTest:
    connection.use(settings)
    scoring._kept[data_version()] = scored
    return AppTest.from_string(SCRIPT, default_timeout=SECONDS).run()


def test_a_page_without_scores_shows_their_progress(database: Settings, engine: Engine) -> None:
    fill(engine)
    page = _page(database, Scoring(step=2))
    assert not page.exception
    (bar,) = page.get("progress")
    assert f"{STEPS[2]} (step 3 of {len(STEPS)}" in bar.proto.text
    assert bar.proto.value == pytest.approx(100 * 2 / len(STEPS), abs=1)
    assert "Promotions" in shown_text(page), "the other parts do not wait"


def test_scores_that_failed_are_the_error_of_the_page(database: Settings, engine: Engine) -> None:
    fill(engine)
    failed = Scoring(error=DatabaseUnreachable("nothing answers"), failed_at=float("inf"))
    failed.ended.set()
    page = _page(database, failed)
    assert [error.value for error in page.exception] == ["nothing answers"]


def test_a_failed_scoring_is_repeated_later() -> None:
    assert not Scoring().is_to_repeat
    assert not Scoring(error=ProcessLost("killed"), failed_at=float("inf")).is_to_repeat
    assert Scoring(error=ProcessLost("killed"), failed_at=float("-inf")).is_to_repeat


def test_scores_by_day_agree_with_sql(engine: Engine) -> None:
    fill(engine)
    with engine.begin() as session:
        # another engine and another horizon are no part of them
        session.execute(
            text(
                "INSERT INTO yieldspark.forecast_evaluation (pool_id, target_date, horizon_days,"
                " target, engine, as_of, actual, forecast, persistence, model_version, run_id)"
                " SELECT 'p1', '2025-10-05', h, 'apy', e, '2025-10-04', 1, 1000, 1, 'm', 'r'"
                " FROM (VALUES (7, 'lightgbm'), (1, 'other')) AS v (h, e)"
            )
        )
        expected = pd.DataFrame(
            session.execute(
                text("""
SELECT target_date, count(*) AS rows,
    sum(abs(actual - forecast)) / sum(abs(actual - persistence)) AS mae_ratio,
    avg((actual BETWEEN low AND high)::int)::float8 AS coverage
FROM yieldspark.forecast_evaluation
WHERE target = 'apy' AND engine = 'lightgbm' AND horizon_days = 1
GROUP BY target_date
ORDER BY target_date
""")
            ).all()
        )
    scores = compute_scores(engine)
    assert scores is not None
    found = scores.by_day["apy"][["target_date", "rows", "mae_ratio", "coverage"]]
    pd.testing.assert_frame_equal(found.reset_index(drop=True), expected)
