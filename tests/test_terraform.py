"""`terraform/` as Terraform's own checks see it, what it says to a variable that can't work, and
the script that comes before it.
"""

from __future__ import annotations

import os
import re
import stat
import subprocess
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from emulator.google_provider import obstacle
from emulator.terraform_runs import Terraform, copied_configuration
from tests.processes import PROJECT

needs_terraform = pytest.mark.skipif(obstacle() is not None, reason=str(obstacle()))

BAD_VALUES = {
    "batch_cidr": ("10.20.0.0/33", "10.20.0.0/24"),
    "costs_schedule": ("0 6 * *", "cron with five fields"),
    "database_tier": ("db-n1-standard-1", "db-custom-VCPUS-MIB"),
    "database_version": ("POSTGRES_12", "POSTGRES_14 to POSTGRES_18"),
    "engine": ("prophet", "lightgbm and synapseml"),
    "ingest_schedule": ("tonight", "cron with five fields"),
    "nightly_schedule": ("15 24 * * *", "such as 15 2 * * *"),
    "operators": ('["bob"]', "user:ADDRESS"),
    "repository": ("github.com/acme/yields", "connections/CONNECTION/repositories/REPOSITORY"),
    "run_cidr": ("10.20.1.0/28", "/26 or larger"),
    "schedule_zone": ("America/New_York", "Etc/UTC and UTC"),
    "services_cidr": ("8.8.0.0/20", "a private IPv4 range"),
}
"""Values that the variables refuse, and words of what is allowed."""


@pytest.fixture(scope="module")
def terraform(tmp_path_factory: pytest.TempPathFactory) -> Terraform:
    return copied_configuration(tmp_path_factory.mktemp("terraform"), print)


@pytest.fixture(scope="module")
def refusals(terraform: Terraform) -> str:
    """What one plan says to all of `BAD_VALUES`, on one line."""
    words = [word for name, (bad, _) in BAD_VALUES.items() for word in ("-var", f"{name}={bad}")]
    return _refused(terraform, *words)


def _refused(terraform: Terraform, *words: str) -> str:
    """What a plan that must fail says, on one line."""
    project = ("-var", "project_id=acme-yields", "-var", "region=europe-west1")
    done = terraform.run("plan", "-input=false", "-no-color", *project, *words)
    assert done.exit_code == 1
    return " ".join(re.sub(r"[│╷╵]", " ", done.text).split())


@needs_terraform
def test_every_file_is_formatted(terraform: Terraform) -> None:
    where = PROJECT / "terraform"
    assert terraform.run("fmt", "-check", "-recursive", "-diff", str(where)).text == ""


@needs_terraform
def test_the_configuration_is_valid(terraform: Terraform) -> None:
    assert "The configuration is valid" in terraform.checked("validate", "-no-color")


@needs_terraform
def test_terraforms_own_tests(terraform: Terraform) -> None:
    said = terraform.checked("test", "-no-color")
    assert re.search(r"Success! \d passed, 0 failed", said), said


@needs_terraform
@pytest.mark.parametrize("name", BAD_VALUES)
def test_a_bad_value_is_named_with_what_is_allowed(name: str, refusals: str) -> None:
    bad, allowed = BAD_VALUES[name]
    quoted = bad if bad.startswith("[") else f'"{bad}"'
    sentence = refusals.partition(f"{name} = {quoted}. Allowed ")[2].partition(" This was checked")
    assert allowed in sentence[0], refusals


@needs_terraform
@pytest.mark.parametrize(
    ("variables", "words"),
    [
        (
            ["max_executors=60"],
            'database_tier = "db-custom-1-3840" takes 100 connections, and max_executors = 60 needs'
            " 260. Allowed is a tier of at least 7680 MiB (db-custom-VCPUS-MIB), or max_executors"
            " up to 20 with this tier.",
        ),
        (
            ["run_cidr=10.20.0.128/26", "services_cidr=10.20.0.0/16"],
            "Overlapping ranges: batch_cidr and run_cidr (10.20.0.0/24, 10.20.0.128/26); batch_cidr"
            " and services_cidr (10.20.0.0/24, 10.20.0.0/16)",
        ),
        (["region=europe"], 'region = "europe". Allowed are africa-south1, asia-east1,'),
    ],
)
def test_values_that_do_not_go_together_and_a_region_are_named(
    variables: list[str], words: str, terraform: Terraform
) -> None:
    given = [word for variable in variables for word in ("-var", variable)]
    assert words in _refused(terraform, *given)


NO_VERSION = (
    b'{"error": {"code": 404, "message": "Secret Version [..] not found.", "status": "NOT_FOUND"}}'
)


class SecretsWithoutVersions(BaseHTTPRequestHandler):
    """Answers as Secret Manager does where a secret or its version is missing."""

    def do_GET(self) -> None:
        self.send_response(404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(NO_VERSION)))
        self.end_headers()
        self.wfile.write(NO_VERSION)

    def log_message(self, *_: object) -> None:
        """The requests are no output of the test."""


