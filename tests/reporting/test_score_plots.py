"""Plots of scores: contents, values off their scale, and labels of features."""

from __future__ import annotations

import re

import numpy as np
import pytest

from forecasting.evaluation.daily_scores import RECENT_DAYS, daily_scores
from forecasting.evaluation.segments import (
    AGE_CLASSES,
    TVL_CLASSES,
    VOLATILITY_CLASSES,
    segment_scores,
)
from forecasting.features.feature_names import feature_names
from forecasting.models.stacked_model import TVL_FORECAST
from reporting.report.feature_labels import feature_label
from reporting.report.score_plots import coverage_plot, ratio_plot, segment_plot
from reporting.report.svg import CHARACTER_WIDTH, WIDTH
from tests.forecasting.test_daily_scores import days
from tests.forecasting.test_scores import evaluation, month


def words(svg: str) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg)


@pytest.mark.parametrize("count", [1, RECENT_DAYS - 1, RECENT_DAYS, 60])
def test_any_number_of_days_has_plots(count: int) -> None:
    scores = daily_scores(days(count))
    for svg, clipped in (
        ratio_plot(scores),
        coverage_plot(scores, 0.8),
    ):
        assert svg.startswith("<svg viewBox=")
        assert "#" not in svg, "all colours are variables of the page"
        assert ("var(--band)" in svg) == (count >= RECENT_DAYS)
        assert clipped == 0
        assert words(svg)


@pytest.mark.parametrize("count", [10, 24, 62])
def test_labels_of_the_last_days_are_not_cut_off(count: int) -> None:
    svg, _ = coverage_plot(daily_scores(days(count)), 0.8)
    labels = re.findall(r'<text x="([\d.]+)"[^>]*text-anchor: middle[^>]*>([^<]*)<', svg)
    assert labels
    for x, label in labels:
        half = CHARACTER_WIDTH * len(label) / 2
        assert half <= float(x) <= WIDTH - half + 0.1, label


def test_a_day_far_worse_than_persistence_is_marked_at_the_edge() -> None:
    rows = days(10)
    spoilt = rows.assign(
        forecast=rows["forecast"].mask(rows["target_date"] == rows["target_date"].min(), 90.0)
    )
    svg, clipped = ratio_plot(daily_scores(spoilt))
    assert clipped == 1
    assert max(float(word) for word in words(svg) if re.fullmatch(r"\d\.\d\d", word)) <= 2.0


def test_a_perfect_persistence_or_no_interval_still_has_a_picture() -> None:
    scores = daily_scores(days(30).assign(persistence=10.0, low=np.nan))
    assert words(ratio_plot(scores)[0])
    assert "80 %" in words(coverage_plot(scores, 0.8)[0])


def test_every_group_of_the_three_classes_is_named_with_its_rows() -> None:
    rows = evaluation(
        tvl_usd=[9e4, 9e5, 9e6, 9e7],
        age_days=[9, 31, 91, 366],
        volatility_scale=[0.001, 0.2, 5.0, 5.0],
        apy_percent=[10.0, 10.0, 10.0, 10.0],
        chain=["Base", "Base", "Base", "Base"],
    )
    groups = segment_scores(rows, 0.8)
    assert {segment.group for segment in groups if segment.by != "chain"} == {
        *TVL_CLASSES,
        *AGE_CLASSES,
        *VOLATILITY_CLASSES,
    }
    texts = words(segment_plot(groups)[0])
    assert "Base" not in texts
    assert texts.count("1") == 4 + 4 + 2
    assert {
        "low",
        "medium",
        "high",
        "under $100K",
        "$100K to $1M",
        "$1M to $10M",
        "over $10M",
        "under 30",
        "30 to 90",
        "90 to 365",
        "over 365",
    } <= {*texts}
    assert not any(name in texts for name in ("<100k", "10M+", "365+", "calm", "wild"))


def test_groups_without_a_ratio_or_noise_have_a_line_too() -> None:
    rows = month(days=3)
    perfect = segment_scores(rows.assign(persistence=rows["actual"]), 0.8)
    svg, clipped = segment_plot([segment for segment in perfect if segment.target == "apy"])
    assert clipped == 0
    assert "12" in words(svg)


def test_a_group_twice_as_wrong_is_at_the_edge_and_counted() -> None:
    rows = evaluation(forecast=[30.0, 11.0], tvl_usd=[9e4, 9e6])
    assert (
        segment_plot(
            [segment for segment in segment_scores(rows, 0.8) if segment.by == "tvl_class"]
        )[1]
        == 1
    )


def test_every_feature_of_the_model_has_its_own_label() -> None:
    names = (*feature_names(market=True), TVL_FORECAST)
    labels = [feature_label(name) for name in names]
    assert len(set(labels)) == len(names)
    assert [
        name
        for name, label in zip(names, labels, strict=True)
        if "_" in label or label == name.replace("_", " ")
    ] == []


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("apy_mean_gap_7", "distance from the 7-day mean"),
        ("tvl_change_30", "TVL: change over 30 days"),
        ("apy_exponential_gap_1", "distance from the exponential mean, half-life 1 day"),
        ("group_tvl_move_mean_yesterday", "mean TVL move of the pool's group, the day before"),
        ("eth_change_1", "ETH price, change over 1 day"),
        ("tvl_forecast_move", "TVL: forecast move"),
        ("something_new", "something new"),
    ],
)
def test_the_label_of_a_feature(name: str, label: str) -> None:
    assert feature_label(name) == label
