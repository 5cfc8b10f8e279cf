"""Tests `terraform/bootstrap.sh`: what it creates, what it leaves unchanged, and that it prints no
secret.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from tests.support.bootstrap_services import BootstrapServices, served
from tests.support.processes import PROJECT

pytestmark = pytest.mark.usefixtures("processes")

GCLOUD = """#!/usr/bin/env bash
# Stands in for gcloud: writes down what it is asked and given. What PRESENT names is there.
printf '%s\\n' "$*" >> "$RECORD/calls"
case "$*" in
*describe*)
  [[ -n ${DENIED:-} ]] && { echo "ERROR: PERMISSION_DENIED: no $2 for you" >&2; exit 1; }
  [[ " ${PRESENT:-} " == *" $2 "* ]] && { echo "$2"; exit 0; }
  echo "ERROR: NOT_FOUND: it does not exist" >&2; exit 1 ;;
"secrets versions add"*) cat >> "$RECORD/secret"; echo "Created version [1] of the secret" ;;
esac
"""


@pytest.fixture
def gcloud(tmp_path: Path) -> dict[str, str]:
    """Variables that put a stand-in for gcloud first on PATH; it records its calls in RECORD."""
    programs, record = tmp_path / "programs", tmp_path / "record"
    programs.mkdir()
    record.mkdir()
    program = programs / "gcloud"
    program.write_text(GCLOUD, encoding="utf-8")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return os.environ | {"PATH": f"{programs}:{os.environ['PATH']}", "RECORD": str(record)}


def _bootstrap(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(PROJECT / "terraform" / "bootstrap.sh"), *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.skipif(shutil.which("gcloud") is None, reason="gcloud is not installed")
def test_bootstrap_makes_what_is_missing_and_prints_no_password(tmp_path: Path) -> None:
    """The real gcloud runs, so its options exist and mean what the script needs."""
    services = BootstrapServices()
    with served(services, tmp_path) as variables:
        finished = _bootstrap(os.environ | variables, "acme-yields", "europe-west1")
    assert finished.returncode == 0, finished.stderr
    assert "secretmanager.googleapis.com" in services.apis
    bucket = services.documents["/storage/v1/b/acme-yields-yieldspark-state"]
    assert bucket["location"] == "europe-west1"
    assert bucket["iamConfiguration"]["publicAccessPrevention"] == "enforced"
    assert bucket["iamConfiguration"]["uniformBucketLevelAccess"]["enabled"] is True
    assert bucket["versioning"] == {"enabled": True}
    (password,) = services.secrets
    assert re.fullmatch(r"[A-Za-z0-9_-]{48}", password)
    assert password not in finished.stdout + finished.stderr
    assert "init -backend-config=bucket=acme-yields-yieldspark-state" in finished.stdout


def test_bootstrap_puts_no_password_into_an_argument(gcloud: dict[str, str]) -> None:
    """Every account of the machine can read arguments."""
    finished = _bootstrap(gcloud, "acme-yields", "europe-west1")
    assert finished.returncode == 0, finished.stderr
    assert _changes(gcloud) == [
        "services enable",
        "storage buckets create gs://acme-yields-yieldspark-state",
        "storage buckets update gs://acme-yields-yieldspark-state",
        "secrets create yieldspark-database-password",
        "secrets versions add yieldspark-database-password",
    ]
    record = Path(gcloud["RECORD"])
    password = (record / "secret").read_text(encoding="utf-8")
    assert password
    assert password not in (record / "calls").read_text(encoding="utf-8")


def _changes(gcloud: dict[str, str]) -> list[str]:
    """Return the calls of gcloud that change something, without their options."""
    calls = (Path(gcloud["RECORD"]) / "calls").read_text(encoding="utf-8").splitlines()
    return [call.partition(" --")[0] for call in calls if "describe" not in call]


def test_bootstrap_leaves_what_is_there(gcloud: dict[str, str]) -> None:
    finished = _bootstrap(gcloud | {"PRESENT": "buckets describe versions"}, "acme-y", "us-east1")
    assert finished.returncode == 0, finished.stderr
    assert _changes(gcloud) == [
        "services enable",
        "storage buckets update gs://acme-y-yieldspark-state",
    ]


def test_bootstrap_rotates_the_password_with_the_option(gcloud: dict[str, str]) -> None:
    present = gcloud | {"PRESENT": "buckets describe versions"}
    finished = _bootstrap(present, "acme-yields", "europe-west1", "--rotate")
    assert finished.returncode == 0, finished.stderr
    assert _changes(gcloud)[-1] == "secrets versions add yieldspark-database-password"


def test_bootstrap_creates_nothing_without_the_right_to_read(gcloud: dict[str, str]) -> None:
    finished = _bootstrap(gcloud | {"DENIED": "1"}, "acme-yields", "europe-west1")
    assert finished.returncode == 1
    assert "PERMISSION_DENIED" in finished.stderr
    assert _changes(gcloud) == ["services enable"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "usage: "),
        (["acme-yields", "europe-west1", "--rotated"], "usage: "),
        (["Acme Yields", "europe-west1"], "PROJECT_ID is 'Acme Yields'; allowed is"),
        (["acme-yields", "europe"], "REGION is 'europe'; allowed is"),
    ],
)
def test_bootstrap_refuses_wrong_arguments(
    arguments: list[str], message: str, gcloud: dict[str, str]
) -> None:
    finished = _bootstrap(gcloud, *arguments)
    assert finished.returncode == 2
    assert message in finished.stderr
    assert not (Path(gcloud["RECORD"]) / "calls").exists()
