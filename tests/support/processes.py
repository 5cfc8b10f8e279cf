"""The product as a user starts it: the command line in its own process, or in this process through
the same entry point.
"""

from __future__ import annotations

import io
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, chdir, contextmanager, redirect_stderr, redirect_stdout
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

from pyspark.sql import SparkSession
from typer import main as typer_main

from cli.main import main
from cli.terminal import PRODUCT_LOGGERS
from common.interrupts import SIGNALS
from config_spark import Settings
from spark import session as spark_session

PROJECT = Path(__file__).resolve().parents[2]


def environment_of(settings: Settings, *more: str) -> dict[str, str]:
    """Return environment variables for the settings' database, jars and home.

    Args:
        settings: the settings.
        *more: names of other fields to set.
    """
    names = (
        "db_host",
        "db_port",
        "db_name",
        "db_user",
        "db_sslmode",
        "jars_dir",
        "yieldspark_home",
        *more,
    )
    values = {
        name.upper(): str(getattr(settings, name))
        for name in names
        if getattr(settings, name) is not None
    }
    return (
        os.environ
        | values
        | ({"DB_PASSWORD": settings.db_password.get_secret_value()} if settings.db_password else {})
    )


SMALL_RUN = """
import logging, sys
from pyspark import SparkContext
from config_spark import load_settings
from local_runtime import class_data_sharing as class_archive
from local_runtime import jars as local_jars

logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s")
logging.getLogger("py4j").setLevel(logging.WARNING)
settings = load_settings()
local_jars.prepare_process()
class_archive.use_class_archive(settings)
SparkContext._ensure_initialized()
java = SparkContext._jvm
java.org.apache.spark.SparkConf()
print(java.java.util.stream.IntStream.range(0, 100).sum(), flush=True)
"""
"""Starts Spark's JVM with a few classes and no session: an archive of them takes a second."""

GOOD_RUN = SMALL_RUN + "class_archive.save_class_archive()"


class CommandLine:
    """Runs commands against one database, each in a process of its own."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.folder = folder
        self.environment = environment_of(settings) | {"YIELDSPARK_HOME": str(folder / "home")}

    def __call__(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(PROJECT / "run_spark_local.py"), *arguments]
        return subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment | environment,
            capture_output=True,
            text=True,
            check=False,
        )

    def json(self, *arguments: str, code: int = 0, **environment: str) -> Any:
        """Run a command and return its JSON output; fails with its stderr if
        the exit code differs.
        """
        finished = self(*arguments, "--json", **environment)
        assert finished.returncode == code, finished.stderr
        return json.loads(finished.stdout)


COMMAND_OF = cache(typer_main.get_command)
"""Builds the commands of an application once: a process does so for its one command (0.1 s)."""


class CommandLineHere(CommandLine):
    """Runs the same commands in this process, which is a second faster; not for commands that are
    ended by a signal.

    Args:
        settings: database of the commands.
        folder: working folder.
        spark: session for commands that ask for one; None allows no JVM.
    """

    program = "run_spark_local.py"
    entry = staticmethod(main)

    def __init__(self, settings: Settings, folder: Path, spark: SparkSession | None = None) -> None:
        super().__init__(settings, folder)
        self._spark = spark

    def __call__(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        out, errors = io.StringIO(), io.StringIO()
        with ExitStack() as stack:
            stack.enter_context(patch.dict(os.environ, self.environment | environment, clear=True))
            stack.enter_context(patch.object(sys, "argv", [self.program, *arguments]))
            stack.enter_context(patch.object(typer_main, "get_command", COMMAND_OF))
            stack.enter_context(patch.object(spark_session, "get_spark_session", self._session))
            stack.enter_context(patch.object(spark_session, "stop_session", lambda _: None))
            for context in (
                chdir(self.folder),
                redirect_stdout(out),
                redirect_stderr(errors),
                signals_restored(),
                logging_restored(),
            ):
                stack.enter_context(context)
            try:
                self.entry()
            except SystemExit as end:
                code = end.code
        assert isinstance(code, int)
        return subprocess.CompletedProcess(arguments, code, out.getvalue(), errors.getvalue())

    def _session(self, *_: object, **__: object) -> SparkSession:
        assert self._spark is not None, "this command wants a JVM: take `run_on_spark`"
        return self._spark


@contextmanager
def signals_restored() -> Iterator[None]:
    """Restore the handlers of signals: a command ends by ignoring them, and a process that the test
    starts later would inherit that.
    """
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def logging_restored() -> Iterator[None]:
    """Remove handlers and levels that a command adds to the loggers."""
    loggers = [logging.getLogger(name) for name in (None, *PRODUCT_LOGGERS)]
    before = [(logger, logger.level, list(logger.handlers)) for logger in loggers]
    try:
        yield
    finally:
        logging.captureWarnings(capture=False)
        for logger, level, handlers in before:
            logger.setLevel(level)
            for added in set(logger.handlers) - set(handlers):
                logger.removeHandler(added)
                added.close()
