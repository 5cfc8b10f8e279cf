"""Corrected values for quarantined rows, from a file or the command line.

In: JSON lines (`{"id": 7, "apy": 4.2}`) or CSV (`id,apy,tvlUsd`), which is read as `load` reads it.
Out: for each quarantine id the keys to replace in its raw JSON, as JSON text. APY in percent, TVL
in USD, as the source writes them. Whether a value is good is the checks' business, not this
module's.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from common.errors import InputError
from data_processing.checks.row_checks import NUMBER
from data_processing.files.cells import texts
from data_processing.files.file_tables import FileTable, open_file
from data_processing.files.number_format import (
    DecimalSign,
    SignsSeen,
    decimal_sign,
    given_sign,
    signs_seen,
    with_point,
)

KEYS = ("apy", "tvlUsd", "apyBase", "apyReward", "il7d", "apyBase7d")
"""What DefiLlama writes for a snapshot, and what may be corrected of it."""


def read_corrections(path: Path, decimal: str | None = None) -> dict[int, str]:
    """Corrections by quarantine id, of a .jsonl or .csv file.

    Args: decimal is `.` or `,` where the numbers of CSV can be read with either.
    Raises: InputError naming file, line and what is wrong there.
    """
    given = given_sign(decimal)
    kind = path.suffix.lower()
    if kind not in {".jsonl", ".csv"}:
        raise InputError(
            f"{path}: corrections come as .jsonl (one object a line, with an id) or .csv (a header"
            " with id)"
        )
    corrections: dict[int, str] = {}
    for place, values in _json_lines(path) if kind == ".jsonl" else _csv_rows(path, given):
        row_id = _id(place, values.pop("id", None))
        if row_id in corrections:
            raise InputError(f"{place}: row {row_id} is corrected twice")
        corrections[row_id] = correction(place, values)
    if not corrections:
        raise InputError(f"{path} has no corrections in it")
    return corrections


def correction_of_value(value: str) -> str:
    """The correction that `--value` gives. Raises: InputError."""
    return correction("--value", _object("--value", value))


def correction(place: str, values: Mapping[str, Any]) -> str:
    """JSON text of the keys to replace. Raises: InputError where there are none, or others than a
    snapshot has.
    """
    unknown = [name for name in values if name not in KEYS]
    if unknown or not values:
        wrong = (
            f"{unknown[0]!r} is no key of a snapshot" if unknown else "there is no value to replace"
        )
        raise InputError(f"{place}: {wrong}; give {', '.join(KEYS)}")
    try:
        return json.dumps(values, allow_nan=False)
    except ValueError as error:
        raise InputError(f"{place}: a number is too large for JSON: {error}") from error


def _json_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        content = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} can't be read as UTF-8 text: {error}") from error
    for number, line in enumerate(content.splitlines(), start=1):
        if line.strip():
            yield f"{path}:{number}", _object(f"{path}:{number}", line)


def _object(place: str, line: str) -> dict[str, Any]:
    try:
        # NaN and Infinity are no JSON: as texts they are judged like any other
        values = json.loads(line, parse_constant=str)
    # no JSON, an integer of more digits than Python reads, or nested too deeply
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{place}: {line.strip()[:80]!r} can't be read as JSON: {error}"
        ) from error
    if not isinstance(values, dict):
        raise InputError(
            f'{place}: {line.strip()[:80]!r} is no JSON object, such as {{"apy": 4.2}}'
        )
    return values


def _csv_rows(path: Path, given: DecimalSign | None) -> Iterator[tuple[str, dict[str, Any]]]:
    """An empty cell replaces nothing; a cell that is no number stays text."""
    table = open_file(path)
    if twice := [name for name in table.columns if table.columns.count(name) > 1]:
        raise InputError(
            f"{path} has {table.columns.count(twice[0])} columns {twice[0][:30]!r}; keep one"
        )
    signs = _decimal_signs(table, given)
    for batch in table.batches():
        if batch.ragged:
            raise InputError(
                f"{path}:{batch.ragged[0].row_number}: the row has not as many values as the header"
            )
        columns = [
            with_point(texts(path.name, batch.table.column(name)), signs[name]).to_pylist()
            for name in table.columns
        ]
        for number, row in zip(batch.row_numbers, zip(*columns, strict=True), strict=True):
            cells = dict(zip(table.columns, row, strict=True))
            yield (
                f"{path}:{number}",
                {
                    name: cell if name == "id" else _value(cell)
                    for name, cell in cells.items()
                    if cell is not None
                },
            )


def _decimal_signs(table: FileTable, given: DecimalSign | None) -> dict[str, DecimalSign]:
    seen = dict.fromkeys((name for name in table.columns if name != "id"), SignsSeen())
    for batch in table.batches():
        for name in seen:
            seen[name] |= signs_seen(texts(table.path.name, batch.table.column(name)))
    found = {
        name: decimal_sign(
            f"column {name} of {table.path}",
            signs,
            list(seen.values()),
            delimiter=table.delimiter,
            given=given,
        )
        for name, signs in seen.items()
    }
    return {"id": ".", **found}


def _value(cell: str) -> int | float | str:
    """A number where the cell is one that JSON can hold, else its text."""
    if re.fullmatch(r"-?[0-9]{1,30}", cell):
        return int(cell)
    number = float(cell) if re.match(NUMBER, cell) else math.inf
    return number if math.isfinite(number) else cell


def _id(place: str, value: Any) -> int:
    if not re.fullmatch("[0-9]{1,18}", str(value)):
        raise InputError(
            f"{place}: {value!r} is no id of a quarantined row; `quarantine list` shows them"
        )
    return int(value)
