"""Tests the request that starts a batch: its content for each job, the settings that it passes on,
and its ids.
"""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from uuid import uuid4

import pytest
from google.cloud import dataproc_v1
from google.protobuf.json_format import MessageToDict, ParseDict  # type: ignore[import-untyped]

from common.errors import ConfigurationError
from config_spark import Settings
from tests.support.batches import (
    BATCHES,
    IMAGE,
    PASSWORD,
    REGISTRY,
    RELEASE,
    SECRET,
    TODAY,
    a_batch,
    cloud_settings,
    properties_of,
)
from tests.support.processes import PROJECT
from workflows.spec.batch_request import (
    JDBC_JARS,
    LOCAL_ONLY_SETTINGS,
    SYNAPSEML_JARS,
    batch_id,
    batch_key,
    build_batch,
    request_id,
)
from workflows.spec.batch_validation import check_batch_id
from workflows.spec.release_paths import Release

VERSION = RELEASE.version
CODE = f"gs://a-project-code/versions/{VERSION}"


def variables_of(batch: dict[str, object]) -> dict[str, str]:
    prefix = "spark.dataproc.driverEnv."
    return {
        name.removeprefix(prefix): value
        for name, value in properties_of(batch).items()
        if name.startswith(prefix)
    }


def test_a_login_by_iam_passes_no_password() -> None:
    settings = cloud_settings(
        db_password=None,
        db_password_secret=None,
        db_iam_auth=True,
        db_sslmode="require",
        db_user="yieldspark-batch@acme.iam.gserviceaccount.com",
    )
    variables = variables_of(build_batch(settings, RELEASE, "calculate_metrics", today=TODAY))
    assert variables["DB_IAM_AUTH"].lower() == "true"
    assert "DB_PASSWORD_SECRET" not in variables
    with pytest.raises(ConfigurationError, match="DB_PASSWORD_SECRET not set"):
        build_batch(
            cloud_settings(db_password_secret=None), RELEASE, "calculate_metrics", today=TODAY
        )


def test_the_metrics_batch_is_this() -> None:
    batch = build_batch(
        cloud_settings(),
        RELEASE,
        "calculate_metrics",
        arguments=["--full-refresh"],
        today=TODAY,
    )
    properties = batch["runtimeConfig"].pop("properties")
    assert batch == {
        "labels": {"app": "yieldspark", "job": "calculate_metrics", "version": VERSION},
        "pysparkBatch": {
            "mainPythonFileUri": f"{CODE}/calculate_metrics.py",
            "args": ["--full-refresh"],
            "pythonFileUris": [f"{CODE}/yieldspark.zip"],
            "jarFileUris": [f"{CODE}/jars/postgresql-42.7.14.jar"],
        },
        "runtimeConfig": {"version": "2.3", "containerImage": IMAGE},
        "environmentConfig": {
            "executionConfig": {
                "serviceAccount": "batches@a-project.iam.gserviceaccount.com",
                "subnetworkUri": "projects/a-project/regions/europe-west1/subnetworks/yieldspark",
                "ttl": "7200s",
                "stagingBucket": "a-project-staging",
                "authenticationConfig": {"userWorkloadAuthenticationType": "SERVICE_ACCOUNT"},
            }
        },
    }
    assert {name: value for name, value in properties.items() if "driverEnv" not in name} == {
        "spark.driver.cores": "4",
        "spark.driver.memory": "2048m",
        "spark.driver.memoryOverhead": "2048m",
        "spark.dataproc.driver.disk.size": "250g",
        "spark.executor.cores": "4",
        "spark.executor.memory": "2048m",
        "spark.executor.memoryOverhead": "2048m",
        "spark.dataproc.executor.disk.size": "250g",
        "spark.dynamicAllocation.enabled": "true",
        "spark.dynamicAllocation.initialExecutors": "2",
        "spark.dynamicAllocation.minExecutors": "2",
        "spark.dynamicAllocation.maxExecutors": "2",
        "spark.sql.shuffle.partitions": "16",
        "spark.default.parallelism": "8",
        "spark.driver.extraJavaOptions": "-Duser.timezone=UTC",
        "spark.executor.extraJavaOptions": "-Duser.timezone=UTC",
        "spark.executorEnv.OMP_WAIT_POLICY": "PASSIVE",
    }


@pytest.mark.parametrize(("job", "engine"), BATCHES, ids=[batch_key(*pair) for pair in BATCHES])
def test_googles_own_types_read_every_batch_and_give_it_back(job: str, engine: str | None) -> None:
    batch = build_batch(
        cloud_settings(), RELEASE, job, engine=engine, arguments=["--dry-run"], today=TODAY
    )
    message = dataproc_v1.Batch.pb(dataproc_v1.Batch())
    assert (
        MessageToDict(
            ParseDict(json.loads(json.dumps(batch)), message, ignore_unknown_fields=False)
        )
        == batch
    )


