"""Settings of the database."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings

from common.settings.paths import AbsolutePath
from common.settings.text_forms import HOST, SCHEMA, SECRET_VERSION, TABLE


class DatabaseSettings(BaseSettings):
    """PostgreSQL: server, login, schema and table."""

    db_host: Annotated[str | None, Field(pattern=HOST)] = Field(
        None,
        description="host name, address, or folder of a Unix socket; unset: the embedded server",
    )
    db_port: Annotated[int, Field(ge=1, le=65535)] = Field(5432, description="TCP port")
    db_name: str = Field("yieldspark", description="database name")
    db_user: str = Field(
        "yieldspark",
        description="role; it reads the raw tables, writes metrics and owns schema `yieldspark`",
    )
    db_password: SecretStr | None = Field(None, description="password of the role; never logged")
    db_password_secret: Annotated[str | None, Field(pattern=SECRET_VERSION)] = Field(
        None,
        description=(
            "Secret Manager version that holds the password, projects/P/secrets/S/versions/V;"
            " DB_PASSWORD takes precedence"
        ),
    )
    db_iam_auth: bool = Field(
        False,
        description=(
            "log in to Cloud SQL by IAM: DB_USER is the address of this machine's Google account,"
            " and an access token of it is the password. Requires TLS (DB_SSLMODE)"
        ),
    )
    db_schema: Annotated[str, Field(pattern=SCHEMA)] = Field(
        "public", description="schema of your own tables; YieldSpark's are in `yieldspark`"
    )
    metrics_table: Annotated[str, Field(pattern=TABLE)] = Field(
        "pool_daily_metrics",
        description=(
            "table in DB_SCHEMA that both jobs read and write; after a change, run"
            " `calculate_metrics --full-refresh`"
        ),
    )
    undo_days: Annotated[int, Field(ge=0, le=365)] = Field(
        7,
        description=(
            "days for which the rows that a run replaced are kept, so that `undo` can restore them;"
            " 0 keeps none"
        ),
    )
    db_sslmode: Literal["disable", "allow", "prefer", "require", "verify-ca", "verify-full"] = (
        Field("prefer", description="TLS mode, as libpq's `sslmode`")
    )
    db_sslrootcert: AbsolutePath | None = Field(
        None, description="certificate file that `verify-ca` and `verify-full` trust"
    )
