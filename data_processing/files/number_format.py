"""Detects whether a column of texts writes numbers with a decimal point or a decimal comma, and
converts them to a point.

The sign of a column follows from cells that can be read in one way only (5.25, 1.234.567,89), in
the column itself or else in the file's other columns. `1.234` and `1,234` can be read in two ways
and decide nothing, except that `1.234` has a point if commas separate the values. Without evidence
nothing is guessed. A cell that is no number stays as it is.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from typing import Literal, get_args

import pyarrow as pa
import pyarrow.compute as pc

from common.errors import InputError

DecimalSign = Literal[".", ","]

SPACES = " \u00a0\u2009\u202f'’"
"""Other signs between thousands: blanks, and the apostrophe of Switzerland."""

BLANKS = "[\\s\u00a0\u202f]*"

EXPONENT = "([eE][+-]?[0-9]{1,3})?"

_POINT_GROUPS = r"[1-9][0-9]{0,2}(\.[0-9]{3})"
_COMMA_GROUPS = r"[1-9][0-9]{0,2}(,[0-9]{2,3})*(,[0-9]{3})"  # India writes 12,34,567
_SPACE_GROUPS = rf"[1-9][0-9]{{0,2}}([{SPACES}][0-9]{{3}})"

EITHER_POINT = r"^[+-]?[1-9][0-9]{0,2}\.[0-9]{3}$"
EITHER_COMMA = r"^[+-]?[1-9][0-9]{0,2},[0-9]{3}$"
POINT = (
    rf"^[+-]?([0-9]+\.[0-9]*|\.[0-9]+){EXPONENT}$"
    rf"|^[+-]?{_COMMA_GROUPS}\.[0-9]*$"
    r"|^[+-]?[1-9][0-9]{0,2}(,[0-9]{2,3})+,[0-9]{3}$"
    rf"|^[+-]?{_SPACE_GROUPS}+\.[0-9]*$"
)
COMMA = (
    rf"^[+-]?([0-9]+,[0-9]*|,[0-9]+){EXPONENT}$"
    rf"|^[+-]?{_POINT_GROUPS}+,[0-9]*$"
    rf"|^[+-]?{_POINT_GROUPS}{{2,}}$"
    rf"|^[+-]?{_SPACE_GROUPS}+,[0-9]*$"
)
"""Shapes of a cell. Cells of EITHER_POINT and EITHER_COMMA also match POINT and COMMA, and are
removed first.
"""

GROUPED: Mapping[DecimalSign, str] = {
    ".": rf"^[+-]?({_COMMA_GROUPS}|{_SPACE_GROUPS}+)(\.[0-9]*)?$",
    ",": rf"^[+-]?({_POINT_GROUPS}+|{_SPACE_GROUPS}+)(,[0-9]*)?$",
}
BETWEEN_THOUSANDS: Mapping[DecimalSign, str] = {".": f"[,{SPACES}]", ",": f"[.{SPACES}]"}
WITH_COMMA = rf"^([+-]?)([0-9]+,[0-9]*|,[0-9]+){EXPONENT}$"


@dataclass(frozen=True)
class SignEvidence:
    """First cells of a column that tell its decimal sign.

    Attributes:
        point: a cell that can only have a decimal point.
        comma: a cell that can only have a decimal comma.
        either_point: a cell with one point that may be either.
        either_comma: a cell with one comma that may be either.
    """

    point: str | None = None
    comma: str | None = None
    either_point: str | None = None
    either_comma: str | None = None

    def __or__(self, later: SignEvidence) -> SignEvidence:
        """Return the first cells of both; those of `self` come first in the file."""
        names = [field.name for field in fields(self)]
        return SignEvidence(**{name: getattr(self, name) or getattr(later, name) for name in names})


def parse_decimal_sign(decimal: str | None) -> DecimalSign | None:
    """Parse the option `--decimal`.

    Args:
        decimal: text of the option; None if it is not used.

    Raises:
        InputError: the text is neither a point nor a comma.
    """
    if decimal is None:
        return None
    for sign in get_args(DecimalSign):
        if decimal == sign:
            return sign  # type: ignore[no-any-return]
    raise InputError(f"--decimal {decimal!r} is no decimal sign; allowed are `.` and `,`")


def sign_evidence(cells: pa.ChunkedArray) -> SignEvidence:
    """Find the first cells of a column that tell its decimal sign.

    Args:
        cells: trimmed texts.
    """
    cells = _with_plain_minus(cells)
    # cells without a sign decide nothing
    cells = cells.filter(pc.match_substring_regex(cells, "[.,]"))
    is_point, is_comma = (
        pc.match_substring_regex(cells, shape) for shape in (EITHER_POINT, EITHER_COMMA)
    )
    clear = cells.filter(pc.invert(pc.or_(is_point, is_comma)))
    return SignEvidence(
        point=_first(clear, pc.match_substring_regex(clear, POINT)),
        comma=_first(clear, pc.match_substring_regex(clear, COMMA)),
        either_point=_first(cells, is_point),
        either_comma=_first(cells, is_comma),
    )


def decimal_sign(
    place: str,
    evidence: SignEvidence,
    others: Collection[SignEvidence],
    *,
    delimiter: str | None,
    option: DecimalSign | None,
) -> DecimalSign:
    """Decide the decimal sign of one column.

    Args:
        place: names the column and its file, for messages.
        evidence: evidence of the column.
        others: evidence of the file's columns.
        delimiter: separates the file's values; None for Parquet.
        option: value of `--decimal`.

    Raises:
        InputError: the column has both signs, nothing decides, or the option contradicts the cells.
    """
    point, comma = evidence.point, evidence.comma
    if point and comma:
        raise InputError(
            f"{place} has {point!r}, with a decimal point, and {comma!r}, with a decimal"
            " comma: write all of its numbers in one way"
        )
    clear: DecimalSign | None = None
    if point or comma:
        clear = "." if point else ","
    if clear and option and clear != option:
        raise InputError(
            f"{place} has {point or comma!r}, which --decimal {option} does not fit: leave"
            " the option out, or write all of its numbers in one way"
        )
    if option or clear:
        return option or clear or "."
    either = evidence.either_comma or evidence.either_point
    if either is None:
        return "."
    has_point = any(other.point for other in others)
    has_comma = any(other.comma for other in others)
    # the file's other columns decide if they agree
    if has_point != has_comma:
        return "." if has_point else ","
    # with a decimal comma, every number would need quotes
    if delimiter == "," and not evidence.either_comma and not has_comma:
        return "."
    raise _ambiguous(place, either)


def with_decimal_point(cells: pa.ChunkedArray, sign: DecimalSign) -> pa.ChunkedArray:
    """Write the numbers of a column with a decimal point and without signs between thousands.

    Args:
        cells: trimmed texts.
        sign: decimal sign of the column.
    """
    cells = _with_plain_minus(cells)
    is_grouped = pc.match_substring_regex(cells, GROUPED[sign])
    together = pc.replace_substring_regex(cells, BETWEEN_THOUSANDS[sign], "")
    cells = pc.if_else(is_grouped, together, cells)
    if sign == ".":
        return cells
    has_comma = pc.match_substring_regex(cells, WITH_COMMA)
    return pc.if_else(has_comma, pc.replace_substring(cells, ",", "."), cells)


def without_percent(cells: pa.ChunkedArray) -> pa.ChunkedArray:
    """Remove the unit of an APY, if cells repeat it: `5.25 %`."""
    return pc.replace_substring_regex(cells, rf"{BLANKS}%$", "")


def without_dollars(cells: pa.ChunkedArray) -> pa.ChunkedArray:
    """Remove the unit of a TVL or a price, if cells repeat it: `$5`, `5 USD`."""
    cells = pc.replace_substring_regex(cells, rf"^([+-]?)(USD|(US)?\$){BLANKS}", r"\1")
    return pc.replace_substring_regex(cells, rf"{BLANKS}((US)?\$|USD)$", "")


def _with_plain_minus(cells: pa.ChunkedArray) -> pa.ChunkedArray:
    # spreadsheets write U+2212, the sign minus
    return pc.replace_substring_regex(cells, "^\u2212([0-9.,])", r"-\1")


def _first(cells: pa.ChunkedArray, matches: pa.ChunkedArray) -> str | None:
    matching = cells.filter(matches)
    return str(matching[0].as_py()) if len(matching) else None


def _ambiguous(place: str, cell: str) -> InputError:
    by_point, by_comma = (
        with_decimal_point(pa.chunked_array([[cell]]), sign)[0].as_py() for sign in (".", ",")
    )
    return InputError(
        f"{place} has {cell!r}, which is {by_point} with a decimal point and {by_comma} with a"
        " decimal comma, and nothing in the file tells which: give --decimal . or --decimal ,"
    )
