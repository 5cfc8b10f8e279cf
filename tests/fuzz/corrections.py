"""A corrections case: a file for `quarantine replay --file` is changed and read.

The corrections of lines that nothing has changed are what the file says, or the whole file is
refused in one sentence.
"""

from __future__ import annotations

import json
import random
from decimal import Decimal
from pathlib import Path
from typing import Any

from data_processing.quarantine.corrections import read_corrections
from tests.fuzz import mutations
from tests.fuzz.cases import require_sentence
from tests.fuzz.tables import Unreadable, delimited, records, style

Corrections = dict[int, dict[str, Decimal]]

KEYS = ("apy", "tvlUsd", "apyBase")


def read_and_compare(rng: random.Random, folder: Path) -> str:
    """Returns what became of it. Raises: AssertionError where a correction is another or lost, or
    an error is none of the product's.
    """
    wanted: Corrections = {
        number: {key: Decimal(rng.randint(1, 10**6)).scaleb(-2) for key in KEYS}
        for number in rng.sample(range(1, 10**6), rng.randint(3, 12))
    }
    as_text = rng.random() < 0.5
    path, unchanged, may_refuse = (_csv if as_text else _json_lines)(rng, folder, wanted)
    what = "delimited corrections" if as_text else "corrections as JSON lines"
    try:
        found = read_corrections(path)
    except Exception as error:
        sentence = require_sentence(error)
        if not may_refuse:
            raise AssertionError(f"{what}: {sentence}") from error
        return f"{what}: refused"
    for number in unchanged:
        written = json.loads(found[number], parse_float=Decimal, parse_int=Decimal)
        assert written == wanted[number], (number, written, wanted[number])
    return f"{what}: read"


def _csv(rng: random.Random, folder: Path, wanted: Corrections) -> tuple[Path, list[int], bool]:
    """The file, the ids of its unchanged lines, whether it may be refused."""
    written = style(rng)
    good = [["id", *KEYS]] + [
        [str(number), *(written.number(key, value) for key, value in values.items())]
        for number, values in wanted.items()
    ]
    rows = [list(row) for row in good]
    may_refuse = written.units  # a unit stays text, as in JSON
    chance = rng.random()
    if chance < 0.7:
        rng.choice(mutations.CELL_MUTATIONS)(rng, rows)
        may_refuse = True
    content = delimited(rows, written)
    if chance > 0.8:
        content, may_refuse = mutations.changed_bytes(rng, content), True
    path = folder / "corrections.csv"
    path.write_bytes(content)
    try:
        found = records(content, written.delimiter)
    except (Unreadable, UnicodeDecodeError):
        return path, [], True
    is_whole = tuple(good[0]) in found[: len(written.above) + 1] and not written.units
    ids = {tuple(row): int(row[0]) for row in good[1:]}
    return path, [ids[row] for row in found if row in ids] if is_whole else [], may_refuse


def _json_lines(
    rng: random.Random, folder: Path, wanted: Corrections
) -> tuple[Path, list[int], bool]:
    lines = [
        json.dumps({"id": number} | {key: float(value) for key, value in values.items()})
        for number, values in wanted.items()
    ]
    by_line = dict(zip(lines, wanted, strict=True))
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
    left = content.decode("utf-8", "replace").split("\n")
    return (
        path,
        [by_line[line.strip("\r")] for line in left if line.strip("\r") in by_line],
        is_changed,
    )