def test_a_forecast_goes_where_its_engine_exists_with_its_jars() -> None:
    synapseml, native = (
        a_batch("forecast_pools", "synapseml"),
        a_batch("forecast_pools", "lightgbm"),
    )
    assert [batch["runtimeConfig"]["version"] for batch in (synapseml, native)] == ["1.2", "2.3"]
    assert [variables_of(batch)["ENGINE"] for batch in (synapseml, native)] == [
        "synapseml",
        "lightgbm",
    ]
    assert {uri.rpartition("/jars/")[2] for uri in synapseml["pysparkBatch"]["jarFileUris"]} == set(
        RELEASE.jars
    )
    assert native["pysparkBatch"]["jarFileUris"] == [f"{CODE}/jars/postgresql-42.7.14.jar"]


def test_the_setting_names_the_engine_where_the_caller_does_not() -> None:
    for engine, runtime in (("lightgbm", "2.3"), ("synapseml", "1.2")):
        batch = build_batch(cloud_settings(engine=engine), RELEASE, "forecast_pools", today=TODAY)
        assert batch["runtimeConfig"]["version"] == runtime
    assert "ENGINE" not in variables_of(a_batch())


def test_the_names_of_the_jars_are_ivys() -> None:
    ivy = ET.parse(PROJECT / "local_runtime/spark_jars/ivy.xml").getroot()
    names = {
        f"{dependency.get('name')}-{dependency.get('rev')}.jar"
        for dependency in ivy.iter("dependency")
    }
    beginnings = (*JDBC_JARS, *SYNAPSEML_JARS)
    for beginning in beginnings:
        assert len([name for name in names if name.startswith(beginning)]) == 1, beginning
    assert names == set(RELEASE.jars)


def test_a_release_without_a_jar_is_refused_by_its_name() -> None:
    without = Release(
        RELEASE.bucket,
        RELEASE.version,
        tuple(jar for jar in RELEASE.jars if not jar.startswith("lightgbmlib")),
    )
    build_batch(cloud_settings(), without, "calculate_metrics", today=TODAY)
    with pytest.raises(ConfigurationError, match=r"but has: lightgbmlib-\*\.jar \(0\)"):
        build_batch(cloud_settings(), without, "forecast_pools", engine="synapseml", today=TODAY)


def test_of_the_settings_only_what_the_user_set_goes_on() -> None:
    batch = a_batch(max_fill_days=3, market_features=True, read_transport="adbc")
    assert variables_of(batch) == {
        "CODE_VERSION": VERSION,
        "DB_HOST": "10.20.0.3",
        "DB_PASSWORD_SECRET": SECRET,
        "ENVIRONMENT": "production",
        "MARKET_FEATURES": "true",
        "MAX_FILL_DAYS": "3",
        "MLFLOW_ARTIFACTS_URI": "gs://a-project-models/models",
        "MLFLOW_TRACKING_URI": REGISTRY,
        "MODEL_THREADS": "4",
        "OMP_WAIT_POLICY": "PASSIVE",
        "PROJECT_ID": "a-project",
        "READ_TRANSPORT": "adbc",
        "REGION": "europe-west1",
    }


def test_neither_a_password_nor_this_machine_goes_on() -> None:
    here = {
        **{
            "yieldspark_home": "/home/me/.yieldspark",
            "jars_dir": "/home/me/jars",
            "report_dir": "/home/me/reports",
        },
        **{
            "model_parameters_file": "/home/me/tuned.json",
            "spark_master": "local[2]",
            "spark_driver_memory": "3g",
        },
        **{
            "shuffle_partitions": 3,
            "model_threads": 1,
            "environment": "local",
            "engine": "synapseml",
            "code_version": "mine",
        },
        **{"batch_id": "a-batch", "expected_rows": 5, "workflow_name": "mine"},
        "platform": "cloud_run",
    }
    assert set(here) <= LOCAL_ONLY_SETTINGS
    batch = build_batch(
        cloud_settings(**here), RELEASE, "forecast_pools", engine="lightgbm", today=TODAY
    )
    output = json.dumps(batch)
    assert PASSWORD not in output
    assert not re.search(r"/home/me|local\[2\]|\"local\"|\"mine\"|DB_PASSWORD\"", output)
    assert variables_of(batch) == variables_of(a_batch("forecast_pools", "lightgbm"))


def test_the_variables_are_settings_that_the_job_can_read() -> None:
    variables = variables_of(
        a_batch("forecast_pools", "lightgbm", market_features=True, max_segment_regression=0.1)
    )
    job = Settings(_env_file=None, **{name.lower(): value for name, value in variables.items()})  # type: ignore[arg-type]
    assert (job.environment, job.engine, job.market_features, job.max_segment_regression) == (
        "production",
        "lightgbm",
        True,
        0.1,
    )
    assert job.code_version == VERSION


