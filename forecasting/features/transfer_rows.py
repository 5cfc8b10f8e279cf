"""Feature rows of the transfer panel, by the functions of all other rows. Imports no Spark."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa
import pyarrow.compute as pc

from forecasting.features.feature_names import LABELS
from forecasting.features.feature_rows import complete_rows
from forecasting.features.labelled_features import FeatureSpec
from forecasting.features.transfer_panel import panel_metrics


def transfer_rows(spec: FeatureSpec) -> pa.Table:
    """Returns the feature rows of the panel that have a label.

    Nothing after the as-of day of the spec is read, for features or labels. A row knows days up to
    its target day only, so that a fold may learn from each row whose target day is on or before the
    fold's origin.

    Args:
        spec: horizon, level and limits of the run. Its first day does not matter: rows of the panel
            stay useful for years.
    """
    metrics = panel_metrics()
    days = pc.min_max(metrics["date"]).as_py()
    # later days of the spec would be empty columns of every array
    whole = replace(spec, first_day=days["min"], as_of=min(spec.as_of, days["max"]))
    rows = complete_rows(metrics.to_batches(), whole, None)
    has_label = pc.is_valid(rows[LABELS[0]])
    for label in LABELS[1:]:
        has_label = pc.or_(has_label, pc.is_valid(rows[label]))
    return rows.filter(has_label)
