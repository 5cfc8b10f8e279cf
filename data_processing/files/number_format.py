"""How a column of texts writes its numbers: with a decimal point or a decimal comma.

In: columns of text as a file has them. Out: the same with a decimal point and without signs between
thousands; a cell that is no number stays what it is. One sign holds for a whole column of a file.
It follows from cells that can be read in one way only (5.25, 1.234.567,89), in the column itself or
else in the file's other columns; where there are none, nothing is guessed.

`1.234` and `1,234` can be read in two ways, and so decide nothing. The first stands for a point
where commas separate the values.
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
"""What else stands between thousands: blanks, and the apostrophe of Switzerland."""

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
"""Shapes of a cell. Those of one separator also fit POINT and COMMA, and are taken out first."""

GROUPED: Mapping[DecimalSign, str] = {
    ".": rf"^[+-]?({_COMMA_GROUPS}|{_SPACE_GROUPS}+)(\.[0-9]*)?$",
    ",": rf"^[+-]?({_POINT_GROUPS}+|{_SPACE_GROUPS}+)(,[0-9]*)?$",
}
BETWEEN_THOUSANDS: Mapping[DecimalSign, str] = {".": f"[,{SPACES}]", ",": f"[.{SPACES}]"}
WITH_COMMA = rf"^([+-]?)([0-9]+,[0-9]*|,[0-9]+){EXPONENT}$"


@dataclass(frozen=True)
class SignsSeen:
    """The first cell of a column that can only have a decimal point or only a decimal comma, and
    the first ones of one point or comma that may stand for either.
    """

    point: str | None = None
    comma: str | None = None
    either_point: str | None = None
    either_comma: str | None = None

    def __or__(self, later: SignsSeen) -> SignsSeen:
        names = [one.name for one in fields(self)]
        return SignsSeen(**{name: getattr(self, name) or getattr(later, name) for name in names})


def given_sign(decimal: str | None) -> DecimalSign | None:
    """What `--decimal` says. Raises: InputError for anything but a point or a comma."""
    if decimal is None:
        return None
    for sign in get_args(DecimalSign):
        if decimal == sign:
            return sign  # type: ignore[no-any-return]
    raise InputError(f"--decimal {decimal!r} is no decimal sign; allowed are `.` and `,`")


def signs_seen(cells: pa.ChunkedArray) -> SignsSeen:
    """Args: cells are trimmed texts."""
    cells = _with_plain_minus(cells)
    cells = cells.filter(pc.match_substring_regex(cells, "[.,]"))
    is_point, is_comma = (
        pc.match_substring_regex(cells, shape) for shape in (EITHER_POINT, EITHER_COMMA)
    )
    clear = cells.filter(pc.invert(pc.or_(is_point, is_comma)))
    return SignsSeen(
        point=_first(clear, pc.match_substring_regex(clear, POINT)),
        comma=_first(clear, pc.match_substring_regex(clear, COMMA)),
        either_point=_first(cells, is_point),
        either_comma=_first(cells, is_comma),
    )


def decimal_sign(
    place: str,
    seen: SignsSeen,
    others: Collection[SignsSeen],
    *,
    delimiter: str | None,
    given: DecimalSign | None,
) -> DecimalSign:
    """The sign of one column.

    Args: place names the column and its file; others are what the file's other columns show;
    delimiter is what separates the file's values (None: nothing does, as in Parquet); given is the
    user's word.
    Raises: InputError where the column has both, where nothing tells which, or where the user's
    word does not fit.
    """
    if seen.point and seen.comma:
        raise InputError(
            f"{place} has {seen.point!r}, with a decimal point, and {seen.comma!r}, with a decimal"
            " comma: write all of its numbers in one way"
        )
    clear: DecimalSign | None = "." if seen.point else "," if seen.comma else None
    if clear and given and clear != given:
        raise InputError(
            f"{place} has {seen.point or seen.comma!r}, which --decimal {given} does not fit: leave"
            " the option out, or write all of its numbers in one way"
        )
    if given or clear:
        return given or clear or "."
    either = seen.either_comma or seen.either_point
    if either is None:
        return "."
    has_point = any(other.point for other in others)
    has_comma = any(other.comma for other in others)
    if has_point != has_comma:
        return "." if has_point else ","
    if delimiter == "," and not seen.either_comma and not has_comma:
        return "."
    raise _ambiguous(place, either)


def with_point(cells: pa.ChunkedArray, sign: DecimalSign) -> pa.ChunkedArray:
    """Numbers of a column whose decimal sign is known as PostgreSQL and Spark read them."""
    cells = _with_plain_minus(cells)
    is_grouped = pc.match_substring_regex(cells, GROUPED[sign])
    together = pc.replace_substring_regex(cells, BETWEEN_THOUSANDS[sign], "")
    cells = pc.if_else(is_grouped, together, cells)
    if sign == ".":
        return cells
    has_comma = pc.match_substring_regex(cells, WITH_COMMA)
    return pc.if_else(has_comma, pc.replace_substring(cells, ",", "."), cells)


def _with_plain_minus(cells: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.replace_substring_regex(cells, "^\u2212([0-9.,])", r"-\1")


def _first(cells: pa.ChunkedArray, is_wanted: pa.ChunkedArray) -> str | None:
    wanted = cells.filter(is_wanted)
    return str(wanted[0].as_py()) if len(wanted) else None


def _ambiguous(place: str, cell: str) -> InputError:
    by_point, by_comma = (
        with_point(pa.chunked_array([[cell]]), sign)[0].as_py() for sign in (".", ",")
    )
    return InputError(
        f"{place} has {cell!r}, which is {by_point} with a decimal point and {by_comma} with a"
        " decimal comma, and nothing in the file tells which: give --decimal . or --decimal ,"
    )
