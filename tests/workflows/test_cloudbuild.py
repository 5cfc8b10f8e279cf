"""Tests that cloudbuild.yaml follows its rules, that each rule can fail, and that Google's types
and the public schema accept the file.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from google.cloud.devtools.cloudbuild_v1 import Build, Volume
from google.protobuf.json_format import ParseError  # type: ignore[import-untyped]

from tests.support.cloudbuild_rules import RULES, BuildFile, faults
from tests.support.processes import PROJECT

TEXT = (PROJECT / "cloudbuild.yaml").read_text(encoding="utf-8")

BROKEN = {
    "a step without a name": ("steps_are_named", "- id: deploy\n", "-\n"),
    "a step less": ("steps_are_named", r"  - id: verify[\s\S]*?timeout: 300s\n", ""),
    "no waitFor": ("a_step_waits_for_steps_before_it", r"    waitFor: \[images\]\n", ""),
    "an unknown step": ("a_step_waits_for_steps_before_it", r"\[images\]", "[image]"),
    "the release at once": ("a_step_waits_for_steps_before_it", r"\[images\]", "['-']"),
    "the release before the images": ("nothing_begins_too_early", r"\[images\]", "[test]"),
    "images without the suite": ("nothing_begins_too_early", r"\[test\]", "[settings]"),
    "the deployment before the release": ("nothing_begins_too_early", r"\[release\]", "[images]"),
    "a shell line": (
        "a_step_is_a_script_of_the_repository",
        r"entrypoint: python3\n    args: \[-m, workflows.deployment, deploy\]",
        "script: gcloud workflows deploy yieldspark-pipeline",
    ),
    "another module": (
        "a_step_is_a_script_of_the_repository",
        "workflows.deployment, verify",
        "workflows.verify, verify",
    ),
    "the step of another": (
        "a_step_is_a_script_of_the_repository",
        "workflows.deployment, verify",
        "workflows.deployment, deploy",
    ),
    "part of the suite": ("a_step_is_a_script_of_the_repository", r"\[.ci/run\]", "[-c, 'true']"),
    "latest": (
        "builders_are_pinned",
        r"google/cloud-sdk:587.0.0-slim@",
        "google/cloud-sdk:latest@",
    ),
    "no digest": ("builders_are_pinned", r"-slim@sha256:\w+", "-slim"),
    "gcr.io as builder": (
        "builders_are_pinned",
        "name: google/cloud-sdk:587.0.0-slim",
        "name: gcr.io/google.com/cloudsdktool/cloud-sdk:587.0.0-slim",
    ),
    "gcr.io as repository": (
        "builders_are_pinned",
        r"=\$_IMAGE_REPOSITORY",
        "=gcr.io/$PROJECT_ID",
    ),
    "a substitution that is not defined": (
        "substitutions_are_defined_used_and_explained",
        "  _CODE_BUCKET: ''\n",
        "",
    ),
    "one that is not used": (
        "substitutions_are_defined_used_and_explained",
        "substitutions:\n",
        "substitutions:\n  _REGION: ''\n",
    ),
    "one that Cloud Build lacks": (
        "substitutions_are_defined_used_and_explained",
        r"=\$COMMIT_SHA",
        "=$COMMIT_HASH",
    ),
    "one that is not explained": (
        "substitutions_are_defined_used_and_explained",
        "#   _CODE_BUCKET",
        "#   the",
    ),
    "a project's bucket": (
        "substitutions_are_defined_used_and_explained",
        "_CODE_BUCKET: ''",
        "_CODE_BUCKET: acme-code",
    ),
    "an empty COMMIT_SHA": ("the_commit_reaches_its_steps", r"=\$COMMIT_SHA", "="),
    "no COMMIT_SHA": ("the_commit_reaches_its_steps", r"      - COMMIT_SHA=\$COMMIT_SHA\n", ""),
    "the tag as commit": ("the_commit_reaches_its_steps", r"=\$COMMIT_SHA", "=$TAG_NAME"),
    "a password": ("no_secret_is_in_it", "- CI=true", "- DB_PASSWORD=$_CODE_BUCKET"),
    "a secret by Cloud Build": (
        "no_secret_is_in_it",
        "    timeout: 300s",
        "    secretEnv: [DB_PASSWORD]\n    timeout: 300s",
    ),
    "secrets of the file": ("no_secret_is_in_it", "\noptions:", "\navailableSecrets: {}\noptions:"),
    "a URL with credentials": ("no_secret_is_in_it", "CI=true", "CI=https://me:hunter2@a.example"),
    "a folder in the checkout": (
        "nothing_is_handed_on_in_the_checkout",
        "DEPLOYMENT_FOLDER=/deployment",
        "DEPLOYMENT_FOLDER=/workspace/deployment",
    ),
    "jars in the checkout": (
        "nothing_is_handed_on_in_the_checkout",
        "JARS_DIR=/deployment/jars",
        "JARS_DIR=jars",
    ),
    "a volume in the checkout": (
        "nothing_is_handed_on_in_the_checkout",
        "path: /deployment",
        "path: /workspace/deployment",
    ),
    "no folder": (
        "nothing_is_handed_on_in_the_checkout",
        "    - DEPLOYMENT_FOLDER=/deployment\n",
        "",
    ),
    "logs in a bucket": ("logs_and_account_are_right", "CLOUD_LOGGING_ONLY", "GCS_ONLY"),
    "an account that is ignored": (
        "logs_and_account_are_right",
        "\noptions:",
        "\nserviceAccount: projects/p/serviceAccounts/a\noptions:",
    ),
    "a step without end": ("time_and_machine_fit_the_suite", "    timeout: 300s\n", ""),
    "ten minutes for all": (
        "time_and_machine_fit_the_suite",
        r"\ntimeout: \d+s",
        "\ntimeout: 600s",
    ),
    "ten minutes for the suite": (
        "time_and_machine_fit_the_suite",
        "timeout: 3600s",
        "timeout: 600s",
    ),
    "too little memory": ("time_and_machine_fit_the_suite", "E2_HIGHCPU_8", "E2_MEDIUM"),
    "more than the quota": ("time_and_machine_fit_the_suite", "E2_HIGHCPU_8", "E2_HIGHCPU_32"),
}
"""What is wrong -> the rule that says so, what stands in the file (a regular expression), what
stands there instead.
"""


def test_our_build_breaks_no_rule() -> None:
    assert faults(BuildFile(TEXT, PROJECT)) == {}


@pytest.mark.parametrize(("rule", "old", "new"), BROKEN.values(), ids=BROKEN)
def test_a_rule_finds(rule: str, old: str, new: str) -> None:
    broken, count = re.subn(old, new, TEXT)
    assert count, f"{old} is not in cloudbuild.yaml"
    assert rule in faults(BuildFile(broken, PROJECT))


def test_every_rule_can_fail() -> None:
    assert {rule for rule, _, _ in BROKEN.values()} == {rule.__name__ for rule in RULES}


def test_googles_own_types_read_it() -> None:
    """The service also rejects an unknown field."""
    document = BuildFile(TEXT, PROJECT).document
    build = Build.from_json(json.dumps(document))
    assert [step.id for step in build.steps] == [step["id"] for step in document["steps"]]
    assert build.timeout == timedelta(seconds=6600)
    assert build.options.machine_type.name == "E2_HIGHCPU_8"
    assert build.options.logging.name == "CLOUD_LOGGING_ONLY"
    assert list(build.options.volumes) == [Volume(name="deployment", path="/deployment")]
    with pytest.raises(ParseError, match="waitsFor"):
        Build.from_json(json.dumps(document | {"steps": [{"id": "check", "waitsFor": ["-"]}]}))
    with pytest.raises(ParseError, match="machineType"):
        Build.from_json(json.dumps(document | {"options": {"machineType": "E2_HIGHCPU_9"}}))


@pytest.mark.usefixtures("processes")
def test_the_public_schema_takes_it(tmp_path: Path) -> None:
    """check-jsonschema has the schema in its package, so nothing is downloaded."""
    broken = tmp_path / "cloudbuild.yaml"
    broken.write_text(TEXT.replace("waitFor: [images]", "waitFor: images"))
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.cloudbuild"]
    result = subprocess.run(
        [*command, str(PROJECT / "cloudbuild.yaml"), str(broken)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    faults = [line for line in result.stdout.splitlines() if "::$" in line]
    assert len(faults) == 1, result.stdout + result.stderr
    assert str(broken) in faults[0]
    assert "steps[4].waitFor" in faults[0]


def test_the_trigger_sets_the_substitutions_of_the_file() -> None:
    """A substitution that the trigger lacks is empty, and `check` ends the build."""
    folder = PROJECT / "terraform"
    if not folder.is_dir():
        pytest.skip("no terraform/ in this checkout")
    trigger = (folder / "build.tf").read_text(encoding="utf-8")
    assert set(re.findall(r"^ +(_[A-Z_]+) +=", trigger, re.MULTILINE)) == set(
        BuildFile(TEXT, PROJECT).document["substitutions"]
    )