def test_executors_get_no_settings() -> None:
    properties = properties_of(a_batch())
    assert [name for name in properties if name.startswith("spark.executorEnv.")] == [
        "spark.executorEnv.OMP_WAIT_POLICY"
    ]


def test_every_missing_setting_is_named_at_once() -> None:
    with pytest.raises(ConfigurationError) as caught:
        build_batch(
            cloud_settings(
                db_host=None, mlflow_tracking_uri=None, staging_bucket=None, container_image=None
            ),
            RELEASE,
            "calculate_metrics",
            today=TODAY,
        )
    assert str(caught.value).startswith("DB_HOST, STAGING_BUCKET, CONTAINER_IMAGE not set")


@pytest.mark.parametrize(
    ("registry", "message"),
    [
        ({"mlflow_tracking_uri": None, "mlflow_artifacts_uri": None}, "TRACKING_URI is not set,"),
        ({"mlflow_tracking_uri": "sqlite:////models/mlflow.db"}, "TRACKING_URI is sqlite:////mod"),
        ({"mlflow_tracking_uri": "file:///models"}, "MLFLOW_TRACKING_URI is file:///models,"),
        ({"mlflow_tracking_uri": "./mlruns"}, r"MLFLOW_TRACKING_URI is \./mlruns,"),
        ({"mlflow_artifacts_uri": "file:///models"}, "MLFLOW_ARTIFACTS_URI is file:///models,"),
        ({"mlflow_artifacts_uri": "/models"}, "MLFLOW_ARTIFACTS_URI is /models,"),
    ],
)
def test_a_forecast_whose_models_would_end_with_the_batch_is_refused(
    registry: dict[str, str | None], message: str
) -> None:
    with pytest.raises(
        ConfigurationError,
        match=(
            rf"{message}.* fit a model and lose it\. Set MLFLOW_TRACKING_URI to"
            r" postgresql\+psycopg2://10\.20\.0\.3/mlflow, with MLFLOW_ARTIFACTS_URI=gs://"
        ),
    ):
        a_batch("forecast_pools", "lightgbm", **registry)
    a_batch("calculate_metrics", **registry)
    a_batch("forecast_pools", "lightgbm", google_api_endpoint="http://127.0.0.1:1", **registry)


def test_a_forecast_with_a_server_of_mlflow_needs_no_bucket_for_models() -> None:
    a_batch(
        "forecast_pools",
        "lightgbm",
        mlflow_tracking_uri="https://mlflow.example",
        mlflow_artifacts_uri=None,
    )


def test_a_short_subnetwork_and_a_ttl_are_passed_as_they_are() -> None:
    execution = a_batch(batch_subnetwork="yieldspark", batch_ttl_minutes=10)["environmentConfig"][
        "executionConfig"
    ]
    assert (execution["subnetworkUri"], execution["ttl"]) == ("yieldspark", "600s")


def test_rows_of_the_plan_override_the_expected_rows() -> None:
    settings = cloud_settings(expected_rows=50_000_000)
    executors = [
        properties_of(build_batch(settings, RELEASE, "calculate_metrics", rows=rows, today=TODAY))[
            "spark.dynamicAllocation.maxExecutors"
        ]
        for rows in (None, 0, 70_000_000)
    ]
    assert executors == ["5", "2", "7"]


def test_the_request_is_deterministic() -> None:
    assert [a_batch(), a_batch()] == [a_batch()] * 2
    execution = str(uuid4())
    for job in ("calculate_metrics", "forecast_pools"):
        assert batch_id(job, execution) == batch_id(job, execution)
        assert request_id(job, execution) == request_id(job, execution)
    assert batch_id("forecast_pools", execution) == f"forecast-{execution}"
    assert request_id("calculate_metrics", execution) == f"m-{execution}"
    check_batch_id(
        batch_id("calculate_metrics", "20261122-1762-4000-8000-120000000000")
    )  # a UUID may look like a day


@pytest.mark.parametrize(
    "clock", ["20261122-0130", "2026-11-22", "1763776800", "1763776800123", "20261122t013000"]
)
def test_an_id_from_the_clock_is_refused(clock: str) -> None:
    with pytest.raises(ConfigurationError, match="comes from a clock"):
        batch_id("calculate_metrics", clock)


def test_ids_of_another_job_or_too_long_are_refused() -> None:
    with pytest.raises(
        ConfigurationError,
        match="ingest is no job; allowed: calculate_metrics, forecast_pools",
    ):
        batch_id("ingest", str(uuid4()))
    with pytest.raises(ConfigurationError, match="is not 1 to 40 of"):
        request_id("forecast_pools", f"{uuid4()}-again")


def test_the_keys_of_batches_json() -> None:
    assert [batch_key(*pair) for pair in BATCHES] == [
        "calculate_metrics",
        "forecast_pools/lightgbm",
        "forecast_pools/synapseml",
    ]
