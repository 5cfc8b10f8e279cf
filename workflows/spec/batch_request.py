"""The one builder of a batch: settings, release and job in, the request's body as the REST API's
JSON out. Pure, and for all who submit.

The command line, the release (`batches.json`, which the workflow reads) and the tests call it. Ids
are no part of the body: they stand in the query of the address, `batchId` and `requestId`, and come
from the execution, so that a second try finds the batch of the first. Settings reach the job as
variables of the driver; of a password only the secret's name does, and executors get no settings at
all.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from common.errors import ConfigurationError
from common.jobs import job_spec
from common.registry_address import REGISTRY_DATABASE
from config_spark import Settings
from workflows.spec.batch_size import BatchSize, size_for
from workflows.spec.batch_validation import check_batch, check_batch_id, check_request_id
from workflows.spec.platforms import Platform, platform_for
from workflows.spec.release_paths import CODE, Release, entry_name, jar_name

JDBC_JARS = ("postgresql-",)
SYNAPSEML_JARS = ("synapseml-core_", "synapseml-lightgbm_", "lightgbmlib-", "spray-json_")
"""How the names of the jars begin, as `local_runtime/spark_jars/ivy.xml` has them: one of each."""

NOT_THE_JOBS = {
    *("yieldspark_home", "jars_dir", "report_dir", "model_parameters_file"),  # paths
    *(
        "spark_master",
        "spark_driver_memory",
        "shuffle_partitions",
        "model_threads",
    ),  # sizes: the batch has its own
    *("environment", "engine", "code_version", "batch_id"),  # the batch says what they are there
    *(
        "code_bucket",
        "staging_bucket",
        "batch_service_account",
        "batch_subnetwork",
        "container_image",
    ),  # what the batch itself is made of
    *("batch_ttl_minutes", "max_executors", "expected_rows", "platform", "workflow_name"),
    # where Google is and with what token it is asked, the platform itself says
    *("google_api_endpoint", "google_api_token_file"),
}
"""Settings that stay here though the user set them."""

REQUIRED = (
    "db_host",
    "db_password_secret",
    "batch_service_account",
    "batch_subnetwork",
    "staging_bucket",
    "container_image",
)

KEPT_REGISTRIES = (REGISTRY_DATABASE, "https", "http")
"""Schemes of MLFLOW_TRACKING_URI that outlive a batch; `sqlite` and `file` go with its disk."""

DRIVER_VARIABLE = "spark.dataproc.driverEnv."
"""Begins the name of a property that becomes a variable of the driver."""

UTC_JVM = "-Duser.timezone=UTC"
"""Spark 3.5 maps JDBC dates through the JVM's own zone, whatever the session's is; as on a laptop
(`spark/session.py`).
"""


def batch_key(job: str, engine: str | None) -> str:
    """The batch's key in batches.json: the job, and for a forecast the engine behind it."""
    return f"{job}/{engine}" if engine else job


def batch_id(job: str, execution: str) -> str:
    """The same for every try of one execution.

    Args: execution is a UUID: the workflow's execution id, or a random one. Raises:
    ConfigurationError.
    """
    made = f"{job_spec(job).short_name}-{execution}"
    check_batch_id(made)
    return made


def request_id(job: str, execution: str) -> str:
    """What tells the service that two requests are one; 40 characters at most. Raises:
    ConfigurationError.
    """
    made = f"{job_spec(job).request_prefix}-{execution}"
    check_request_id(made)
    return made


def build_batch(
    settings: Settings,
    release: Release,
    job: str,
    *,
    engine: str | None = None,
    rows: int | None = None,
    arguments: Sequence[str] = (),
    today: date | None = None,
) -> dict[str, Any]:
    """The body of `batches.create`.

    Args: engine is for a forecast (default: the setting). rows is what the plan will read (default:
    EXPECTED_ROWS). arguments are the job's own. today (UTC) stands in for the clock, which only the
    dates of the platform need.
    Raises: ConfigurationError naming each setting that is missing, a pair without a platform, jars
    that the release has not, or a batch's faults.
    """
    _require(settings)
    spec = job_spec(job)
    if spec.needs_model_registry:
        _require_registry(settings)
    name = engine or spec.engine_of(settings.engine)
    platform = platform_for(job, name, today=today or datetime.now(UTC).date())
    size = size_for(
        job,
        name,
        settings.expected_rows if rows is None else rows,
        max_executors=settings.max_executors,
    )
    batch: dict[str, Any] = {
        "labels": {"app": "yieldspark", "job": job, "version": release.version[:40]},
        "pysparkBatch": {
            "mainPythonFileUri": release.uri(entry_name(job)),
            "args": list(arguments),  # there even when empty: who submits adds to it
            "pythonFileUris": [release.uri(CODE)],
            "jarFileUris": [release.uri(jar_name(jar)) for jar in _jars(release, platform)],
        },
        "runtimeConfig": {
            "version": platform.runtime,
            "containerImage": settings.container_image,
            "properties": _properties(settings, release, platform, size),
        },
        "environmentConfig": {"executionConfig": _execution(settings)},
    }
    check_batch(batch, secrets=_secret_values(settings))
    return batch


