"""Tests `terraform/` with Terraform's own checks, and its messages for wrong variables."""

from __future__ import annotations

import re
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import chain
from pathlib import Path
from threading import Thread

import pytest

from emulator.terraform.google_provider import obstacle
from emulator.terraform.terraform_runs import Terraform, copy_configuration
from tests.support.processes import PROJECT

needs_terraform = pytest.mark.skipif(obstacle() is not None, reason=str(obstacle()))

BAD_VALUES = {
    "alert_emails": ('["data@example"]', "e-mail addresses"),
    "batch_cidr": ("10.20.0.0/33", "10.20.0.0/24"),
    "billing_account": ("12345", "012345-6789AB-CDEF01"),
    "costs_schedule": ("0 6 * *", "cron with five fields"),
    "database_tier": ("db-n1-standard-1", "db-custom-VCPUS-MIB"),
    "database_version": ("POSTGRES_12", "POSTGRES_14 to POSTGRES_18"),
    "engine": ("prophet", "lightgbm and synapseml"),
    "ingest_schedule": ("tonight", "cron with five fields"),
    "notification_channels": ('["1234567890"]', "projects/PROJECT/notificationChannels/ID"),
    "nightly_schedule": ("15 24 * * *", "such as 15 2 * * *"),
    "operators": ('["bob"]', "user:ADDRESS"),
    "repository": ("github.com/acme/yields", "connections/CONNECTION/repositories/REPOSITORY"),
    "run_cidr": ("10.20.1.0/28", "/26 or larger"),
    "schedule_zone": ("America/New_York", "Etc/UTC and UTC"),
    "services_cidr": ("8.8.0.0/20", "a private IPv4 range"),
}
"""Values that the variables refuse, and words of what is allowed."""


@pytest.fixture(scope="module")
def terraform(processes: None, tmp_path_factory: pytest.TempPathFactory) -> Terraform:
    return copy_configuration(tmp_path_factory.mktemp("terraform"), print)


@pytest.fixture(scope="module")
def refusals(terraform: Terraform) -> str:
    """What one plan says to all of `BAD_VALUES`, on one line."""
    pairs = [("-var", f"{name}={bad}") for name, (bad, _) in BAD_VALUES.items()]
    return _refused(terraform, *chain.from_iterable(pairs))


def _refused(terraform: Terraform, *words: str) -> str:
    """What a plan that must fail says, on one line."""
    project = ("-var", "project_id=acme-yields", "-var", "region=europe-west1")
    result = terraform.run("plan", "-input=false", "-no-color", *project, *words)
    assert result.exit_code == 1
    return " ".join(re.sub(r"[│╷╵]", " ", result.text).split())


@needs_terraform
def test_every_file_is_formatted(terraform: Terraform) -> None:
    where = PROJECT / "terraform"
    assert terraform.run("fmt", "-check", "-recursive", "-diff", str(where)).text == ""


@needs_terraform
def test_terraforms_own_tests(terraform: Terraform) -> None:
    output = terraform.checked("test", "-no-color")
    assert re.search(r"Success! \d passed, 0 failed", output), output


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
    values = list(chain.from_iterable(("-var", variable) for variable in variables))
    assert words in _refused(terraform, *values)


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
    inputs = re.sub(r"(project|secret) +=.*", r'\1 = "acme-yields"', block[0])
    with ThreadingHTTPServer(("127.0.0.1", 0), SecretsWithoutVersions) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/v1/"
        (tmp_path / "main.tf").write_text(
            "terraform {\n  required_providers {\n    google = {\n"
            '      source = "hashicorp/google"\n    }\n  }\n}\n\n'
            'provider "google" {\n  alias = "secrets"\n'
            f'  secret_manager_custom_endpoint = "{address}"\n}}\n\n{inputs}\n',
            encoding="utf-8",
        )
        alone = Terraform(tmp_path, terraform.environment)
        alone.checked("init", "-input=false", "-no-color")
        result = alone.run("plan", "-input=false", "-no-color")
        server.shutdown()
    assert result.exit_code == 1
    assert "Error 404" in result.text
    assert "made by terraform/bootstrap.sh: run it where the version is missing" in result.text
