"""Builds a batch: the request body of the REST API, as JSON, from settings, a release and a job.

The command line, a release (`batches.json`, which the workflow reads) and the tests call it. Batch
id and request id are no part of the body: they go into the query of the address. Reads and writes
nothing.
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
"""Prefixes of the jars of `local_runtime/spark_jars/ivy.xml`; a release has one of each."""

LOCAL_ONLY_SETTINGS = {
    *("yieldspark_home", "jars_dir", "report_dir", "model_parameters_file"),  # paths
    *(
        "spark_master",
        "spark_driver_memory",
        "shuffle_partitions",
        "model_threads",
    ),  # sizes: the batch has its own
    *("environment", "engine", "code_version", "batch_id"),  # the batch sets them
    *(
        "code_bucket",
        "staging_bucket",
        "batch_service_account",
        "batch_subnetwork",
        "container_image",
    ),  # part of the batch itself
    *("batch_ttl_minutes", "max_executors", "expected_rows", "platform", "workflow_name"),
    # a clock and logs of this machine's runs
    *("clock_shift_seconds", "spark_event_logs", "spark_event_log_days"),
    # address of Google's API and its token: the platform has its own
    *("google_api_endpoint", "google_api_token_file", "monitoring_endpoint"),
}
"""Settings that are not passed to the job."""

_REQUIRED_SETTINGS = (
    "db_host",
    "batch_service_account",
    "batch_subnetwork",
    "staging_bucket",
    "container_image",
)

PASSWORD_SECRET = "db_password_secret"

DURABLE_REGISTRIES = (REGISTRY_DATABASE, "https", "http")
"""Schemes of MLFLOW_TRACKING_URI that outlive a batch; `sqlite` and `file` are on its disk."""

DRIVER_VARIABLE = "spark.dataproc.driverEnv."
"""Prefix of a property that becomes an environment variable of the driver."""

UTC_JVM = "-Duser.timezone=UTC"
"""Spark 3.5 maps JDBC dates through the time zone of the JVM, not of the session. A local run has
the same option (`spark/session.py`).
"""


def batch_key(job: str, engine: str | None) -> str:
    """Return the key of a batch in batches.json: JOB, or JOB/ENGINE for a job with engines."""
    return f"{job}/{engine}" if engine else job


def batch_id(job: str, execution: str) -> str:
    """Return the batch id of a job, which is the same for every try of one execution.

    Args:
        job: name of the job.
        execution: a UUID, the execution's id in the workflow or a random one.

    Raises:
        ConfigurationError: no job has this name, or the service does not take the id.
    """
    name = f"{job_spec(job).short_name}-{execution}"
    check_batch_id(name)
    return name


def request_id(job: str, execution: str) -> str:
    """Return the request id, by which the service recognises a request that is sent again.

    Args:
        job: name of the job.
        execution: a UUID, as in `batch_id`.

    Raises:
        ConfigurationError: no job has this name, or the id has more than 40 characters.
    """
    name = f"{job_spec(job).request_prefix}-{execution}"
    check_request_id(name)
    return name


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
    """Return the body of `batches.create`, as the REST API's JSON.

    Args:
        settings: the settings of the user.
        release: the release whose code and jars the batch runs.
        job: name of the job.
        engine: forecasting engine of a job that has one (default: the setting ENGINE).
        rows: number of rows that the job will read (default: EXPECTED_ROWS).
        arguments: arguments of the job's command line.
        today: the day (UTC) that the last days of the runtime are compared with (default: today).

    Raises:
        ConfigurationError: a setting is missing, the job has no such engine, the release lacks a
            jar, or the batch has an error. The message names each.
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
            # present even when empty: a submitter adds to it
            "args": list(arguments),
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


def required_settings(settings: Settings) -> tuple[str, ...]:
    """Return the names of the settings that a batch needs: a login by IAM has no password."""
    return _REQUIRED_SETTINGS if settings.db_iam_auth else (*_REQUIRED_SETTINGS, PASSWORD_SECRET)


def _require(settings: Settings) -> None:
    missing = [name.upper() for name in required_settings(settings) if not getattr(settings, name)]
    if missing:
        raise ConfigurationError(
            f"{', '.join(missing)} not set, and a batch needs it; set it in the environment or in"
            " .env"
        )


