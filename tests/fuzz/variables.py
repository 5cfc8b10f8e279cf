"""A variable case: a command runs with one to three wrong environment variables, or with a `.env`
that has them, in this process or in one of its own.

It does its work or prints one sentence; no output and no log file contains the secret.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection
from typer.exceptions import TyperException

from common import libpq_variables
from common.errors import YieldSparkError
from common.logging_setup import traceback_logger
from config_spark import Settings
from tests.fuzz.cases import SECRET, require_contract
from tests.support.processes import CommandLine

HISTORY = (
    "timestamp,pool,tvlUsd,apy\n"
    "2025-03-01T23:01:00Z,pöol-\u4e2d,1000.5,5.25\n"
    "2025-03-02T23:01:00Z,pöol-\u4e2d,1001.5,5.5\n"
    "no-day,pöol-\u4e2d,1,1\n"
)

COMMANDS = (
    *(
        ("load", "history.csv", "--json"),
        ("load", "history.csv"),
        ("load", "history.csv", "--json"),
    ),
    *(("status", "--json"), ("status",), ("quarantine", "list", "--json"), ("quarantine", "list")),
    *(("calculate_metrics", "--dry-run", "--json"), ("forecast_pools", "--dry-run", "--json")),
    *(("doctor", "--json"), ("ingest", "--min-tvl", "1", "--json"), ("models", "list", "--json")),
)

SETTINGS = tuple(
    name.upper()
    for name in Settings.model_fields
    # an empty one starts a server of its own, and another one may be a real database
    if name not in {"db_host", "db_port", "db_name"}
)
OTHERS = (
    *("SPARK_ENVIRONMENT", "FORECAST_ENGINE", "JAVA_HOME", "JDK_JAVA_OPTIONS", "JAVA_TOOL_OPTIONS"),
    *("SPARK_SUBMIT_OPTS", "SPARK_LOCAL_IP", "SPARK_LOCAL_DIRS", "SPARK_HOME", "SPARK_CONF_DIR"),
    *(
        "PYSPARK_PYTHON",
        "PYSPARK_SUBMIT_ARGS",
        "HADOOP_CONF_DIR",
        "OMP_NUM_THREADS",
        "PIP_INDEX_URL",
    ),
    *(
        "PIP_CONFIG_FILE",
        "LC_ALL",
        "LANG",
        "LC_CTYPE",
        "LANGUAGE",
        "TZ",
        "PGTZ",
        "COLUMNS",
        "LINES",
    ),
    *("TERM", "NO_COLOR", "FORCE_COLOR", "XDG_DATA_HOME", "TMPDIR", "HTTPS_PROXY", "HTTP_PROXY"),
    *("NO_PROXY", "ALL_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR", "YIELDSPARK_IVY_SETTINGS"),
    *("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_TOKEN", "MLFLOW_ENABLE_ASYNC_LOGGING"),
    *(
        "GOOGLE_APPLICATION_CREDENTIALS",
        "GOOGLE_CLOUD_PROJECT",
        "PYTHONUNBUFFERED",
        "USER",
        "EDITOR",
    ),
)
VARIABLES = (*SETTINGS, *SETTINGS, *libpq_variables.ALL, *OTHERS, "DB_PORT", "DB_NAME")

VALUES = (
    *("", " ", "\t", "\n", "0", "-1", "1", "1e400", "nan", "inf", "-inf", "9" * 400, "١٢", "1_0"),
    *(
        "true",
        "None",
        "null",
        "yes",
        "{}",
        "[1]",
        "a,b",
        "a=b",
        "%s",
        "$(id)",
        "${X}",
        "'",
        '"',
        "\\",
    ),
    *(
        "x" * 10_000,
        "\x1b[31mred",
        "\u202e",
        "é中",
        "\udcff",
        "/dev/null",
        "/dev/null/x",
        "/dev/full",
    ),
    *(
        "/" + "x" * 5_000,
        "/proc/self/x",
        "~nobody-here/x",
        "none",
        "http://",
        "http://[::1",
        "ftp://x",
    ),
    *(
        "http://u:" + SECRET + "@127.0.0.1:9/x",
        "https://127.0.0.1:9",
        "postgresql://h/db",
        "file://",
    ),
    *(
        "postgresql+psycopg2://u:" + SECRET + "@h/db",
        "sqlite:////dev/null/x",
        "-Xmx1k",
        "C",
        "tr_TR",
    ),
    *(
        "de_DE.UTF-8",
        "Europe/Berlin",
        "Nowhere/Nope",
        ":",
        "2g",
        "lightgbm",
        "production",
        "verify-full",
    ),
    *(
        "coverage=fail",
        "local[*]",
        "spark://127.0.0.1:9",
        "projects/p/secrets/s/versions/1",
        "public",
    ),
)

IN_A_PROCESS_ONLY = {
    "PYTHONIOENCODING": ("ascii", "latin-1", "cp1252:strict"),
    "PYTHONWARNINGS": ("error::UserWarning", "nonsense", "always"),
    "PYTHONHASHSEED": ("0", "1"),
    "PYTHONPATH": ("", "/dev/null", "none"),
    "HOME": ("", "/dev/null", "none"),
    "PATH": ("", "/dev/null"),
    "LC_ALL": ("C", "POSIX", "tr_TR.UTF-8", "none"),
}
"""What Python or its process reads at its start."""

DOTENV = (
    *(b"\xff\xfe", b"\0", b"=", b"=x\n", b"export\n", b"DB_SSLMODE\n", b"DB_SSLMODE='\n", b'A="\n'),
    *(b"A=${A}\n", b"\xef\xbb\xbfMAX_FILL_DAYS=x\n", b"# only\n", b"[section]\nx: y\n", b"A B=C\n"),
    *(b"MAX_FILL_DAYS=1\r\nMAX_FILL_DAYS=2\r\n", b"\n" * 5_000, b"A=" + b"x" * 100_000 + b"\n"),
    *(
        b"MODEL_SEED=1 # one\n",
        b"{json: true}",
        "é=中\n".encode("utf-16"),
        b"CHECK_SEVERITIES=x=off\n",
    ),
)


@dataclass(frozen=True)
class Environment:
    """A command, its variables in addition to the good ones, and the bytes of `.env`."""

    command: tuple[str, ...]
    variables: dict[str, str]
    dotenv: bytes | None


def wrong_environment(rng: random.Random, *, process: bool) -> Environment:
    variables = {
        rng.choice(VARIABLES): rng.choice(VALUES) for _ in range(rng.choice((1, 1, 1, 2, 3)))
    }
    if process and rng.random() < 0.6:
        name = rng.choice(list(IN_A_PROCESS_ONLY))
        variables = {name: rng.choice(IN_A_PROCESS_ONLY[name])}
    if rng.random() < 0.15:
        variables["DB_PASSWORD"] = SECRET
    dotenv = None
    if not process and rng.random() < 0.25:
        lines = "".join(f"{name}={value}\n" for name, value in variables.items())
        dotenv = lines.encode("utf-8", "replace") + rng.choice((b"", *DOTENV))
        variables = {}
    return Environment(rng.choice(COMMANDS), variables, dotenv)


def prepare(environment: Environment, folder: Path) -> None:
    (folder / "history.csv").write_text(HISTORY, encoding="utf-8")
    dotenv = folder / ".env"
    dotenv.unlink(missing_ok=True)
    if environment.dotenv is not None:
        dotenv.write_bytes(environment.dotenv)


def run_and_check(
    run: CommandLine, environment: Environment, connection: Connection, *, process: bool
) -> str:
    """Return the exit code as text.

    Raises: AssertionError for a traceback, an error that is not one of the product, a long message,
    a secret, another exit code, or a load that lost a row.
    """
    with failures() as raised:
        finished = run(*environment.command, **environment.variables)
    log = run.folder / "home" / "logs" / "yieldspark.log"
    logged = log.read_text(encoding="utf-8") if log.is_file() else ""
    log.unlink(missing_ok=True)
    output = f"{finished.stdout}\n{finished.stderr}"
    assert SECRET not in output, f"the secret is printed: {output[:700]}"
    assert SECRET not in logged, "the secret is in the log"
    for error in raised:
        assert isinstance(error, YieldSparkError | TyperException), repr(error)
    if process:
        require_ours(logged)
    require_contract(finished, as_json="--json" in environment.command)
    if environment.command[0] == "load" and not finished.returncode:
        _require_rows(connection, environment)
    return f"exit {finished.returncode}"


@contextmanager
def failures() -> Iterator[list[BaseException]]:
    """Collect the errors that commands of this process report inside the block."""
    raised: list[BaseException] = []

    class ErrorHandler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.exc_info and record.exc_info[1]:
                raised.append(record.exc_info[1])

    handler = ErrorHandler()
    traceback_logger.addHandler(handler)
    try:
        yield raised
    finally:
        traceback_logger.removeHandler(handler)


def require_ours(log: str) -> None:
    """Check that the last error of a log file is one of the product's."""
    if "Traceback (most recent call last)" in log:
        last = [line for line in log.splitlines() if line and not line.startswith(" ")][-1]
        assert last.startswith(("common.errors.", "typer.", "click.")), log[-700:]


def _require_rows(connection: Connection, environment: Environment) -> None:
    """Check that the rows of the good file are in the table of DB_SCHEMA, which is public unless
    the case changes it.
    """
    if "DB_SCHEMA" in environment.variables or b"DB_" in (environment.dotenv or b""):
        return
    row_counts = connection.exec_driver_sql(
        "SELECT (SELECT count(*) FROM raw_defillama_pool_history),"
        " (SELECT count(*) FROM yieldspark.quarantine)"
    ).one()
    assert tuple(row_counts) == (2, 1), row_counts
