"""The summary of daily forecasts by both executors, from given seconds."""

from __future__ import annotations

from benchmarks.forecast_executors import result_text, summarize
from benchmarks.processes import Timing


def timing(seconds: float, cpu_seconds: float, peak_mb: float, fit: float) -> Timing:
    stages = {"fit_apy": fit, "features": 1.0}
    return Timing("run", seconds, cpu_seconds, peak_mb, 0.0, "succeeded", seconds, stages, {})


def test_medians_and_goals_of_runs_without_a_jvm() -> None:
    runs = [timing(9.0, 12.0, 500.0, 3.0), timing(7.0, 11.0, 700.0, 2.0)]
    champion = summarize("champion", "inprocess", runs)
    assert (champion.seconds, champion.cpu_seconds, champion.peak_mb) == (8.0, 11.5, 700.0)
    assert champion.stages == {"fit_apy": 2.5, "features": 1.0}
    refit = summarize("refit", "inprocess", [timing(46.5, 60.0, 900.0, 30.0)])
    on_spark = summarize("refit", "spark", [timing(99.0, 90.0, 2000.0, 30.0)])
    *_, first, second = result_text([champion, refit, on_spark]).splitlines()
    assert first == "champion: 8.0 s, goal 8 s: hit"
    assert second == "refit: 46.5 s, goal 45 s: missed by 1.5 s"
