"""Tests that Spark and PostgreSQL give a raw row the same reason, and that the reason is right."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from itertools import chain, product
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pyspark.sql import SparkSession
from sqlalchemy import Engine, text

from config_spark import load_settings
from data_processing.checks.catalogue import CANNOT_BE_STORED, CATALOGUE
from data_processing.checks.row_checks import gas_checks, price_checks, raw_row_checks, validated
from data_processing.metrics.raw_rows import parse_raw_rows
from data_processing.raw.history import validated_rows
from tests.support import metrics_oracle
from tests.support.metrics_histories import as_text
from tests.support.metrics_oracle import RawRow, World

NOW = datetime(2024, 6, 1, 12, tzinfo=UTC)
CHECKS = raw_row_checks(load_settings(_env_file=None), NOW)
RAW = (
    "id bigint, pool_id string, timestamp timestamp, snapshot bigint, apy string, tvl string,"
    " not_in_pools boolean, dropped boolean, replaced boolean"
)

AWKWARD = [
    *(
        None,
        "",
        " ",
        "nan",
        "NAN",
        "NaN ",
        "inf",
        "-Infinity",
        "+INF",
        "infinit",
        "1",
        "-1",
        "+1",
        "1.",
        ".5",
        ".",
        "-",
        "1e5",
        "1E+5",
        "1e",
        "e5",
        "1e-400",
        "1e400",
    ),
    *(
        "1e9999",
        "1000000",
        "1000000.0000000001",
        "1000001",
        "-1000001",
        "-0",
        "1d",
        "5f",
        "0x1F",
        "1_0",
        "1,5",
        "5 %",
        " 5",
        "5 ",
        "5\n",
        "\n5",
        "5\r",
        "5\u2028",
        "٣",
    ),
    *(
        "true",
        "[1]",
        '{"a": 1}',
        "1000000000000",
        "1000000000001",
        "~",
        "5~",
        "123456789012345678901234567890",
        "0." + "1" * 400,
        "1" * 1000,
        "1" * 1001,
        "0." + "1" * 20_000,
        "1" * 131_073,
        "-" + "9" * 995 + "e999",
    ),
]

Row = tuple[int, str, datetime, str | None, str | None]
"""Whether it was dropped is the same for all rows of a test."""


def by_spark(
    spark: SparkSession, rows: list[Row], *, dropped: bool = False
) -> dict[int, tuple[Any, ...]]:
    raw = spark.createDataFrame(
        [(*row[:3], row[0], *row[3:], False, dropped, False) for row in rows], RAW
    )
    parsed = parse_raw_rows(raw, CHECKS)
    return {row.id: (row.apy, row.tvl, row.reason) for row in parsed.collect()}


def by_postgresql(
    engine: Engine, rows: list[Row], *, dropped: bool = False
) -> dict[int, tuple[Any, ...]]:
    columns = "id bigint, timestamp timestamptz, apy text, tvl text"
    rows_as_table = (
        f"SELECT id, timestamp, apy, tvl, false AS not_in_pools, {dropped} AS dropped, false AS"
        f" replaced FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS r({columns})"
    )
    query = validated_rows(rows_as_table, CHECKS)
    document = json.dumps(
        [
            {"id": n, "timestamp": moment.isoformat(), "apy": apy, "tvl": tvl}
            for n, _, moment, apy, tvl in rows
        ]
    )
    with engine.connect() as connection:
        return {
            row.id: (row.apy_value, row.tvl_value, row.reason)
            for row in connection.execute(text(query), {"rows": document})
        }


def test_both_dialects_agree_on_awkward_texts(spark: SparkSession, engine: Engine) -> None:
    pairs = [*product(AWKWARD, [None, "7"]), *product(["7", None], AWKWARD)]
    rows: list[Row] = [
        (number, "p", datetime(2024, 1, 1, tzinfo=UTC), apy, tvl)
        for number, (apy, tvl) in enumerate(pairs)
    ]
    assert by_spark(spark, rows) == by_postgresql(engine, rows)


# shrinking would take hundreds of Spark jobs
@hypothesis_settings(
    max_examples=5,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)
@given(
    texts=st.lists(
        st.one_of(st.text(alphabet="0123456789+-.eEnaif \n", max_size=8), st.floats().map(str)),
        min_size=200,
        max_size=400,
    )
)
def test_both_dialects_agree_on_arbitrary_texts(
    spark: SparkSession, engine: Engine, texts: list[str]
) -> None:
    rows: list[Row] = [
        (number, "p", datetime(2024, 1, 1, tzinfo=UTC), value, "1")
        for number, value in enumerate(texts)
    ]
    assert _reasons(by_spark(spark, rows)) == _reasons(by_postgresql(engine, rows))


def _reasons(validated: Mapping[int, tuple[Any, Any, Any]]) -> dict[int, Any]:
    return {number: reason for number, (_, _, reason) in validated.items()}


REASONS: list[tuple[Any, str | None]] = [
    ({"apy": 5.0, "tvlUsd": 10}, None),
    ({"apy": None, "tvlUsd": 10}, None),
    ({"apy": "NaN", "tvlUsd": 10}, None),
    ({"apy": 5.0}, None),
    ({"apy": -1e6, "tvlUsd": 0}, None),
    ({"apy": "1e3", "tvlUsd": "-0"}, None),
    ({}, "apy_and_tvl_missing"),
    (None, "apy_and_tvl_missing"),
    ([5], "apy_and_tvl_missing"),
    ({"apy": "NaN", "tvlUsd": None}, "apy_and_tvl_missing"),
    ({"apy": "-Infinity", "tvlUsd": 10}, "apy_infinite"),
    ({"apy": "5 %", "tvlUsd": 10}, "apy_not_a_number"),
    ({"apy": True, "tvlUsd": 10}, "apy_not_a_number"),
    ({"apy": 1, "tvlUsd": "inf"}, "tvl_infinite"),
    ({"apy": 1, "tvlUsd": "ten"}, "tvl_not_a_number"),
    ({"apy": 1, "tvlUsd": -0.01}, "tvl_negative"),
    ({"apy": -1_000_000.5, "tvlUsd": 1}, "apy_beyond_limit"),
    ({"apy": 1, "tvlUsd": 1_000_000_000_001}, "tvl_beyond_limit"),
]


def test_each_reason(spark: SparkSession) -> None:
    rows = [
        RawRow(number, f"pool-{number}", datetime(2024, 1, 1, tzinfo=UTC), document)
        for number, (document, _) in enumerate(REASONS)
    ]
    expected = dict(enumerate(reason for _, reason in REASONS))
    by_oracle = metrics_oracle.quarantine(World(rows=rows, now=NOW))
    texts = [(as_text(row.document, "apy"), as_text(row.document, "tvlUsd")) for row in rows]
    validated_rows = by_spark(
        spark,
        [
            (row.id, row.pool_id, row.timestamp, *pair)
            for row, pair in zip(rows, texts, strict=True)
        ],
    )
    assert {row.id: by_oracle.get(row.id) for row in rows} == expected
    assert {number: reason for number, (_, _, reason) in validated_rows.items()} == expected


def test_impossible_timestamps(spark: SparkSession, engine: Engine) -> None:
    moments = {
        1: datetime(2017, 12, 31, 23, 59, 59, tzinfo=UTC),
        2: datetime(2018, 1, 1, tzinfo=UTC),
        3: NOW,
        4: NOW.replace(microsecond=1),
    }
    rows: list[Row] = [(number, "p", moment, "1", "1") for number, moment in moments.items()]
    reasons = {number: reason for number, (_, _, reason) in by_spark(spark, rows).items()}
    assert reasons == {1: "timestamp_before_2018", 2: None, 3: None, 4: "timestamp_in_future"}
    assert by_spark(spark, rows) == by_postgresql(engine, rows)


def test_dropped_row_keeps_its_reason(spark: SparkSession, engine: Engine) -> None:
    rows: list[Row] = [
        (number, "p", datetime(2024, 1, 1, tzinfo=UTC), apy, "1")
        for number, apy in enumerate(("1", "?"))
    ]
    reasons = {
        number: reason for number, (_, _, reason) in by_spark(spark, rows, dropped=True).items()
    }
    assert reasons == {0: "row_dropped", 1: "apy_not_a_number"}
    assert by_spark(spark, rows, dropped=True) == by_postgresql(engine, rows, dropped=True)


@pytest.mark.parametrize(
    ("checks", "name"),
    [
        (raw_row_checks, "tvl_negative"),
        (price_checks, "price_not_positive"),
        (gas_checks, "gas_negative"),
    ],
)
def test_severity_is_in_catalogue(monkeypatch: pytest.MonkeyPatch, checks: Any, name: str) -> None:
    severities = {
        check.name: check.severity for check in checks(load_settings(_env_file=None), NOW)
    }
    monkeypatch.setitem(CATALOGUE, name, replace(CATALOGUE[name], severity="warn"))
    assert {
        check.name: check.severity for check in checks(load_settings(_env_file=None), NOW)
    } == severities | {name: "warn"}


def test_the_catalogue_has_every_check_of_rows_and_no_other() -> None:
    settings = load_settings(_env_file=None)
    checks = chain(
        raw_row_checks(settings, NOW), price_checks(settings, NOW), gas_checks(settings, NOW)
    )
    names = {check.name for check in checks}
    assert names == {
        check.name
        for check in CATALOGUE.values()
        if check.level == "row" and check.fixed_reason != CANNOT_BE_STORED
    }


MARKET_VALUES = {
    "close": {
        "3000.5": None,
        "1e9": None,
        None: "price_missing",
        "NaN": "price_missing",
        "inf": "price_infinite",
        "3000 USD": "price_not_a_number",
        "0": "price_not_positive",
        "-1": "price_not_positive",
        "1000000001": "price_beyond_limit",
    },
    "gas": {
        "0": None,
        None: None,
        "NaN": None,
        "1000000": None,
        "-Infinity": "gas_infinite",
        "much": "gas_not_a_number",
        "-0.5": "gas_negative",
        "1000001": "gas_beyond_limit",
    },
}


@pytest.mark.parametrize("column", MARKET_VALUES)
def test_each_reason_of_a_market_row(engine: Engine, column: str) -> None:
    checks = {"close": price_checks, "gas": gas_checks}[column](load_settings(_env_file=None), NOW)
    values = list(MARKET_VALUES[column])
    day = "TIMESTAMPTZ '2024-06-01' AS data_timestamp, DATE '2024-06-01' AS date, 'ETH' AS symbol"
    rows_as_table = (
        f"SELECT position, value AS {column}, {day} FROM unnest(CAST(:values AS text[])) WITH"
        " ORDINALITY AS given (value, position)"
    )
    query = validated(
        rows_as_table,
        others=("position", "data_timestamp", "date", "symbol"),
        texts=(column,),
        checks=checks,
    )
    with engine.connect() as connection:
        reasons = {
            values[row.position - 1]: row.reason
            for row in connection.execute(text(query), {"values": values})
        }
    assert reasons == MARKET_VALUES[column]
