"""Names of the model's features in plain words, for explanations and drift.

In: a name of `forecasting.features.feature_frame` or of the stacked TVL forecast. Out: words; what
is about TVL says so, all else about a pool is about its APY.
"""

from __future__ import annotations

import re

WORDS = {
    r"move_0": "last move",
    r"move_(\d+)": r"move of \1 days before",
    r"(mean|median)_gap_(\d+)": r"distance from the \2-day \1",
    r"lowest_gap_(\d+)": r"distance from the \1-day low",
    r"highest_gap_(\d+)": r"distance from the \1-day high",
    r"exponential_gap_(\d+)": r"distance from the exponential mean, half-life \1 days",
    r"gap_(\d+)": r"distance from \1 days ago",
    r"change_(\d+)": r"change over \1 days",
    r"std_(\d+)": r"spread over \1 days",
    r"abs_move_(\d+)": r"mean size of a move, \1 days",
    r"still_share_(\d+)": r"share of days without a move, \1 days",
    r"momentum_slope": "how far moves follow the move before",
    r"momentum_step": "next step by the last move",
    r"reversion_(\d+)_slope": r"how far it goes back to the \1-day mean",
    r"reversion_(\d+)_step": r"step back to the \1-day mean",
    r"spike": "spike on the day",
    r"spike_yesterday": "spike the day before",
    r"spike_share_(\d+)": r"share of spikes, \1 days",
    r"level": "level",
    r"scale_relative": "usual move beside the level",
    r"scale_level": "usual move",
    r"forecast_move": "forecast move",
}
"""After the target's prefix."""
OTHER_WORDS = {
    "flow_gap": "distance from what it paid lately at today's TVL",
    "age_days": "age of the pool",
    "observed_30": "days observed, of 30",
    "days_since_observed": "days since it was observed",
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
    """Words for a feature; a name that is not known here is given back with spaces."""
    if name in OTHER_WORDS:
        return OTHER_WORDS[name]
    if found := MARKET.fullmatch(name):
        return (
            f"{found[1].upper() if found[1] != 'gas' else 'gas'} price, change over {found[2]}"
            f" day{'s' if found[2] != '1' else ''}"
        )
    if found := CROSS_SECTION.fullmatch(name):
        return (
            f"{STATISTICS[found[2]]} of {SCOPES[found[1]]}{', the day before' if found[3] else ''}"
        )
    return _of_target(name) or name.replace("_", " ")


def _of_target(name: str) -> str | None:
    target, _, rest = name.partition("_")
    for pattern, words in WORDS.items():
        if target in ("apy", "tvl") and (found := re.fullmatch(pattern, rest)):
            said = found.expand(words).replace(" 1 days", " 1 day")
            return f"TVL: {said}" if target == "tvl" else said
    return None
