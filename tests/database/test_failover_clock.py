"""New rows on a server that takes over with a clock behind: a real server under libfaketime, 5
seconds and 2 hours back.

libfaketime is Debian's package `libfaketime`; the product does not need it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from itertools import chain
from pathlib import Path

import pytest
from sqlalchemy import Engine

from config_spark import Settings
from data_processing.calculate_pool_metrics_spark import run_metrics
from database.connections.engine import make_engine
from database.embedded import folders as server_folders
from database.embedded.resolve import resolve_database
from database.embedded.server import EmbeddedServer
from database.schema.migrate import migrate
from tests.database.test_clock_skew import MAY_10, no_session
from tests.support.metrics_oracle import RawRow
from tests.support.metrics_plans import NOW, raw
from tests.support.metrics_store import put_rows, rows_of, without_jvm

LIBRARIES = ("lib/*/faketime/libfaketime.so.1", "local/lib/faketime/libfaketime.so.1")
"""Folders below /usr: Debian's, and that of libfaketime's `make install`."""


@pytest.fixture(scope="module")
def faketime() -> str:
    libraries = list(chain.from_iterable(Path("/usr").glob(pattern) for pattern in LIBRARIES))
    if not libraries:
        pytest.skip("libfaketime is not installed (Debian: apt install libfaketime)")
    return str(libraries[0])


@contextmanager
def server_behind(
    server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch, library: str, seconds: float
) -> Iterator[None]:
    """Run the server inside the block with a clock that starts a number of seconds before the last
    watermark, however long the restart takes.
    """
    since = seconds_since_watermark(make_engine(with_server(server)))
    server.stop()
    with monkeypatch.context() as patch:
        patch.setitem(server_folders.SERVER_ENVIRONMENT, "LD_PRELOAD", library)
        patch.setitem(server_folders.SERVER_ENVIRONMENT, "FAKETIME", f"-{since + seconds:.3f}s")
        server.start()
    yield
    server.stop()


def with_server(server: EmbeddedServer) -> Settings:
    return resolve_database(Settings(yieldspark_home=server.home, db_host=None))


def seconds_since_watermark(engine: Engine) -> float:
    query = "SELECT extract(epoch FROM clock_timestamp() - max(watermark)) AS seconds"
    return float(rows_of(engine, f"{query} FROM yieldspark.run_ledger")[0]["seconds"])


def put_apy(engine: Engine, number: int, apy: float) -> None:
    """Insert a later snapshot of May 10th with the server's clock."""
    at = raw(0, "a", MAY_10).timestamp + timedelta(minutes=number)
    put_rows(engine, [RawRow(number, "a", at, {"apy": apy})])


def stored_apy(engine: Engine) -> float:
    query = "SELECT actual_apy FROM pool_daily_metrics WHERE pool_id = 'a' AND date = :day"
    return float(rows_of(engine, query, day=MAY_10)[0]["actual_apy"])


def test_reads_rows_inserted_after_a_failover(
    faketime: str,
    server: Settings,
    own_server: EmbeddedServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own_server.start()
    settings = resolve_database(
        server.model_copy(update={"db_host": None, "yieldspark_home": own_server.home})
    )
    engine = make_engine(settings)
    migrate(engine)
    put_rows(engine, [raw(n, "a", MAY_10 + timedelta(days=n)) for n in range(10)])
    assert run_metrics(without_jvm(settings), now=NOW)["status"] == "succeeded"

    with server_behind(own_server, monkeypatch, faketime, 5):
        put_apy(engine, 100, 7.0)
        assert run_metrics(without_jvm(settings), now=NOW)["status"] == "succeeded"
        assert stored_apy(engine) == 7.0

    with server_behind(own_server, monkeypatch, faketime, 7200):
        assert seconds_since_watermark(engine) < -7000
        put_apy(engine, 101, 8.0)
        row = run_metrics(without_jvm(settings), now=NOW)
        assert row["status"] == "succeeded"
        (ledger_row,) = rows_of(
            engine,
            "SELECT plan #>> '{warnings,0}' AS warning"
            " FROM yieldspark.run_ledger WHERE run_id = :id",
            id=row["run_id"],
        )
        assert "the database server's clock says" in ledger_row["warning"]
        assert "are read again. Check the clocks" in ledger_row["warning"]
        assert stored_apy(engine) == 8.0
        again = run_metrics(settings, session=no_session, now=NOW)
        assert again["status"] == "nothing_to_do"
