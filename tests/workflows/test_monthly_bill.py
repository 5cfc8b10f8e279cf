"""Tests the monthly bill by platform: the model, the past runs that replace its inputs, and the
table in the documentation.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from common.errors import ConfigurationError
from config_spark import Settings, load_settings
from docs.generate.__main__ import DOCS
from tests.support.dataproc_cases import WorkflowsHere
from tests.support.processes import PROJECT, environment_of
from workflows.costs.bill_inputs import SOURCES, BillInputs, inputs_of
from workflows.costs.cost_ledger import PAST_RUNS, PastRun, past_runs, usual_seconds
from workflows.costs.daily_cost import batch_usd
from workflows.costs.database_cost import database_cost
from workflows.costs.measured_inputs import BillBasis, with_measured
from workflows.costs.monthly_bill import modelled_bill, monthly_bill
from workflows.spec.platform_choice import CLOUD_RUN, CLOUD_RUN_ROWS, DATAPROC

METRICS, FORECAST = "calculate_metrics", "forecast_pools"

GOAL_USD = 3.0
"""Cost of both jobs as batches for thirty daily runs of 2,000 pools."""


def test_both_jobs_of_two_thousand_pools_reach_the_goal_as_batches() -> None:
    for region in ("us-central1", "europe-west1", "europe-west3"):
        for engine in ("lightgbm", "synapseml"):
            bill = modelled_bill(BillInputs(region=region, engine=engine))
            batches = bill.on(DATAPROC)
            assert batches.jobs_usd <= GOAL_USD
            assert batches.jobs_usd == pytest.approx(30 * sum(job.usd for job in batches.jobs))


def test_a_month_is_its_jobs_and_the_database_on_each_platform() -> None:
    bill = modelled_bill(BillInputs())
    assert [entry.platform for entry in bill.platforms] == [DATAPROC, CLOUD_RUN]
    for entry in bill.platforms:
        assert [job.job for job in entry.jobs] == [METRICS, f"{FORECAST}/lightgbm"]
        assert entry.usd == pytest.approx(entry.jobs_usd + bill.database.usd)
    batches, containers = bill.platforms
    assert containers.jobs_usd < batches.jobs_usd < bill.database.usd
    assert bill.rows == 2_000 * 365


def test_the_metrics_take_longer_on_the_four_cores_of_a_container_than_on_two_executors() -> None:
    inputs = BillInputs(pools=20_000)
    batch, container = (modelled_bill(inputs).on(entry).jobs[0] for entry in (DATAPROC, CLOUD_RUN))
    work = batch.seconds - 90 - inputs.cold_seconds
    assert container.seconds - inputs.cold_seconds_without_jvm == pytest.approx(2 * work)


def test_the_largest_run_of_a_container_is_cheaper_there_than_as_batches() -> None:
    """PLATFORM=auto goes by a container's limits, because by cost alone batches are cheaper only
    beyond them.
    """
    pools = CLOUD_RUN_ROWS // 365
    bill = modelled_bill(BillInputs(pools=pools))
    assert bill.on(CLOUD_RUN).jobs_usd < bill.on(DATAPROC).jobs_usd
    assert (bill.choice.platform, bill.on(CLOUD_RUN).caution) == (CLOUD_RUN, None)
    larger = modelled_bill(BillInputs(pools=pools + 10))
    assert larger.choice.platform == DATAPROC
    assert f"{larger.rows:,} rows by lightgbm are beyond" in str(larger.on(CLOUD_RUN).caution)
    assert larger.on(DATAPROC).caution is None
    other_engine = modelled_bill(BillInputs(engine="synapseml"))
    assert other_engine.choice.platform == DATAPROC
    assert "rows by synapseml are beyond" in str(other_engine.on(CLOUD_RUN).caution)


def test_the_database_is_billed_by_tier_disk_and_backups() -> None:
    small = database_cost(BillInputs(pools=1, database_tier="db-custom-1-3840"))
    assert small.instance_usd == pytest.approx(730 * (0.0413 + 3.75 * 0.007))
    assert small.disk_gb == 20
    assert small.disk_usd == pytest.approx(20 * 0.17)
    assert database_cost(BillInputs(database_tier="db-g1-small")).instance_usd == 730 * 0.035
    two_zones = database_cost(BillInputs(pools=1, database_replicas=2))
    zonal = database_cost(BillInputs(pools=1))
    assert two_zones.usd - two_zones.backup_usd == pytest.approx(2 * (zonal.usd - zonal.backup_usd))
    with pytest.raises(ConfigurationError, match=r"no price of the Cloud SQL tier 'db-perf-1'; it"):
        database_cost(BillInputs(database_tier="db-perf-1"))


def test_the_disk_grows_with_the_data_and_backups_follow_it() -> None:
    inputs = BillInputs(
        pools=2**20, history_days=100, snapshots_of_a_day=4, raw_row_bytes=256, pool_day_bytes=1024
    )
    cost = database_cost(inputs)
    assert (cost.disk_gb, cost.backup_gb) == (2 * 200, 1.5 * 200)
    assert cost.backup_usd == pytest.approx(300 * 0.08)


def test_a_region_without_a_price_of_cloud_sql_is_billed_as_another_one_that_is_named() -> None:
    london, frankfurt = (
        database_cost(BillInputs(region=region)) for region in ("europe-west2", "europe-west3")
    )
    assert (london.price_region, frankfurt.price_region) == ("europe-west2", "us-central1")
    assert london.usd > frankfurt.usd


def test_every_input_has_a_source_and_the_settings_are_named() -> None:
    inputs, sources = inputs_of(
        load_settings(
            _env_file=None, engine="lightgbm", region="europe-west1", train_days=90, refit_days=3
        ),
        7,
    )
    assert (inputs.pools, inputs.train_days, inputs.refit_days) == (7, 90, 3)
    assert (sources["train_days"], sources["region"]) == ("TRAIN_DAYS", "REGION")
    assert sources["forecast_seconds_per_pool"].startswith("measured on 2 cores")
    assert set(sources) == set(SOURCES) == set(BillInputs.__dataclass_fields__)
    document = modelled_bill(inputs).document()
    assert set(document["inputs"]) == set(document["sources"])
    assert document["prices"]["cloud_sql"]["vcpu_hour"] == 0.0413
    assert document["prices"]["serverless"]["dcu_hour"] == pytest.approx(0.066007)


def a_run(job: str = FORECAST, **more: Any) -> PastRun:
    values: dict[str, Any] = {
        "platform": DATAPROC,
        "batch_id": "forecast-1",
        "started": datetime(2026, 1, 1, tzinfo=UTC),
        "engine": "lightgbm" if job == FORECAST else None,
        "seconds": 345.0,
        "pools": 1_000,
        "rows": 365_000,
        "refits": 0,
        "cost_usd": None,
    }
    return PastRun(job=job, **values | more)


def inputs_from(*runs: PastRun, **inputs: Any) -> BillBasis:
    return with_measured(BillInputs(**inputs), SOURCES, runs)


def test_without_past_runs_the_model_stands() -> None:
    assert inputs_from() == BillBasis(BillInputs(), SOURCES, {})


def test_past_runs_replace_the_model_and_are_named() -> None:
    runs = [
        a_run(
            METRICS,
            batch_id=f"metrics-{day}",
            started=datetime(2026, 1, day, tzinfo=UTC),
            seconds=45.0 + seconds,
            rows=1_800_000,
        )
        for day, seconds in ((1, 50.0), (2, 100.0), (3, 9_000.0))
    ]
    inputs = inputs_from(*runs, a_run(seconds=345.0), a_run(seconds=1_045.0, refits=1))
    assert inputs.inputs.days_read == 1_800_000 / 1_000 / 4
    # 8 cores of two executors
    assert inputs.inputs.metrics_rows_per_core_second == 1_800_000 / 100 / 8
    assert inputs.inputs.forecast_seconds_per_pool == 0.3
    assert inputs.inputs.refit_seconds_per_pool == 1.0
    assert inputs.sources["metrics_rows_per_core_second"] == (
        "measured: median of 3 runs, 2026-01-01 to 2026-01-03, dataproc, 1,000 to 1,000 pools"
    )
    assert inputs.measured_from["days_read"] == ("metrics-1", "metrics-2", "metrics-3")
    assert inputs.sources["cold_seconds"] == SOURCES["cold_seconds"]
    bill = monthly_bill(inputs)
    assert bill.document()["measured_from"]["refit_seconds_per_pool"] == ["forecast-1"]


def test_a_bill_for_as_many_pools_takes_the_time_that_was_measured() -> None:
    """A bill for twice as many pools has twice the work, but not twice the start."""
    run = a_run(METRICS, platform=CLOUD_RUN, batch_id="cloud-run-metrics-1", seconds=545.0)
    inputs = inputs_from(run, pools=1_000)
    assert monthly_bill(inputs).on(CLOUD_RUN).jobs[0].seconds == pytest.approx(545.0)
    twice = inputs_from(run, pools=2_000)
    assert monthly_bill(twice).on(CLOUD_RUN).jobs[0].seconds == pytest.approx(1_080.0)
    # a batch has 8 cores for the work of a container with 4, and starts a JVM
    assert monthly_bill(inputs).on(DATAPROC).jobs[0].seconds == pytest.approx(90 + 45 + 535 / 2)


def test_a_run_that_is_shorter_than_the_models_start_says_how_long_a_start_is() -> None:
    """Such a run has no work of its own, so the rates are those of the other runs."""
    inputs = inputs_from(a_run(seconds=30.0), a_run(seconds=40.0))
    assert inputs.inputs.cold_seconds == 30.0
    assert inputs.inputs.forecast_seconds_per_pool == pytest.approx(10.0 / 1_000)
    alone = inputs_from(a_run(seconds=30.0)).inputs
    assert alone.forecast_seconds_per_pool == BillInputs().forecast_seconds_per_pool
    assert inputs.sources["cold_seconds"].startswith("measured: the shortest of 2 runs")


def test_a_container_without_a_jvm_starts_sooner() -> None:
    """The limits are those by which a run chooses its executor."""
    small, large = BillInputs(pools=2_000), BillInputs(pools=50_000)
    seconds = {}
    for inputs, executor in itertools.product((small, large), ("auto", "spark")):
        jobs = modelled_bill(replace(inputs, executor=executor)).on(CLOUD_RUN).jobs
        seconds[inputs.pools, executor] = [job.seconds for job in jobs]
    saved = small.cold_seconds - small.cold_seconds_without_jvm
    assert seconds[2_000, "spark"] == [job + saved for job in seconds[2_000, "auto"]]
    assert seconds[50_000, "spark"] == seconds[50_000, "auto"]
    by_spark = BillInputs(engine="synapseml")
    metrics, forecast = modelled_bill(by_spark).on(CLOUD_RUN).jobs
    assert metrics.seconds < by_spark.cold_seconds < forecast.seconds


def test_a_short_run_without_a_jvm_says_how_long_its_start_is() -> None:
    short = a_run(platform=CLOUD_RUN, batch_id="cloud-run-forecast-1", seconds=4.0)
    inputs = inputs_from(short, a_run(seconds=345.0))
    assert inputs.inputs.cold_seconds_without_jvm == 4.0
    assert inputs.inputs.cold_seconds == BillInputs().cold_seconds
    assert inputs.measured_from["cold_seconds_without_jvm"] == ("cloud-run-forecast-1",)


def test_what_the_service_billed_replaces_the_most_it_could_have() -> None:
    at_most = batch_usd(FORECAST, 365_000, 345.0, BillInputs())
    half = a_run(cost_usd=at_most / 2)
    container = a_run(platform=CLOUD_RUN, batch_id="cloud-run-forecast-1")
    inputs = inputs_from(half, container, pools=1_000)
    assert inputs.inputs.forecast_billed_share == pytest.approx(0.5)
    assert inputs.measured_from["forecast_billed_share"] == ("forecast-1",)
    assert inputs.inputs.metrics_billed_share == 1.0
    full = inputs_from(a_run(), container, pools=1_000)
    paid = [monthly_bill(entry).on(DATAPROC).jobs[1].usd for entry in (inputs, full)]
    assert paid[0] == pytest.approx(paid[1] / 2)


def test_runs_of_another_engine_or_of_unknown_size_are_left_out() -> None:
    assert (
        inputs_from(a_run(engine="synapseml"), a_run(pools=None), a_run(METRICS, rows=0)).inputs
        == BillInputs()
    )


INSERT = text(
    "INSERT INTO yieldspark.run_ledger (run_id, job, status, mode, engine, code_version,"
    " started_at, batch_id, seconds, plan, rows, stages, checks, cost_usd) VALUES (:id, :job,"
    " :status, :mode, 'lightgbm', 'x', :at, :batch_id, :seconds, CAST(:plan AS jsonb),"
    " '{\"read\": 7}', '{}', '[]', :usd)"
)
DAILY_RUN: dict[str, Any] = {
    "job": FORECAST,
    "status": "succeeded",
    "mode": "daily",
    "batch_id": "forecast-x",
    "seconds": 60.0,
    "plan": '{"pools": 5, "refits": 6}',
    "usd": 0.25,
}
OTHER_RUNS: tuple[dict[str, Any], ...] = (
    {"status": "failed"},
    {"status": "nothing_to_do"},
    {"mode": "as_of"},
    {"batch_id": None},
    {"seconds": None},
)


def test_past_runs_are_successful_daily_runs_in_the_cloud_newest_first(
    database: Settings, engine: Engine
) -> None:
    first = datetime(2026, 1, 1, tzinfo=UTC)
    daily_runs = [
        DAILY_RUN | {"id": f"night {day}", "at": first + timedelta(days=day), "seconds": float(day)}
        for day in range(PAST_RUNS + 5)
    ]
    others = [
        DAILY_RUN | {"id": f"other {number}", "at": first + timedelta(days=90)} | other
        for number, other in enumerate(OTHER_RUNS)
    ]
    container = {"id": "container", "at": first, "batch_id": "cloud-run-forecast-x", "usd": None}
    with engine.begin() as connection:
        connection.execute(INSERT, [*daily_runs, *others, DAILY_RUN | container])
    actual = past_runs(database)
    assert actual.source == f"{PAST_RUNS + 1} good daily runs in the cloud"
    newest, *_, last = actual.runs
    assert newest == PastRun(
        FORECAST,
        DATAPROC,
        "forecast-x",
        first + timedelta(days=PAST_RUNS + 4),
        "lightgbm",
        float(PAST_RUNS + 4),
        5,
        7,
        6,
        0.25,
    )
    assert (last.platform, last.batch_id, last.seconds) == (CLOUD_RUN, "cloud-run-forecast-x", 60.0)
    assert usual_seconds(database, FORECAST) == [float(day) for day in range(PAST_RUNS + 4, 4, -1)]
    assert usual_seconds(database, METRICS) == []


def test_the_command_takes_past_runs_where_the_ledger_is_in_reach(
    database: Settings, engine: Engine, tmp_path: Path
) -> None:
    run = DAILY_RUN | {"id": "night", "at": datetime(2026, 1, 1, tzinfo=UTC), "mode": "daily"}
    with engine.begin() as connection:
        connection.execute(INSERT, run)
    values = environment_of(database)
    command = WorkflowsHere(
        tmp_path,
        {name: value for name, value in values.items() if name.startswith("DB_")}
        | {"ENGINE": "lightgbm"},
    )
    bill = command.json("cost", "--pools", "5")
    assert bill["ledger"] == "1 good daily runs in the cloud"
    assert bill["measured_from"]["refit_seconds_per_pool"] == ["forecast-x"]
    assert bill["inputs"]["refit_seconds_per_pool"] == pytest.approx((60 - 45) / 5)
    # the table wraps the sentence
    output = " ".join(command("cost", "--pools", "5").stdout.split())
    assert "measured: median of 1 runs, 2026-01-01 to 2026-01-01, dataproc, 5 to 5" in output


def test_a_ledger_out_of_reach_leaves_the_model_and_says_why(database: Settings) -> None:
    nowhere = past_runs(database.model_copy(update={"db_host": None}))
    closed = past_runs(database.model_copy(update={"db_host": "127.0.0.1", "db_port": 1}))
    assert (nowhere.runs, nowhere.source) == ((), "not read: DB_HOST is not set")
    assert closed.runs == ()
    assert closed.source.startswith("not read: ")


def test_the_page_says_the_limit_of_cloud_run() -> None:
    page = " ".join((DOCS / "cloud.md").read_text(encoding="utf-8").split())
    assert f"`EXPECTED_ROWS` is at most {CLOUD_RUN_ROWS:,}," in page


def test_the_tier_and_the_disk_are_those_that_terraform_makes() -> None:
    folder = PROJECT / "terraform"
    if not folder.exists():
        pytest.skip("terraform/ is not in this checkout")
    source = "".join(path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.tf")))
    inputs = BillInputs()
    for name, value in (
        ("database_tier", f'"{inputs.database_tier}"'),
        ("database_disk_gb", f"{inputs.database_disk_gb:g}"),
        ("database_high_availability", "false" if inputs.database_replicas == 1 else "true"),
    ):
        block = re.search(rf'variable "{name}" {{\n(.*?)\n}}', source, re.DOTALL)
        assert block, name
        assert re.search(rf"^ *default *= {re.escape(value)}$", block[1], re.MULTILINE), block[1]
