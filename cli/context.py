"""The settings, database and Spark session that the parts of one command share.

Everything is made on first use: a command that needs no database starts none, and a run with an
empty plan starts no JVM.
"""

# Modules are imported where they are first needed: `--help` and wrong use must not wait for Spark
# and the database's libraries.
from __future__ import annotations

import importlib.util
import logging
import sys
from contextvars import ContextVar
from functools import cached_property
from typing import TYPE_CHECKING

from rich.text import Text

from cli.terminal import err, say
from common.errors import EnvironmentNotReady
from common.jobs import JobSpec

if TYPE_CHECKING:
    from pyspark.sql import SparkSession
    from sqlalchemy import Engine

    from config_spark import Settings
    from local_runtime.jars import InstalledJars
    from spark.jar_sets import JarSet

log = logging.getLogger(__name__)

PREFERS_SPARK: ContextVar[bool] = ContextVar("prefers_spark", default=False)
"""Whether EXECUTOR=auto is Spark in this process, as in the jobs' scripts."""


class JobContext:
    """The settings, database and Spark session of one command, each made on first use.

    Args:
        base_settings: the settings as the environment and the options give them.
        changes: False for a command that only reads. It creates no tables in the user's own
            database (`DB_HOST`), and raises ConfigurationError if they are of another version.
        job: the batch job that runs in this context, or None for a command that is none.
    """

    def __init__(
        self, base_settings: Settings, *, changes: bool = True, job: JobSpec | None = None
    ) -> None:
        self.base_settings = base_settings
        self._changes = changes
        self._job = job
        self._session: SparkSession | None = None

    @cached_property
    def settings(self) -> Settings:
        """The settings with a running database that has the tables of this version."""
        from database.connections.engine import make_engine
        from database.embedded.resolve import resolve_database
        from database.schema.migrate import prepare_tables

        # starts the embedded server if DB_HOST is unset
        settings = resolve_database(self.base_settings)
        prepare_tables(
            make_engine(settings),
            is_embedded=not self.base_settings.db_host,
            changes=self._changes,
        )
        return settings

    @cached_property
    def engine(self) -> Engine:
        """Connections to the database."""
        from database.connections.engine import make_engine

        return make_engine(self.settings)

    @cached_property
    def jars(self) -> InstalledJars:
        """The jars on this machine, fetched on first use; a missing one is reported once."""
        from local_runtime import jars as local_jars
        from spark.jar_sets import jars_folder

        jars = local_jars.ensure_jars(jars_folder(self.base_settings), say)
        for sentence in jars.missing.values():
            err.print(Text(f"  {sentence}", style="yellow"), soft_wrap=True)
        return jars

    @cached_property
    def has_local_java(self) -> bool:
        """Whether YieldSpark chooses Java and jars of this machine.

        The zip of the jobs has no `local_runtime/`: on a cluster and in a container the platform
        brings Java and the jars.
        """
        from spark.session import is_local_spark

        is_installed = importlib.util.find_spec("local_runtime") is not None
        return is_installed and is_local_spark(self.base_settings)

    def require_engine(self) -> None:
        """Check, before a JVM starts, that the forecasting engine can run on this machine.

        Raises:
            EnvironmentNotReady: the engine is `synapseml` and its jars are missing.
        """
        # a JVM takes seconds to start, and Spark would name a missing class, not the missing jar
        is_synapseml = self.settings.engine == "synapseml"
        if is_synapseml and self.has_local_java and "synapseml" in self.jars.missing:
            raise EnvironmentNotReady(self.jars.missing["synapseml"])

    def settings_with_available_engine(self) -> Settings:
        """Return the settings, with `lightgbm` in place of an engine whose jars are missing."""
        if "synapseml" not in self.jars.missing:
            return self.settings
        return self.settings.model_copy(update={"engine": "lightgbm"})

    def prepare_jvm(self) -> None:
        """Fetch the jars and set the environment of the JVM that this process starts."""
        from local_runtime import class_data_sharing
        from local_runtime import jars as local_jars

        local_jars.prepare_process()
        # the archive's key names the jars: one that is looked up before they are fetched belongs
        # to this run only, and the next run records another
        _ = self.jars
        class_data_sharing.use_class_archive(self.base_settings)

    def forecast_session(self, feature_rows: int) -> SparkSession:
        """Return the one Spark session of this process, for a number of rows of a forecast."""
        return self.session(feature_rows=feature_rows)

    def session(self, rows_to_read: int | None = None, *, feature_rows: int = 0) -> SparkSession:
        """Return the one Spark session of this process.

        Args:
            rows_to_read: number of rows that the first job reads, or None if it is not known. A JVM
                for few rows starts faster.
            feature_rows: rows of a forecast that the driver holds.
        """
        if self._session is None:
            from spark.jar_sets import JDBC, SYNAPSEML
            from spark.session import get_spark_session

            jar_sets: tuple[JarSet, ...] = (JDBC,)
            if self.has_local_java:
                self.prepare_jvm()
                # every jar of the machine, so that both jobs of the demo can share the session
                jar_sets = self.jars.loadable
            elif self._job and self._job.engine_of(self.settings.engine) == "synapseml":
                jar_sets = (JDBC, SYNAPSEML)
            self._session = get_spark_session(
                self.settings,
                self._job.name if self._job else "yieldspark",
                jar_sets=jar_sets,
                rows_to_read=rows_to_read,
                feature_rows=feature_rows,
            )
        return self._session

    def close(self) -> None:
        """Stop the Spark session if there is one."""
        if self._session is not None:
            from spark.session import stop_session

            stop_session(self._session)


def end_recording(*, keep: bool) -> None:
    """Keep or drop the class data that this process's JVM recorded.

    A command that started no JVM has not loaded the module.
    """
    if class_data_sharing := sys.modules.get("local_runtime.class_data_sharing"):
        if keep:
            class_data_sharing.save_class_archive()
        else:
            class_data_sharing.discard_class_archive()
