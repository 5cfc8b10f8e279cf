"""A corrections case: a file for `quarantine replay --file` is changed and read.

Corrections of unchanged lines equal those of the file, or the whole file is refused with one
sentence.
"""

from __future__ import annotations

import json
import random
from decimal import Decimal
from itertools import starmap
from pathlib import Path
from typing import Any

from data_processing.quarantine.corrections import read_corrections
from tests.fuzz import mutations
from tests.fuzz.cases import require_sentence
from tests.fuzz.tables import Unreadable, delimited, records, style

Corrections = dict[int, dict[str, Decimal]]

KEYS = ("apy", "tvlUsd", "apyBase")


def read_and_compare(rng: random.Random, folder: Path) -> str:
    """Return the outcome.

    Raises: AssertionError if a correction differs or is lost, or an error is not one of the
    product.
    """
    corrections: Corrections = {}
    for number in rng.sample(range(1, 10**6), rng.randint(3, 12)):
        corrections[number] = {key: Decimal(rng.randint(1, 10**6)).scaleb(-2) for key in KEYS}
    as_text = rng.random() < 0.5
    path, unchanged, may_refuse = (_csv if as_text else _json_lines)(rng, folder, corrections)
    kind = "delimited corrections" if as_text else "corrections as JSON lines"
    try:
        values_of_id = read_corrections(path)
    except Exception as error:
        sentence = require_sentence(error)
        if not may_refuse:
            raise AssertionError(f"{kind}: {sentence}") from error
        return f"{kind}: refused"
    for number in unchanged:
        read_values = json.loads(values_of_id[number], parse_float=Decimal, parse_int=Decimal)
        assert read_values == corrections[number], (number, read_values, corrections[number])
    return f"{kind}: read"


def _csv(
    rng: random.Random, folder: Path, corrections: Corrections
) -> tuple[Path, list[int], bool]:
    """Return the file, the ids of its unchanged lines, and whether it may be refused."""
    text_style = style(rng)
    good = [["id", *KEYS]]
    for number, values in corrections.items():
        good.append([str(number), *starmap(text_style.number, values.items())])
    rows = [list(row) for row in good]
    may_refuse = text_style.units  # a unit stays text, as in JSON
    chance = rng.random()
    if chance < 0.7:
        rng.choice(mutations.CELL_MUTATIONS)(rng, rows)
        may_refuse = True
    content = delimited(rows, text_style)
    if chance > 0.8:
        content, may_refuse = mutations.changed_bytes(rng, content), True
    path = folder / "corrections.csv"
    path.write_bytes(content)
    try:
        file_records = records(content, text_style.delimiter)
    except (Unreadable, UnicodeDecodeError):
        return path, [], True
    is_whole = tuple(good[0]) in file_records[: len(text_style.above) + 1] and not text_style.units
    ids = {tuple(row): int(row[0]) for row in good[1:]}
    return path, [ids[row] for row in file_records if row in ids] if is_whole else [], may_refuse


def _json_lines(
    rng: random.Random, folder: Path, corrections: Corrections
) -> tuple[Path, list[int], bool]:
    lines = []
    for number, values in corrections.items():
        line = {"id": number} | {key: float(value) for key, value in values.items()}
        lines.append(json.dumps(line))
    by_line = dict(zip(lines, corrections, strict=True))
    if is_changed := rng.random() < 0.8:
        at = rng.randrange(len(lines))
        document: Any = json.loads(lines[at])
        document[rng.choice(list(document))] = rng.choice(
            (*mutations.HOSTILE, [1], {"a": 1}, 1e300)
        )
        lines[at] = json.dumps(document)
    content = rng.choice(("\n", "\r\n")).join(lines).encode()
    if rng.random() < 0.3:
        content, is_changed = mutations.changed_bytes(rng, content), True
    path = folder / "corrections.jsonl"
    path.write_bytes(content)
    lines_of_file = content.decode("utf-8", "replace").split("\n")
    return (
        path,
        [by_line[line.strip("\r")] for line in lines_of_file if line.strip("\r") in by_line],
        is_changed,
    )