def _require(settings: Settings) -> None:
    missing = [name.upper() for name in REQUIRED if not getattr(settings, name)]
    if missing:
        raise ConfigurationError(
            f"{', '.join(missing)} not set, and a batch needs it; set it in the environment or in"
            " .env"
        )


def _require_registry(settings: Settings) -> None:
    """Raises: ConfigurationError for a registry on the batch's own disk. The local cloud's batches
    share this machine's.
    """
    if settings.google_api_endpoint:
        return
    given = {
        "MLFLOW_TRACKING_URI": settings.mlflow_tracking_uri,
        "MLFLOW_ARTIFACTS_URI": settings.mlflow_artifacts_uri,
    }
    tracking, artifacts = ((uri or "").partition("://")[0] for uri in given.values())
    if tracking not in KEPT_REGISTRIES:
        name = "MLFLOW_TRACKING_URI"
    elif given["MLFLOW_ARTIFACTS_URI"] and artifacts != "gs":
        name = "MLFLOW_ARTIFACTS_URI"
    else:
        return
    raise ConfigurationError(
        f"{name} is {given[name] or 'not set'}, and a batch's own files end with it: every run"
        f" would fit a model and forget it. Set MLFLOW_TRACKING_URI to {REGISTRY_DATABASE}://"
        f"{settings.db_host}/mlflow, with MLFLOW_ARTIFACTS_URI=gs://BUCKET/models, or to the"
        " address of an MLflow server"
    )


def _execution(settings: Settings) -> dict[str, Any]:
    return {
        "serviceAccount": settings.batch_service_account,
        "subnetworkUri": settings.batch_subnetwork,
        "ttl": f"{settings.batch_ttl_minutes * 60}s",
        "stagingBucket": settings.staging_bucket,
        "authenticationConfig": {"userWorkloadAuthenticationType": "SERVICE_ACCOUNT"},
    }


def _jars(release: Release, platform: Platform) -> list[str]:
    """PostgreSQL's driver, and for the engine synapseml its four: a jar for another Scala must not
    lie on the path of the others.
    """
    beginnings = (*JDBC_JARS, *(SYNAPSEML_JARS if platform.engine == "synapseml" else ()))
    found = {
        beginning: [jar for jar in release.jars if jar.startswith(beginning)]
        for beginning in beginnings
    }
    wrong = [
        f"{beginning}*.jar ({len(jars)})" for beginning, jars in found.items() if len(jars) != 1
    ]
    if wrong:
        raise ConfigurationError(
            f"release {release.version} must have one of each jar, and has otherwise:"
            f" {', '.join(wrong)}; fetch the jars with `python run_spark_local.py`, then release"
            " again"
        )
    return [jar for jars in found.values() for jar in jars]


def _properties(
    settings: Settings, release: Release, platform: Platform, size: BatchSize
) -> dict[str, str]:
    variables = job_environment(settings, release.version, platform, size)
    return {
        **size.properties(),
        "spark.driver.extraJavaOptions": UTC_JVM,
        "spark.executor.extraJavaOptions": UTC_JVM,
        # nothing of the settings: what executors need of them, the driver hands to their tasks
        "spark.executorEnv.OMP_WAIT_POLICY": "PASSIVE",
        **{f"{DRIVER_VARIABLE}{name}": value for name, value in sorted(variables.items())},
    }


def job_environment(
    settings: Settings, version: str, platform: Platform, size: BatchSize
) -> dict[str, str]:
    """The driver's variables: what the user set, and what the batch itself decides. No secret's
    value, no path of this machine.
    """
    fits_on = size.executor if platform.engine == "synapseml" else size.driver
    return {
        **_chosen(settings),
        **({"ENGINE": platform.engine} if platform.engine else {}),
        "CODE_VERSION": version,
        "ENVIRONMENT": "production",
        # on busy cores LightGBM's threads spin for minutes otherwise
        "OMP_WAIT_POLICY": "PASSIVE",
        # a container may see all cores of its host
        "MODEL_THREADS": str(fits_on.cores),
    }


def operator_environment(settings: Settings) -> dict[str, str]:
    """The variables of the operator's container: those of the jobs, and the engine of the nightly
    run. What the container itself decides (version, threads) is no part of them.
    """
    return {
        **_chosen(settings),
        "ENGINE": settings.engine,
        "ENVIRONMENT": "production",
        "OMP_WAIT_POLICY": "PASSIVE",
    }


def _chosen(settings: Settings) -> dict[str, str]:
    """The settings that the user gave and that are the same on every machine, without secrets."""
    given = {name: getattr(settings, name) for name in settings.model_fields_set - NOT_THE_JOBS}
    return {
        name.upper(): _text(value)
        for name, value in given.items()
        if value is not None and not isinstance(value, SecretStr | Path)
    }


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _secret_values(settings: Settings) -> list[str]:
    values = [getattr(settings, name) for name in Settings.model_fields]
    return [value.get_secret_value() for value in values if isinstance(value, SecretStr)]
