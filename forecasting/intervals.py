"""Forecast intervals from out-of-sample residuals: split conformal prediction with a scale per pool.

Source: Lei, G'Sell, Rinaldo, Tibshirani and Wasserman (2018), "Distribution-free predictive inference for regression", section 5.2 (locally weighted
residuals); one quantile per tail, as in Romano, Patterson and Candès (2019), because moves are skewed. Residuals in scales hold for every pool.
"""

from __future__ import annotations

import math

import numpy as np

from forecasting.targets import Values

MIN_RESIDUALS = 20
"""With fewer, the outer quantiles of an 80 % interval are the extremes themselves, and no interval is published."""


def residual_quantiles(residuals: Values, level: float) -> tuple[float, float]:
    """Lower and upper residual of an interval with coverage `level`; never above and below zero, so that the forecast lies inside.

    Each tail takes the order statistic with the finite-sample correction of n + 1. NaN residuals are left out.
    With fewer than MIN_RESIDUALS there is no interval: (nan, nan).
    """
    known = np.sort(residuals[np.isfinite(residuals)])
    n = known.size
    if n < MIN_RESIDUALS:
        return math.nan, math.nan
    tail = (1.0 - level) / 2.0
    lower = max(math.floor((n + 1) * tail), 1)
    upper = min(math.ceil((n + 1) * (1.0 - tail)), n)
    return min(float(known[lower - 1]), 0.0), max(float(known[upper - 1]), 0.0)