def _require_registry(settings: Settings) -> None:
    """Raise ConfigurationError for a registry on the batch's own disk."""
    if settings.google_api_endpoint:
        # batches of the emulator share this machine's registry
        return
    addresses = {
        "MLFLOW_TRACKING_URI": settings.mlflow_tracking_uri,
        "MLFLOW_ARTIFACTS_URI": settings.mlflow_artifacts_uri,
    }
    tracking, artifacts = ((uri or "").partition("://")[0] for uri in addresses.values())
    if tracking not in DURABLE_REGISTRIES:
        name = "MLFLOW_TRACKING_URI"
    elif addresses["MLFLOW_ARTIFACTS_URI"] and artifacts != "gs":
        name = "MLFLOW_ARTIFACTS_URI"
    else:
        return
    raise ConfigurationError(
        f"{name} is {addresses[name] or 'not set'}, and the files of a batch are deleted with it:"
        " every run would fit a model and lose it. Set MLFLOW_TRACKING_URI to"
        f" {REGISTRY_DATABASE}://{settings.db_host}/mlflow, with"
        " MLFLOW_ARTIFACTS_URI=gs://BUCKET/models, or to the address of an MLflow server"
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
    """Return the jars of a platform: PostgreSQL's driver, and those of SynapseML for its engine."""
    prefixes: tuple[str, ...] = JDBC_JARS
    if platform.engine == "synapseml":
        # only then: these jars are built for another Scala than the other runtimes have
        prefixes = (*prefixes, *SYNAPSEML_JARS)
    jars: list[str] = []
    wrong: list[str] = []
    for prefix in prefixes:
        names = [jar for jar in release.jars if jar.startswith(prefix)]
        jars += names
        if len(names) != 1:
            wrong.append(f"{prefix}*.jar ({len(names)})")
    if wrong:
        raise ConfigurationError(
            f"release {release.version} must have one of each jar, but has: {', '.join(wrong)};"
            " fetch the jars with `python run_spark_local.py`, then release again"
        )
    return jars


def _properties(
    settings: Settings, release: Release, platform: Platform, size: BatchSize
) -> dict[str, str]:
    variables = job_environment(settings, release.version, platform, size)
    return {
        **size.properties(),
        "spark.driver.extraJavaOptions": UTC_JVM,
        "spark.executor.extraJavaOptions": UTC_JVM,
        # no settings: the driver passes those that executors need with their tasks
        "spark.executorEnv.OMP_WAIT_POLICY": "PASSIVE",
        **{f"{DRIVER_VARIABLE}{name}": value for name, value in sorted(variables.items())},
    }


def job_environment(
    settings: Settings, version: str, platform: Platform, size: BatchSize
) -> dict[str, str]:
    """Return the driver's environment variables: the user's settings, and those of the batch.

    They have no value of a secret and no path of this machine.

    Args:
        settings: the settings of the user.
        version: version of the release.
        platform: runtime and engine of the batch.
        size: machines of the batch, for the number of LightGBM's threads.
    """
    fits_on = size.executor if platform.engine == "synapseml" else size.driver
    return {
        **_portable_settings(settings),
        **({"ENGINE": platform.engine} if platform.engine else {}),
        "CODE_VERSION": version,
        "ENVIRONMENT": "production",
        # on busy cores LightGBM's threads spin for minutes otherwise
        "OMP_WAIT_POLICY": "PASSIVE",
        # a container may see all cores of its host
        "MODEL_THREADS": str(fits_on.cores),
    }


def operator_environment(settings: Settings) -> dict[str, str]:
    """Return the environment variables of the operator's container.

    They are those of the jobs and the engine of the daily run, without version and threads, which
    the container sets itself.
    """
    return {
        **_portable_settings(settings),
        "ENGINE": settings.engine,
        "ENVIRONMENT": "production",
        "OMP_WAIT_POLICY": "PASSIVE",
    }


def _portable_settings(settings: Settings) -> dict[str, str]:
    """Return the settings that the user has set, without secrets and those of one machine."""
    names = settings.model_fields_set - LOCAL_ONLY_SETTINGS
    values = {name: getattr(settings, name) for name in names}
    return {
        name.upper(): _text(value)
        for name, value in values.items()
        if value is not None and not isinstance(value, SecretStr | Path)
    }


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _secret_values(settings: Settings) -> list[str]:
    values = [getattr(settings, name) for name in Settings.model_fields]
    return [value.get_secret_value() for value in values if isinstance(value, SecretStr)]
