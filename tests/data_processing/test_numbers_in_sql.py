"""Tests that PostgreSQL reads a text as the number that Spark reads, to the bit.

A plan counts rows, and a run without a JVM computes metrics, with PostgreSQL's numbers.
"""

from __future__ import annotations

import runpy
import struct
import sys
from functools import partial
from random import Random

import pytest
from pyspark.sql import SparkSession
from sqlalchemy import Engine, text

from data_processing.checks import row_checks
from data_processing.checks.row_checks import nan_to_null, postgresql_number, spark_number

NUMBERS = [
    "0",
    "-0",
    "-0.0",
    "+.5",
    "5.",
    "1e5",
    "1E-5",
    "1e-310",
    "-4.9e-324",
    "2.4703282292062327e-324",
    "2.4703282292062328e-324",
    "-1e-400",
    "1e300",
    "1.7976931348623157e308",
    "1.7976931348623158e308",
    "1.797693134862315807e308",
    "1.797693134862315808e308",
    "-1e309",
    "1e999",
    "0e999",
    "-0e-999",
    "9007199254740993",
    "0.1000000000000000055511151231257827021181583404541015625",
    "1" * 1000,
    "1" * 1001,
    "0." + "0" * 997 + "1",
    "",
    " 5",
    "5d",
    "1e",
    "0x1p3",
    "nan",
    "NaN",
    "-nan",
    "inf",
    "\u0130nf",
    "INF\u0130NITY",
    "\u0661",
    "5\n",
]


def bits(value: float | None) -> bytes | None:
    return None if value is None else struct.pack(">d", value)


def assert_equal_numbers(spark: SparkSession, engine: Engine, texts: list[str]) -> None:
    cleaned = nan_to_null("text")
    frame = spark.createDataFrame([(value,) for value in texts], "text string")
    expected = [
        bits(row.number)
        for row in frame.selectExpr(f"{cleaned} AS text")
        .selectExpr(f"{spark_number('text')} AS number")
        .collect()
    ]
    query = text(f"""
        SELECT {postgresql_number("text")} AS number
        FROM (
            SELECT {cleaned} AS text, position
            FROM unnest(CAST(:texts AS text[])) WITH ORDINALITY AS t (text, position)
        ) AS cleaned
        ORDER BY position""")
    with engine.connect() as connection:
        actual = [bits(value) for value in connection.execute(query, {"texts": texts}).scalars()]
    assert dict(zip(texts, actual, strict=True)) == dict(zip(texts, expected, strict=True))


def test_postgresql_reads_the_numbers_of_spark(spark: SparkSession, engine: Engine) -> None:
    assert_equal_numbers(spark, engine, NUMBERS)


def test_limits_of_doubles_do_not_need_long_whole_numbers(request: pytest.FixtureRequest) -> None:
    """PYTHONINTMAXSTRDIGITS may allow texts of 640 digits."""
    request.addfinalizer(partial(sys.set_int_max_str_digits, sys.get_int_max_str_digits()))
    sys.set_int_max_str_digits(640)
    assert runpy.run_path(row_checks.__file__)["ROUNDED_TO_ZERO"] == row_checks.ROUNDED_TO_ZERO


def random_text(random: Random) -> str:
    """Return a text that is a number, or nearly one, of any length and magnitude."""
    digits = "".join(random.choices("0123456789", k=random.choice([1, 3, 17, 40])))
    point = random.randrange(len(digits) + 1)
    sign = random.choice(["", "", "-", "+", "--"])
    exponents = ["", "", f"e{random.randrange(-360, 340)}", "E+9", "e"]
    return f"{sign}{digits[:point]}.{digits[point:]}{random.choice(exponents)}"


def test_postgresql_reads_any_number_of_spark(spark: SparkSession, engine: Engine) -> None:
    random = Random(20)
    texts = [random_text(random) for _ in range(3000)]
    # doubles of every magnitude, as Python writes them
    doubles = [struct.unpack(">d", random.randbytes(8))[0] for _ in range(1000)]
    assert_equal_numbers(spark, engine, [*texts, *map(repr, doubles)])
