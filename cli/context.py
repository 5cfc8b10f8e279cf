"""What the commands share, made when first asked for and once: settings with a migrated database,
checked jars, one Spark session for all jobs.

Rooms are imported where they are first needed: `--help` and wrong use must not wait for Spark and
the database's libraries.
"""

from __future__ import annotations

import logging
import sys
from functools import cached_property
from typing import TYPE_CHECKING

from rich.text import Text

from cli.terminal import err, say
from common.errors import EnvironmentNotReady
from config_spark import Settings

if TYPE_CHECKING:
    from pyspark.sql import SparkSession
    from sqlalchemy import Engine

    from local_runtime.jars import InstalledJars

log = logging.getLogger(__name__)


class Workplace:
    """Lazy: a command that needs no database starts none, one with an empty plan starts no JVM."""

    def __init__(self, settings: Settings, *, changes: bool = True) -> None:
        self.bare = settings
        self._changes = changes
        self._session: SparkSession | None = None

    @cached_property
    def settings(self) -> Settings:
        """The settings with a database that runs and has this version's tables."""
        from database.connections.engine import make_engine
        from database.embedded.resolve import resolve_database
        from database.schema.migrate import migrate, require_current

        settings = resolve_database(self.bare)
        if self.bare.db_host and not self._changes:
            require_current(make_engine(settings))
        else:
            migrate(make_engine(settings))
        return settings

    @cached_property
    def engine(self) -> Engine:
        from database.connections.engine import make_engine

        return make_engine(self.settings)

    @cached_property
    def jars(self) -> InstalledJars:
        """The jars that are there, fetched if need be; what can't be had is said once."""
        from local_runtime import jars as spark_runtime
        from spark.jar_sets import jars_folder

        jars = spark_runtime.ensure_jars(jars_folder(self.bare), say)
        for sentence in jars.missing.values():
            err.print(Text(f"  {sentence}", style="yellow"), soft_wrap=True)
        return jars

    def require_engine(self) -> None:
        """Raises: EnvironmentNotReady, before a JVM starts, where the settings' engine can't run
        here.
        """
        if self.settings.engine == "synapseml" and "synapseml" in self.jars.missing:
            raise EnvironmentNotReady(self.jars.missing["synapseml"])

    def with_an_engine_that_runs(self) -> Settings:
        """The settings, with `lightgbm` in place of an engine whose jars can't be had (`jars` has
        said so).
        """
        return (
            self.settings
            if "synapseml" not in self.jars.missing
            else self.settings.model_copy(update={"engine": "lightgbm"})
        )

    def prepare_jvm(self) -> None:
        """Fetch the jars and set the environment of the JVM that this process will start."""
        from local_runtime import class_data_sharing as class_archive
        from local_runtime import jars as spark_runtime

        spark_runtime.prepare_process()
        # the archive's key names the jars: one that is looked up before they are fetched belongs
        # to this run alone, and the next run records another
        _ = self.jars
        class_archive.use_class_archive(self.bare)

    def session(self, rows_to_read: int | None = None) -> SparkSession:
        """The one session of this process; it has every jar there is, so that both jobs can use it.
        The first to ask says how many rows it reads.
        """
        if self._session is None:
            from spark.session import get_spark_session

            self.prepare_jvm()
            self._session = get_spark_session(
                self.settings,
                "yieldspark",
                jar_sets=self.jars.loadable,
                rows_to_read=rows_to_read,
            )
        return self._session

    def close(self) -> None:
        if self._session is not None:
            from spark.session import stop_session

            stop_session(self._session)


def end_recording(*, keep: bool) -> None:
    """Keep or drop what this process's JVM recorded of its classes. A command that started none has
    not loaded the module, and need not.
    """
    if class_archive := sys.modules.get("local_runtime.class_data_sharing"):
        class_archive.save_class_archive() if keep else class_archive.discard_class_archive()