@needs_terraform
def test_without_a_version_of_the_password_bootstrap_is_named(
    terraform: Terraform, tmp_path: Path
) -> None:
    """The block of database.tf alone, against a service that has no version."""
    source = (PROJECT / "terraform" / "database.tf").read_text(encoding="utf-8")
    block = re.search(r"^ephemeral .*?^\}$", source, re.MULTILINE | re.DOTALL)
    assert block is not None
    known = re.sub(r"(project|secret) +=.*", r'\1 = "acme-yields"', block[0])
    with ThreadingHTTPServer(("127.0.0.1", 0), SecretsWithoutVersions) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/v1/"
        (tmp_path / "main.tf").write_text(
            "terraform {\n  required_providers {\n    google = {\n"
            '      source = "hashicorp/google"\n    }\n  }\n}\n\n'
            'provider "google" {\n  alias = "secrets"\n'
            f'  secret_manager_custom_endpoint = "{address}"\n}}\n\n{known}\n',
            encoding="utf-8",
        )
        alone = Terraform(tmp_path, terraform.environment)
        alone.checked("init", "-input=false", "-no-color")
        done = alone.run("plan", "-input=false", "-no-color")
        server.shutdown()
    assert done.exit_code == 1
    assert "Error 404" in done.text
    assert "made by terraform/bootstrap.sh: run it where the version is missing" in done.text


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
    """Variables with which a stand-in for gcloud comes first; its record is in RECORD."""
    programs, record = tmp_path / "programs", tmp_path / "record"
    programs.mkdir()
    record.mkdir()
    program = programs / "gcloud"
    program.write_text(GCLOUD, encoding="utf-8")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return os.environ | {"PATH": f"{programs}:{os.environ['PATH']}", "RECORD": str(record)}


def _bootstrap(environment: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(PROJECT / "terraform" / "bootstrap.sh"), *words],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_bootstrap_makes_what_is_missing_and_prints_no_password(gcloud: dict[str, str]) -> None:
    done = _bootstrap(gcloud, "acme-yields", "europe-west1")
    assert done.returncode == 0, done.stderr
    record, changes = Path(gcloud["RECORD"]), _changes(gcloud)
    assert changes == [
        "services enable",
        "storage buckets create gs://acme-yields-yieldspark-state",
        "storage buckets update gs://acme-yields-yieldspark-state",
        "secrets create yieldspark-database-password",
        "secrets versions add yieldspark-database-password",
    ]
    secret = (record / "secret").read_text(encoding="utf-8")
    assert re.fullmatch(r"[A-Za-z0-9_-]{48}", secret)
    calls = (record / "calls").read_text(encoding="utf-8")
    assert secret not in done.stdout + done.stderr + calls
    assert "init -backend-config=bucket=acme-yields-yieldspark-state" in done.stdout


def _changes(gcloud: dict[str, str]) -> list[str]:
    """What the script asked gcloud to change, without the options."""
    calls = (Path(gcloud["RECORD"]) / "calls").read_text(encoding="utf-8").splitlines()
    return [call.partition(" --")[0] for call in calls if "describe" not in call]


def test_bootstrap_leaves_what_is_there(gcloud: dict[str, str]) -> None:
    done = _bootstrap(gcloud | {"PRESENT": "buckets describe versions"}, "acme-y", "us-east1")
    assert done.returncode == 0, done.stderr
    assert _changes(gcloud) == [
        "services enable",
        "storage buckets update gs://acme-y-yieldspark-state",
    ]


def test_bootstrap_rotates_the_password_when_asked(gcloud: dict[str, str]) -> None:
    present = gcloud | {"PRESENT": "buckets describe versions"}
    done = _bootstrap(present, "acme-yields", "europe-west1", "--rotate")
    assert done.returncode == 0, done.stderr
    assert _changes(gcloud)[-1] == "secrets versions add yieldspark-database-password"


def test_bootstrap_makes_nothing_where_it_may_not_look(gcloud: dict[str, str]) -> None:
    done = _bootstrap(gcloud | {"DENIED": "1"}, "acme-yields", "europe-west1")
    assert done.returncode == 1
    assert "PERMISSION_DENIED" in done.stderr
    assert _changes(gcloud) == ["services enable"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "usage: "),
        (["acme-yields", "europe-west1", "--rotated"], "usage: "),
        (["Acme Yields", "europe-west1"], "PROJECT_ID is 'Acme Yields'; allowed is"),
        (["acme-yields", "europe"], "REGION is 'europe'; allowed is"),
    ],
)
def test_bootstrap_refuses_wrong_words(words: list[str], said: str, gcloud: dict[str, str]) -> None:
    done = _bootstrap(gcloud, *words)
    assert done.returncode == 2
    assert said in done.stderr
    assert not (Path(gcloud["RECORD"]) / "calls").exists()
