"""The sample as a source of today: history, prices and gas are moved by the same number of days, so
that a daily run has data of yesterday and its validation finds no missing day.
"""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sample_data import SAMPLE_FILES

HISTORY, DESCRIPTIONS = "pool_history.parquet", "pools.parquet"
TIME = "timestamp"


def write_current_sample(folder: Path, last_day: date) -> list[Path]:
    """Write the sample's files with pool history that ends on a day.

    Args:
        folder: Receives the files.
        last_day: Last UTC day of the pool history.

    Returns:
        The files.
    """
    tables = {path.name: pq.read_table(path) for path in SAMPLE_FILES}
    newest = pc.max(tables[HISTORY][TIME]).as_py().date()
    move = pa.scalar(timedelta(days=(last_day - newest).days), pa.duration("us"))
    written = []
    for name, table in tables.items():
        moved = pc.add(table[TIME], move) if name != DESCRIPTIONS else table[TIME]
        index = table.column_names.index(TIME)
        pq.write_table(table.set_column(index, TIME, moved), folder / name)
        written.append(folder / name)
    return written
