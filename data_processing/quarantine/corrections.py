"""Reads corrected values for quarantined rows, from a file or the command line.

A file has JSON lines (`{"id": 7, "apy": 4.2}`) or CSV (`id,apy,tvlUsd`), which is read as `load`
reads it. Returns for each quarantine id the keys to replace in its raw JSON, as JSON text. APY in
percent, TVL in USD. Does not validate values; the row checks do.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from common.errors import InputError
from data_processing.checks.row_checks import NUMBER
from data_processing.files.cells import to_texts
from data_processing.files.file_tables import FileTable, open_file
from data_processing.files.number_format import (
    DecimalSign,
    SignEvidence,
    decimal_sign,
    parse_decimal_sign,
    sign_evidence,
    with_decimal_point,
    without_dollars,
    without_percent,
)
from data_processing.files.row_batches import Batch

KEYS = ("apy", "tvlUsd", "apyBase", "apyReward", "il7d", "apyBase7d")
"""Keys of DefiLlama's snapshots; these may be corrected."""


def read_corrections(path: Path, decimal: str | None = None) -> dict[int, str]:
    """Read the corrections of a .jsonl or .csv file.

    Args:
        path: the file.
        decimal: `.` or `,` for numbers of CSV that can be read with either.

    Returns:
        JSON text of the keys to replace, by quarantine id.

    Raises:
        InputError: the file can't be read; the message names file, line and fault.
    """
    sign = parse_decimal_sign(decimal)
    kind = path.suffix.lower()
    if kind not in {".jsonl", ".csv"}:
        raise InputError(
            f"{path}: corrections come as .jsonl (one object a line, with an id) or .csv (a header"
            " with id)"
        )
    corrections: dict[int, str] = {}
    for place, values in _json_lines(path) if kind == ".jsonl" else _csv_rows(path, sign):
        row_id = _id(place, values.pop("id", None))
        if row_id in corrections:
            raise InputError(f"{place}: row {row_id} is corrected twice")
        corrections[row_id] = correction(place, values)
    if not corrections:
        raise InputError(f"{path} has no corrections in it")
    return corrections


def correction_of_value(value: str) -> str:
    """Return the correction of the option `--value`.

    Args:
        value: text of the option, a JSON object.

    Raises:
        InputError: the text is no JSON object, or has other keys than KEYS.
    """
    return correction("--value", _object("--value", value))


def correction(place: str, values: Mapping[str, Any]) -> str:
    """Return the JSON text of the keys to replace.

    Args:
        place: names file and line, for messages.
        values: values by key of KEYS.

    Raises:
        InputError: there are no keys, or others than KEYS.
    """
    unknown = [name for name in values if name not in KEYS]
    if unknown:
        raise InputError(f"{place}: {unknown[0]!r} is no key of a snapshot; give {', '.join(KEYS)}")
    if not values:
        raise InputError(f"{place}: there is no value to replace; give {', '.join(KEYS)}")
    try:
        return json.dumps(values, allow_nan=False)
    except ValueError as error:
        raise InputError(f"{place}: a number is too large for JSON: {error}") from error


def _json_lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        content = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} can't be read as UTF-8 text: {error}") from error
    # not `splitlines`, which also splits at U+2028 and the like inside a JSON string
    for number, line in enumerate(content.split("\n"), start=1):
        if line.strip():
            yield f"{path}:{number}", _object(f"{path}:{number}", line)


def _object(place: str, line: str) -> dict[str, Any]:
    try:
        # NaN and Infinity are no JSON: as texts they are validated like any other
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


def _csv_rows(path: Path, option: DecimalSign | None) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the place and the values of each row; an empty cell replaces nothing."""
    table = open_file(path)
    if repeated := [name for name in table.columns if table.columns.count(name) > 1]:
        raise InputError(
            f"{path} has {table.columns.count(repeated[0])} columns {repeated[0][:30]!r}; keep one"
        )
    signs = _decimal_signs(table, option)
    for batch in table.batches():
        if batch.ragged:
            raise InputError(
                f"{path}:{batch.ragged[0].row_number}: the row has not as many values as the header"
            )
        columns = []
        for name in table.columns:
            texts = _texts(table, batch, name)
            columns.append(with_decimal_point(texts, signs[name]).to_pylist())
        for number, row in zip(batch.row_numbers, zip(*columns, strict=True), strict=True):
            values = {}
            for name, cell in zip(table.columns, row, strict=True):
                if cell is not None:
                    values[name] = cell if name == "id" else _value(cell)
            yield f"{path}:{number}", values


def _decimal_signs(table: FileTable, option: DecimalSign | None) -> dict[str, DecimalSign]:
    evidence = dict.fromkeys((name for name in table.columns if name != "id"), SignEvidence())
    for batch in table.batches():
        for name in evidence:
            evidence[name] |= sign_evidence(_texts(table, batch, name))
    signs = {
        name: decimal_sign(
            f"column {name} of {table.path}",
            column_evidence,
            list(evidence.values()),
            delimiter=table.delimiter,
            option=option,
        )
        for name, column_evidence in evidence.items()
    }
    # ids are whole numbers, which a decimal point leaves as they are
    return {"id": ".", **signs}


def _texts(table: FileTable, batch: Batch, name: str) -> pa.ChunkedArray:
    """Return the cells of a column without the unit that every file of ours may repeat."""
    texts = to_texts(table.path.name, batch.table.column(name))
    if name == "tvlUsd":
        return without_dollars(texts)
    return without_percent(texts) if name in KEYS else texts


def _value(cell: str) -> int | float | str:
    """Return a number if the cell is one that JSON can hold, else its text."""
    if re.fullmatch(r"-?[0-9]{1,30}", cell):
        return int(cell)
    number = float(cell) if re.fullmatch(NUMBER, cell) else math.inf
    return number if math.isfinite(number) else cell


def _id(place: str, value: Any) -> int:
    # 18 digits always fit a bigint
    if not re.fullmatch("[0-9]{1,18}", str(value)):
        raise InputError(
            f"{place}: {value!r} is no id of a quarantined row; `quarantine list` shows them"
        )
    return int(value)
