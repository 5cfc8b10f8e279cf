"""Tests that a user's own Spark, Hadoop, locale, host name and folder names do not reach the local
session, and that one sentence names those that cannot be kept out.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from common.errors import ConfigurationError, EnvironmentNotReady
from config_spark import Settings, load_settings
from local_runtime import jars as local_jars
from local_runtime.java import find_java, network_options
from spark.jar_sets import jars_folder
from spark.session import session_conf

ROOT = Path(__file__).resolve().parents[2]
SESSION = """
import sys
from pathlib import Path
from local_runtime.jars import prepare_process
prepare_process()
from config_spark import load_settings
from spark.session import get_spark_session
spark = get_spark_session(
    load_settings(_env_file=None, yieldspark_home=Path(sys.argv[1]), environment="local"),
    "test", rows_to_read=1,
)
from pyspark.sql import functions as F
double = F.udf("bigint")(lambda number: 2 * number)
rows = spark.range(3).select(double("id").alias("d"), F.upper(F.lit("i"))).collect()
spark._jvm.org.apache.spark.util.Utils.classForName("org.postgresql.Driver", True, False)
print(rows[2][0], rows[2][1], spark.conf.get("spark.driver.memory"))
"""


def run_session(home: Path, *before: str, **variables: str) -> subprocess.CompletedProcess[str]:
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name == "SPARK_SUBMIT_OPTS" or not name.startswith("SPARK_")
    }
    return subprocess.run(
        [*before, sys.executable, "-c", SESSION, str(home)],
        cwd=ROOT,
        env=inherited | variables,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture
def home(server: Settings, tmp_path: Path) -> Path:
    folder = tmp_path / "ü #1 %41 'x'"
    folder.mkdir()
    shutil.copytree(jars_folder(server), folder / "jars")
    return folder


def test_a_session_starts_beside_another_spark_on_a_host_without_an_address(
    home: Path, tmp_path: Path
) -> None:
    """Java's language is Turkish, the locale has no umlauts, and Hadoop's file system is remote."""
    other = tmp_path / "other"
    other.mkdir()
    (other / "spark-env.sh").write_text("exit 7\n")
    (other / "spark-defaults.conf").write_text("spark.master spark://nowhere:7077\n")
    (other / "core-site.xml").write_text(
        "<configuration><property><name>fs.defaultFS</name><value>hdfs://nowhere</value>"
        "</property></configuration>"
    )
    renamed = ["unshare", "--uts", "sh", "-c", 'hostname no-such-host.invalid; exec "$@"', "sh"]
    can_rename = subprocess.run(
        [*renamed, "true"], capture_output=True, check=False
    ).returncode == 0  # fmt: skip
    few_files = ["sh", "-c", 'ulimit -Sn 256; exec "$@"', "sh"]
    finished = run_session(
        home,
        *(renamed if can_rename else ()),
        *few_files,
        LC_ALL="C",
        JDK_JAVA_OPTIONS="-Duser.language=tr -Duser.country=TR",
        SPARK_HOME=str(other),
        SPARK_CONF_DIR=str(other),
        SPARK_DRIVER_MEMORY="700m",
        HADOOP_CONF_DIR=str(other),
        PYSPARK_SUBMIT_ARGS="--master spark://nowhere:7077 pyspark-shell",
        PYSPARK_PYTHON="/no/such/python",
    )
    assert (finished.returncode, finished.stdout) == (0, "4 I 700m\n"), finished.stderr
    assert (home / "logs" / "spark.log").is_file()


def test_the_last_line_of_a_java_that_ends_at_once_is_reported(home: Path) -> None:
    finished = run_session(home, JAVA_TOOL_OPTIONS="-XX:+NoSuchOption")
    message = finished.stderr.splitlines()[-1]
    assert finished.returncode == 1
    assert "EnvironmentNotReady: Java ended before Spark started" in message
    assert "Unrecognized VM option 'NoSuchOption'" in message
    assert "JAVA_TOOL_OPTIONS" in message


def test_too_few_open_files_are_named(home: Path) -> None:
    limited = ["sh", "-c", 'ulimit -n 256; exec "$@"', "sh"]
    finished = run_session(home, *limited)
    assert (
        "a process may open 256 files here, and Spark needs 512" in finished.stderr.splitlines()[-1]
    )


def test_another_pyspark_on_the_path_is_named(home: Path, tmp_path: Path) -> None:
    other = tmp_path / "spark-4.0.0" / "python"
    (other / "pyspark").mkdir(parents=True)
    (other / "pyspark" / "__init__.py").write_text("")
    finished = run_session(home, PYTHONPATH=str(other))
    message = finished.stderr.splitlines()[-1]
    assert f"pyspark would be imported from {other / 'pyspark'}" in message
    assert "take that folder out of PYTHONPATH" in message


@pytest.mark.parametrize("name", ["a,b", "a[1]", "a*", "C:jars"])
def test_a_folder_that_spark_takes_apart_is_refused(tmp_path: Path, name: str) -> None:
    settings = load_settings(_env_file=None, yieldspark_home=tmp_path / name)
    with pytest.raises(ConfigurationError, match=r"can't read jars from a path with \S( \S)?; set"):
        session_conf(settings)


def test_a_path_that_is_too_long_is_no_java_and_no_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = "/" + "x" * 5_000
    assert find_java({"JAVA_HOME": long, "PATH": os.environ["PATH"]}).is_dir()
    with pytest.raises(ConfigurationError, match=r"SSL_CERT_FILE=.* PEM bundle"):
        network_options(tmp_path, {"SSL_CERT_FILE": long})
    monkeypatch.setenv("YIELDSPARK_IVY_SETTINGS", long)
    with pytest.raises(EnvironmentNotReady, match=r"YIELDSPARK_IVY_SETTINGS=.* ivysettings"):
        local_jars._user_ivy_settings()
