"""Settings of this machine."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Literal

from pydantic import AliasChoices, Field
from pydantic_settings import BaseSettings

from common.settings.paths import AbsolutePath, default_home


class LocalSettings(BaseSettings):
    """This machine: the folders of the product, and whether it starts a database."""

    environment: Literal["local", "production"] = Field(
        "local",
        validation_alias=AliasChoices("ENVIRONMENT", "SPARK_ENVIRONMENT"),
        description=(
            "`local` starts the embedded PostgreSQL where DB_HOST is unset; `production` requires"
            " DB_HOST. SPARK_ENVIRONMENT is an alias"
        ),
    )
    yieldspark_home: AbsolutePath = Field(
        default_factory=default_home,
        description="folder of the embedded server, jars, class data archives, models and logs",
    )
    jars_dir: AbsolutePath | None = Field(
        None, description="folder of the Spark jars; unset: `jars` in YIELDSPARK_HOME"
    )
    report_dir: AbsolutePath = Field(
        Path("reports"), description="folder that the HTML report is written to"
    )
    clock_shift_seconds: int = Field(
        0,
        description=(
            "added to this machine's clock in a job, for rehearsals on the"
            " emulator; refused without GOOGLE_API_ENDPOINT; seconds"
        ),
    )

    def now(self) -> datetime:
        """Return the clock of a job, UTC: this machine's, moved by CLOCK_SHIFT_SECONDS."""
        return datetime.now(UTC) + timedelta(seconds=self.clock_shift_seconds)
