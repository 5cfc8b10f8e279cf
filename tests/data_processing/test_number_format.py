"""Tests the detection of decimal points and decimal commas in a column of texts, and the conversion
of its cells.
"""

from __future__ import annotations

from decimal import Decimal

import pyarrow as pa
import pytest

from common.errors import InputError
from data_processing.files.number_format import (
    DecimalSign,
    SignEvidence,
    decimal_sign,
    parse_decimal_sign,
    sign_evidence,
    with_decimal_point,
)


def numbers_of(*cells: str | None) -> SignEvidence:
    return sign_evidence(pa.chunked_array([list(cells)]))


def sign(
    *cells: str | None,
    others: tuple[SignEvidence, ...] = (),
    delimiter: str | None = ";",
    option: DecimalSign | None = None,
) -> DecimalSign:
    return decimal_sign(
        "column apy of a.csv", numbers_of(*cells), others, delimiter=delimiter, option=option
    )


@pytest.mark.parametrize(
    ("cell", "by_point", "by_comma"),
    [
        ("5.25", "5.25", None),
        ("0.125", "0.125", None),
        ("1234.567", "1234.567", None),
        (".5", ".5", None),
        ("1.23E-05", "1.23E-05", None),
        ("1.234E+05", "1.234E+05", None),
        ("1,234,567", "1234567", None),
        ("12,34,567", "1234567", None),
        ("1,234.5", "1234.5", None),
        ("1 234.567", "1234.567", None),
        ("1'234.5", "1234.5", None),
        ("5,25", None, "5.25"),
        ("-5,25", None, "-5.25"),
        ("\u22125,25", None, "-5.25"),
        ("0,125", None, "0.125"),
        ("1234,567", None, "1234.567"),
        (",5", None, ".5"),
        ("1,23E-05", None, "1.23E-05"),
        ("1,25e6", None, "1.25e6"),
        ("1.234.567", None, "1234567"),
        ("1.234.567,89", None, "1234567.89"),
        ("1.234,5", None, "1234.5"),
        ("1\u00a0234,567", None, "1234.567"),
        ("1\u202f234\u202f567,8", None, "1234567.8"),
        ("1’234,5", None, "1234.5"),
        ("1.234", "1.234", "1234"),
        ("1,234", "1234", "1.234"),
        ("-123.456", "-123.456", "-123456"),
        ("7", "7", "7"),
        ("1 234", "1234", "1234"),
    ],
)
def test_number_formats(cell: str, by_point: str | None, by_comma: str | None) -> None:
    numbers = numbers_of(cell)
    is_clear = (by_point is None) != (by_comma is None)
    assert bool(numbers.point) == (is_clear and by_point is not None)
    assert bool(numbers.comma) == (is_clear and by_comma is not None)
    for decimal, expected in ((".", by_point), (",", by_comma)):
        if expected is not None:
            converted = with_decimal_point(
                pa.chunked_array([[cell]]), parse_decimal_sign(decimal) or "."
            )[0].as_py()
            assert Decimal(converted) == Decimal(expected)


@pytest.mark.parametrize(
    "cell", ["n/a", "NaN", "1.2.3", "1,2,3", "1.23.456", "1.234.56,7", "5.25x", "v1.2", "", "."]
)
def test_text_that_is_no_number_decides_nothing(cell: str) -> None:
    assert numbers_of(cell, None) == SignEvidence()
    both = pa.chunked_array([[cell, None]])
    for decimal in (".", ","):
        assert with_decimal_point(both, parse_decimal_sign(decimal) or ".").to_pylist() == [
            cell,
            None,
        ]


def test_one_unambiguous_cell_decides_column() -> None:
    assert sign("1.234", "1.234.567,89") == ","
    assert sign("1.234", "1.5") == "."
    assert sign("1,234", "1,234,567.8") == "."
    assert sign("1,234", "0,5") == ","
    assert sign("7", None) == "."


def test_ambiguous_column_follows_other_columns() -> None:
    comma, point = numbers_of("5,25"), numbers_of("5.25")
    assert sign("1.234", others=(comma, SignEvidence())) == ","
    assert sign("1.234", others=(point,)) == "."
    with pytest.raises(InputError):
        sign("1.234", others=(comma, point))


def test_rejects_ambiguous_number_with_both_readings() -> None:
    message = (
        "column apy of a.csv has '1.234', which is 1.234 with a decimal point and 1234 with a"
        " decimal comma, and nothing in the file tells which: give --decimal . or --decimal ,"
    )
    with pytest.raises(InputError) as caught:
        sign("7", "1.234")
    assert str(caught.value) == message
    for delimiter in (",", ";", "\t", "|", None):
        with pytest.raises(InputError, match=r"'1,234', which is 1234 with a decimal point"):
            sign("1,234", delimiter=delimiter)
    assert sign("1.234", option=",") == ","
    assert sign("1.234", option=".") == "."


def test_commas_between_values_leave_the_point_for_decimals() -> None:
    assert sign("1.234", delimiter=",") == "."
    with pytest.raises(InputError):
        sign("1.234", "1,234", delimiter=",")
    assert sign("1.234", delimiter=",", others=(numbers_of("5,25"),)) == ","


def test_rejects_column_with_both_signs_and_contradicting_option() -> None:
    with pytest.raises(InputError, match=r"has '5.25', with a decimal point, and '5,5', with a"):
        sign("5.25", "5,5")
    with pytest.raises(InputError, match=r"has '5.25', which --decimal , does not fit"):
        sign("5.25", option=",")
    assert parse_decimal_sign(None) is None
    with pytest.raises(InputError, match=r"allowed are `.` and `,`"):
        parse_decimal_sign(";")
