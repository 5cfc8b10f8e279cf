"""The metrics job beside polars, pandas and one SQL statement: whole processes, taking turns, on generated raw history in one PostgreSQL.

Run: `python -m benchmarks.metrics [--pools 2000] [--days 365] [--repeat 3] [--only NAME,..]`. Prints a table and writes it to benchmarks/results/.
Seconds are wall time of the process, start-up included; memory is the largest sum of resident sizes of the process and its children.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from sqlalchemy import Engine

from benchmarks import metrics_data
from benchmarks.metrics_peers import PEERS
from config_spark import Settings, load_settings
from database.connection import make_engine, with_database
from database.embedded_server import EmbeddedServer
from database.migrate import migrate
from database.tables import METRIC_COLUMNS

PROJECT = Path(__file__).resolve().parents[1]
JOB = [sys.executable, str(PROJECT / "data_processing" / "calculate_pool_metrics_spark.py"), "--json"]
OURS = ("full", "nothing new", "new day")
OUR_TABLES = "pool_daily_metrics, yieldspark.observation_age, yieldspark.market_series, yieldspark.run_ledger, yieldspark.quarantine"


@dataclass(frozen=True)
class Timing:
    name: str
    seconds: float
    peak_mb: float
    stages: dict[str, float]
    rows: dict[str, int]


def measure(name: str, command: Sequence[str], environment: dict[str, str]) -> Timing:
    """Run one process to its end. Raises: RuntimeError with its last words where it fails."""
    began = monotonic()
    process = subprocess.Popen(command, env=environment, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    peak = [0.0]
    watcher = threading.Thread(target=_watch, args=(process, peak), daemon=True)
    watcher.start()
    out, err = process.communicate()
    seconds = monotonic() - began
    watcher.join()
    if process.returncode:
        raise RuntimeError(f"{name} ended with {process.returncode}: {err[-2000:]}")
    ledger: dict[str, Any] = json.loads(out) if out.startswith("{") else {}
    return Timing(name, round(seconds, 2), round(peak[0] / 2**20), ledger.get("stages", {}), ledger.get("rows", {}))


def _watch(process: subprocess.Popen[str], peak: list[float]) -> None:
    while process.poll() is None:
        peak[0] = max(peak[0], sum(_resident_bytes(pid) for pid in _family(process.pid)))
        sleep(0.2)


def _family(pid: int) -> list[int]:
    try:
        children = [int(child) for path in Path(f"/proc/{pid}/task").glob("*/children") for child in path.read_text().split()]
    except OSError:
        return []
    return [pid, *(descendant for child in children for descendant in _family(child))]


def _resident_bytes(pid: int) -> float:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def prepare(engine: Engine, pools: int, days: int) -> Callable[[], None]:
    """Fill an empty database with all days but the newest; returns what lets that one arrive."""
    first_day = datetime.now(UTC).date() - timedelta(days=days)
    rows = metrics_data.raw_rows(pools, first_day, days, seed=1)
    newest = rows["timestamp"].str.slice(0, 10) == str(first_day + timedelta(days=days - 1))
    metrics_data.add_market(engine, first_day, days)
    metrics_data.copy_rows(engine, rows.filter(~newest))
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE SCHEMA bench")
        for peer in PEERS:
            connection.exec_driver_sql(f"CREATE TABLE bench.{peer} (LIKE pool_daily_metrics INCLUDING ALL)")
    metrics_data.vacuum(engine)
    return lambda: metrics_data.copy_rows(engine, rows.filter(newest))


def run_all(settings: Settings, engine: Engine, pools: int, days: int, repeat: int, only: Sequence[str]) -> tuple[list[Timing], dict[str, int]]:
    environment = os.environ | _database_of(settings)
    arrive = prepare(engine, pools, days)
    timings, differing = [], {}
    for turn in range(repeat):
        _empty(engine, OUR_TABLES)
        timings.append(measure("full", [*JOB, "--full-refresh"], environment))
        for peer in (name for name in PEERS if name in only):
            _empty(engine, f"bench.{peer}")
            timings.append(measure(peer, [sys.executable, "-m", "benchmarks.metrics_peers", peer], environment))
            differing[peer] = _differing_rows(engine, peer)
        timings.append(measure("nothing new", JOB, environment))
        if turn == 0:
            arrive()
            timings.append(measure("new day", JOB, environment))
    return timings, differing


def _database_of(settings: Settings) -> dict[str, str]:
    password = settings.db_password.get_secret_value() if settings.db_password else ""
    names = {name.upper(): getattr(settings, name) for name in ("db_host", "db_port", "db_name", "db_user", "db_sslmode")}
    home = {"YIELDSPARK_HOME": str(settings.yieldspark_home), "JARS_DIR": str(settings.jars_dir)}
    return {name: str(value) for name, value in names.items()} | home | {"DB_PASSWORD": password}


def _empty(engine: Engine, tables: str) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql(f"TRUNCATE {tables}")


def _differing_rows(engine: Engine, peer: str) -> int:
    """Rows of the product's table and the peer's that are not the same, beyond the last decimal."""
    apart = " OR ".join(f"(t.{name} IS NULL) <> (p.{name} IS NULL) OR abs(t.{name} - p.{name}) > 0.011" for name in METRIC_COLUMNS)
    joined = f"pool_daily_metrics AS t FULL JOIN bench.{peer} AS p USING (pool_id, date)"
    both = f"SELECT count(*) FROM {joined} WHERE t.ctid IS NULL OR p.ctid IS NULL OR {apart}"
    with engine.connect() as connection:
        return int(connection.exec_driver_sql(both).scalar_one())


def table(timings: Sequence[Timing], differing: dict[str, int]) -> str:
    """Medians by name, with each one's ratio to the product's full run."""
    by_name: dict[str, list[Timing]] = {}
    for timing in timings:
        by_name.setdefault(timing.name, []).append(timing)
    full = statistics.median(timing.seconds for timing in by_name["full"])
    lines = [f"{'':14} {'seconds':>8} {'/ full':>7} {'peak MB':>8}  runs, stages"]
    for name, runs in by_name.items():
        seconds = statistics.median(run.seconds for run in runs)
        notes = ", ".join(f"{run.seconds:.1f}" for run in runs) + "".join(f" | {stage} {took:.1f}" for stage, took in runs[-1].stages.items())
        notes += f" | {differing[name]} rows differ from ours" if name in differing else ""
        lines.append(f"{'ours ' * (name in OURS) + name:14} {seconds:8.2f} {seconds / full:7.2f} {max(run.peak_mb for run in runs):8.0f}  {notes}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pools", type=int, default=2000)
    parser.add_argument("--days", type=int, default=365)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--only", default=",".join(PEERS), help="the peers to run, separated by commas")
    options = parser.parse_args()
    jars = load_settings()
    with tempfile.TemporaryDirectory(prefix="yieldspark-benchmark-") as folder:
        home = Path(folder)
        settings = with_database(
            load_settings(_env_file=None, yieldspark_home=home, jars_dir=jars.jars_dir or jars.yieldspark_home / "jars", db_host=None)
        )
        try:
            engine = make_engine(settings)
            migrate(engine)
            timings, differing = run_all(settings, engine, options.pools, options.days, options.repeat, options.only.split(","))
        finally:
            EmbeddedServer(home).reset()
    facts = {
        "commit": subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=PROJECT, capture_output=True, text=True, check=False).stdout.strip(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, Python {platform.python_version()}",
        "pools": options.pools,
        "days": options.days,
    }
    print(f"{facts}\n{table(timings, differing)}")
    results = PROJECT / "benchmarks" / "results"
    results.mkdir(exist_ok=True)
    document = {**facts, "differing": differing, "timings": [asdict(timing) for timing in timings]}
    (results / f"metrics-{datetime.now(UTC):%Y%m%dt%H%M%S}.json").write_text(json.dumps(document, indent=1))


if __name__ == "__main__":
    main()
