"""Labels of the model's features, for explanations and drift.

Converts a name of `forecasting.features.feature_names`, or of the TVL forecast, into a label.
Labels of TVL features say so; all others of a pool are about APY.
"""

from __future__ import annotations

import re

# patterns of the name after the prefix `apy_` or `tvl_`
TARGET_LABELS = {
    r"move_0": "last move",
    r"move_(\d+)": r"move \1 days before",
    r"(mean|median)_gap_(\d+)": r"distance from the \2-day \1",
    r"lowest_gap_(\d+)": r"distance from the \1-day low",
    r"highest_gap_(\d+)": r"distance from the \1-day high",
    r"exponential_gap_(\d+)": r"distance from the exponential mean, half-life \1 days",
    r"gap_(\d+)": r"distance from \1 days ago",
    r"change_(\d+)": r"change over \1 days",
    r"std_(\d+)": r"spread over \1 days",
    r"abs_move_(\d+)": r"mean size of a move, \1 days",
    r"still_share_(\d+)": r"share of days without a move, \1 days",
    r"momentum_slope": "dependence of moves on the previous move",
    r"momentum_step": "next step from the last move",
    r"reversion_(\d+)_slope": r"strength of reversion to the \1-day mean",
    r"reversion_(\d+)_step": r"step towards the \1-day mean",
    r"spike": "spike on the day",
    r"spike_yesterday": "spike the day before",
    r"spike_share_(\d+)": r"share of spikes, \1 days",
    r"level": "level",
    r"scale_relative": "usual move relative to the level",
    r"scale_level": "usual move",
    r"forecast_move": "forecast move",
}
OTHER_LABELS = {
    "flow_gap": "distance from the APY of recent payments at today's TVL",
    "age_days": "age of the pool",
    "observed_30": "observed days of the last 30",
    "days_since_observed": "days since the last observation",
    "weekday": "day of the week",
}
STATISTICS = {
    "move_mean": "mean move",
    "move_median": "median move",
    "move_dispersion": "spread of moves",
    "up_share": "share that rose",
    "tvl_move_mean": "mean TVL move",
}
SCOPES = {"all": "all pools", "group": "the pool's group"}
MARKET = re.compile(r"(eth|btc|gas)_change_(\d+)")
CROSS_SECTION = re.compile(rf"({'|'.join(SCOPES)})_({'|'.join(STATISTICS)})(_yesterday)?")


def feature_label(name: str) -> str:
    """Returns the label of a feature; an unknown name with spaces for underscores."""
    if name in OTHER_LABELS:
        return OTHER_LABELS[name]
    if match := MARKET.fullmatch(name):
        series, days = match[1], match[2]
        symbol = "gas" if series == "gas" else series.upper()
        return f"{symbol} price, change over {days} day{'s' if days != '1' else ''}"
    if match := CROSS_SECTION.fullmatch(name):
        scope, statistic, yesterday = SCOPES[match[1]], STATISTICS[match[2]], match[3]
        return f"{statistic} of {scope}{', the day before' if yesterday else ''}"
    return _of_target(name) or name.replace("_", " ")


def _of_target(name: str) -> str | None:
    target, _, rest = name.partition("_")
    if target not in ("apy", "tvl"):
        return None
    # the first match counts: `move_0` has a label of its own
    for pattern, template in TARGET_LABELS.items():
        if match := re.fullmatch(pattern, rest):
            label = match.expand(template).replace(" 1 days", " 1 day")
            return f"TVL: {label}" if target == "tvl" else label
    return None
