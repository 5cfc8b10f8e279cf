"""The settings of every command and job: one frozen object, built once at the edge from the
environment and `.env`.

Units stand in each field's description: APY in percent (5.0 = 5 %), TVL in USD, gas in gwei, days
are UTC calendar days. Below the edge nothing reads `os.environ`: functions take a `Settings` or the
single value they need.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AliasChoices,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

import libpq_variables
import registry_address
from private_files import whole_path
from product_errors import ConfigurationError

PRODUCT_VERSION = "0.1.0"

Engine = Literal["synapseml", "lightgbm"]
Transport = Literal["jdbc", "adbc"]


def default_home() -> Path:
    """The user's own data folder (XDG base directory specification): server data, jars, archives of
    Spark's classes, logs.
    """
    folder = os.environ.get("XDG_DATA_HOME")
    try:
        return Path(folder or Path.home() / ".local" / "share") / "yieldspark"
    except RuntimeError:
        raise ConfigurationError(
            "this account has no home folder: set YIELDSPARK_HOME to a folder it may write into"
        ) from None


class Settings(BaseSettings):
    """Read from variables named like the fields in upper case; `.env` in the working folder is read
    too, real variables win.
    """

    model_config = SettingsConfigDict(
        env_file=".env",
        env_file_encoding="utf-8-sig",
        extra="ignore",
        frozen=True,
        populate_by_name=True,
        env_ignore_empty=True,
    )

    environment: Literal["local", "production"] = Field(
        "local",
        validation_alias=AliasChoices("ENVIRONMENT", "SPARK_ENVIRONMENT"),
        description="`local`: no DB_HOST means the embedded server",
    )
    yieldspark_home: Path = Field(
        default_factory=default_home,
        description="folder for server data, jars, archives of Spark's classes, logs",
    )
    jars_dir: Path | None = Field(
        None, description="folder of the Spark jars; unset means `jars` in YIELDSPARK_HOME"
    )
    report_dir: Path = Field(Path("reports"), description="folder the HTML report is written to")

    db_host: Annotated[str | None, Field(pattern=r"^(/.*|[^\s/?#&@=\[\]]+)$")] = Field(
        None,
        description="PostgreSQL host or Unix socket folder; with it no embedded server is started",
    )
    db_port: Annotated[int, Field(ge=1, le=65535)] = Field(5432, description="its port")
    db_name: str = Field("yieldspark", description="database")
    db_user: str = Field(
        "yieldspark",
        description=(
            "role; it reads the raw tables, writes the metrics, owns the schema `yieldspark`"
        ),
    )
    db_password: SecretStr | None = Field(None, description="its password; shown nowhere")
    db_password_secret: Annotated[
        str | None, Field(pattern=r"^projects/[^/]+/secrets/[^/]+/versions/[^/]+$")
    ] = Field(
        None,
        description=(
            "where the password is in Secret Manager, projects/P/secrets/S/versions/V; DB_PASSWORD"
            " wins"
        ),
    )
    db_schema: Annotated[str, Field(pattern=r"^[a-z_][a-z0-9_]*$")] = Field(
        "public", description="schema of the owner's tables; YieldSpark's own are in `yieldspark`"
    )
    metrics_table: Annotated[str, Field(pattern=r"^[a-z_][a-z0-9_]{0,62}$")] = Field(
        "pool_daily_metrics",
        description=(
            "table of DB_SCHEMA that both jobs write and read; after a change run"
            " `calculate_metrics --full-refresh`"
        ),
    )
    db_sslmode: Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"] = (
        Field("prefer", description="libpq's sslmode")
    )
    db_sslrootcert: Path | None = Field(
        None, description="file of the certificates that verify-ca and verify-full trust"
    )

    code_version: str = Field(
        PRODUCT_VERSION, description="what the ledger says ran; a release sets it to its commit"
    )
    project_id: str | None = Field(None, description="Google Cloud project")
    region: str | None = Field(
        None, description="Google Cloud region of batches, workflow and Cloud Run jobs"
    )
    google_api_url: Annotated[str | None, Field(pattern=r"^https?://[^/]+$")] = Field(
        None,
        description=(
            "one address that stands in for all of Google Cloud's services, such as the local"
            " cloud's; unset means Google's own"
        ),
    )
    google_api_token_file: Path | None = Field(
        None,
        description=(
            "file with the bearer token that GOOGLE_API_URL asks for; `local up` prints it"
        ),
    )
    code_bucket: str | None = Field(None, description="bucket of the releases, a bare name")
    staging_bucket: str | None = Field(
        None, description="bucket where the service puts a batch's output, a bare name"
    )
    batch_service_account: str | None = Field(
        None, description="service account that batches run as"
    )
    batch_subnetwork: str | None = Field(
        None,
        description="subnetwork of the batches: projects/P/regions/R/subnetworks/S, or S alone",
    )
    container_image: str | None = Field(
        None,
        description=(
            "image with the native packages: HOST/PATH@sha256:.., or HOST/PROJECT/IMAGE:TAG in a"
            " repository with immutable tags"
        ),
    )
    batch_ttl_minutes: Annotated[int, Field(ge=10, le=10_070)] = Field(
        120, description="after which the service cancels a batch; minutes"
    )
    max_executors: Annotated[int, Field(ge=2, le=2_000)] = Field(
        20, description="most executors of one batch"
    )
    nightly_rows: Annotated[int, Field(ge=0)] = Field(
        1_000_000, description="rows a night reads: what the batches of a release are sized for"
    )
    platform: Literal["dataproc", "cloud_run", "auto"] = Field(
        "dataproc",
        description=(
            "where the jobs of a release run: as batches (dataproc), as Cloud Run jobs (cloud_run),"
            " or by NIGHTLY_ROWS (auto)"
        ),
    )
    batch_id: str | None = Field(
        None,
        description=(
            "batch or container execution that this process is: the ledger keeps it. `--batch` of a"
            " job sets it"
        ),
    )
    workflow_name: str = Field("yieldspark-pipeline", description="name of the Cloud Workflow")

    defillama_yields_url: Annotated[str, Field(pattern=r"^https?://[^/]")] = Field(
        "https://yields.llama.fi", description="where `ingest` gets pools and their charts"
    )
    defillama_coins_url: Annotated[str, Field(pattern=r"^https?://[^/]")] = Field(
        "https://coins.llama.fi", description="where `ingest` gets ETH and BTC prices"
    )

    read_transport: Transport = Field(
        "jdbc", description="how Spark reads tables: JDBC, or Arrow through COPY (adbc)"
    )
    write_transport: Transport = Field("adbc", description="how Spark loads staging tables")
    spark_master: str | None = Field(
        None,
        description=(
            "Spark master; unset means local[*] on a laptop and the platform's own in production"
        ),
    )
    spark_driver_memory: Annotated[str, Field(pattern=r"^\d+[mg]$")] = Field(
        "2g", description="memory of the local Spark driver"
    )
    shuffle_partitions: Annotated[int, Field(ge=1, le=10_000)] = Field(
        8, description="spark.sql.shuffle.partitions"
    )

    max_fill_days: Annotated[int, Field(ge=0, le=60)] = Field(
        7, description="missing days an APY or TVL is carried forward over"
    )
    include_today: bool = Field(
        False,
        description=(
            "compute today's partial day too, again in every run until it is over; forecasts and"
            " checks leave it out"
        ),
    )
    max_apy_percent: Annotated[float, Field(gt=0, le=1e15)] = Field(
        1_000_000.0, description="an APY beyond this, of either sign, is quarantined; %"
    )
    max_tvl_usd: Annotated[float, Field(gt=0, le=1e17)] = Field(
        1e12, description="a TVL beyond this is quarantined; USD"
    )
    max_price_usd: Annotated[float, Field(gt=0, le=1e11)] = Field(
        1e9, description="a price beyond this is quarantined; USD"
    )
    max_spike_factor: Annotated[float, Field(gt=1)] = Field(
        10.0,
        description=(
            "an APY or TVL that jumps by more than this and is back within SPIKE_HOURS is a spike;"
            " times"
        ),
    )
    spike_hours: Annotated[float, Field(gt=0, le=24)] = Field(
        5.0, description="how long a spike takes at most, there and back; hours"
    )
    max_missing_pools_share: Annotated[float, Field(ge=0, le=1)] = Field(
        0.5,
        description=(
            "share of a day's pools that may be missing on the next day; more blocks the run"
        ),
    )
    warn_missing_pools_share: Annotated[float, Field(ge=0, le=1)] = Field(
        0.1,
        description="share of a day's pools that may be missing on the next day without a warning",
    )
    min_rows_share_of_yesterday: Annotated[float, Field(ge=0, le=1)] = Field(
        0.5,
        description="pools observed on a day, as a share of the day before; less blocks the run",
    )
    max_null_share: Annotated[float, Field(ge=0, le=1)] = Field(
        0.5,
        description=(
            "share of a column's values that may be null among the new days' observed rows; more"
            " blocks the run"
        ),
    )
    max_removed_days_share: Annotated[float, Field(ge=0, le=1)] = Field(
        0.05,
        description=(
            "share of the known days of a run's pools whose metrics it may take away; more blocks"
            " the run"
        ),
    )
    check_severities: str = Field(
        "",
        description=(
            "checks with another severity: `NAME=fail`, `warn` or `off`, with commas between;"
            " docs/quality.md"
        ),
    )

    engine: Engine = Field(
        "synapseml",
        validation_alias=AliasChoices("ENGINE", "FORECAST_ENGINE"),
        description="which LightGBM makes the forecasts",
    )
    train_days: Annotated[int, Field(ge=0, le=3650)] = Field(
        365, description="training window before the as-of day, 0 for all there is; days"
    )
    market_features: bool = Field(False, description="moves of ETH, BTC and gas as features too")
    horizon_days: Annotated[int, Field(ge=1, le=7)] = Field(
        1, description="days ahead; the published forecast is 1"
    )
    backtest_days: Annotated[int, Field(ge=5, le=365)] = Field(
        60, description="target days that `backtest` scores; days"
    )
    refit_days: Annotated[int, Field(ge=1, le=90)] = Field(
        7, description="days between fits of a model version, by night and in `backtest`; days"
    )
    interval_level: Annotated[float, Field(gt=0.0, lt=1.0)] = Field(
        0.8, description="nominal coverage of the forecast interval"
    )
    min_history_days: Annotated[int, Field(ge=2, le=365)] = Field(
        4, description="observed days below which a pool is forecast by the cold-start rule"
    )
    promotion_days: Annotated[int, Field(ge=20, le=180)] = Field(
        45,
        description=(
            "days that a new model version is fitted before and judged on; the ledger of a first"
            " night has as many"
        ),
    )
    max_group_loss: Annotated[float, Field(ge=0.0, le=1.0)] = Field(
        0.05,
        description=(
            "share by which a new model version may lose more than the champion in a big group of"
            " pools and still be promoted"
        ),
    )
    mlflow_tracking_uri: str | None = Field(
        None,
        description=(
            "where MLflow keeps model versions: a database of its own beside DB_NAME,"
            " postgresql+psycopg2://(value of DB_HOST)/mlflow, with the login of DB_USER; or an"
            " MLflow server, whose credentials are MLflow's variables; unset means a SQLite file in"
            " YIELDSPARK_HOME"
        ),
    )
    mlflow_artifacts_uri: str | None = Field(
        None,
        description=(
            "where MLflow puts model files, such as gs://bucket/models; unset means beside the"
            " SQLite file, or the server's own; a registry in PostgreSQL needs it"
        ),
    )
    model_parameters_file: Path | None = Field(
        None, description="LightGBM's settings as `tune` wrote them; unset means the product's own"
    )
    max_feature_psi: Annotated[float, Field(gt=0)] = Field(
        0.25,
        description=(
            "how much further tonight's values of a feature may be from the training span than its"
            " worst day; PSI; more is a warning"
        ),
    )
    max_new_pools_share: Annotated[float, Field(ge=0, le=1)] = Field(
        0.2,
        description=(
            "share of tonight's pools that the training span has not seen; more is a warning"
        ),
    )
    max_rule_share: Annotated[float, Field(ge=0, le=1)] = Field(
        0.8,
        description=(
            "share of tonight's APY forecasts that a rule made and not the model; more is a warning"
        ),
    )
    model_seed: int = Field(20240501, description="seed of the models")
    model_threads: Annotated[int, Field(ge=1, le=256)] = Field(
        default_factory=lambda: os.cpu_count() or 1, description="LightGBM threads"
    )

    @field_validator(
        "yieldspark_home",
        "jars_dir",
        "report_dir",
        "model_parameters_file",
        "db_sslrootcert",
        "google_api_token_file",
    )
    @classmethod
    def _whole_path(cls, path: Path | None) -> Path | None:
        return whole_path(path) if path else None

    @field_validator("mlflow_tracking_uri")
    @classmethod
    def _registry_address(cls, uri: str | None) -> str | None:
        if uri:
            registry_address.check_form(uri)
        return uri

    @model_validator(mode="after")
    def _registry_is_beside_the_database(self) -> Settings:
        uri = self.mlflow_tracking_uri
        if uri and registry_address.is_in_postgresql(uri):
            registry_address.check_place(
                uri,
                db_host=self.db_host,
                db_name=self.db_name,
                artifacts_uri=self.mlflow_artifacts_uri,
            )
        return self

    @model_validator(mode="after")
    def _libpq_variables_say_nothing_else(self) -> Settings:
        if self.db_host:
            used = {name: getattr(self, name.lower()) for name in libpq_variables.SETTINGS.values()}
            if refusal := libpq_variables.refusal(os.environ, used):
                raise ValueError(refusal)
        return self

    @model_validator(mode="after")
    def _production_names_its_database(self) -> Settings:
        if self.environment == "production" and not self.db_host:
            raise ValueError(
                "DB_HOST is not set, and ENVIRONMENT=production never starts the embedded server;"
                " set DB_HOST, DB_USER, DB_PASSWORD and DB_NAME"
            )
        return self


def load_settings(**overrides: Any) -> Settings:
    """Build the settings once, at the edge.

    Args: overrides are field values that a command-line option gives; they win over the
    environment.
    Raises: ConfigurationError naming each wrong variable, its value (never a password's) and what
    is allowed.
    """
    try:
        return Settings(**overrides)
    except UnicodeDecodeError as error:
        raise ConfigurationError(
            f".env can't be read: byte {error.start} is no UTF-8; save the file as UTF-8"
        ) from None
    except ValidationError as error:
        raise ConfigurationError(
            "; ".join(_sentence(problem) for problem in error.errors())
        ) from None


def _sentence(problem: Any) -> str:
    message = str(problem["msg"]).removeprefix("Value error, ")
    if not problem["loc"]:
        return message
    name = str(problem["loc"][0]).upper()
    value = repr(problem["input"])
    # an address in the wrong variable has a password that may be written in any way
    if "PASSWORD" in name or "URI" in name or ("://" in value and "@" in value):
        value = "(hidden)"
    return f"{name}={value} is wrong: {message}"
