"""Tests the pages about a Google project: their commands, variables, files and grants are those of
`terraform/` and of the code.
"""

from __future__ import annotations

import re
import shlex
from typing import Any

import pytest
import typer

from common.events import EVENTS
from common.jobs import CALCULATE_METRICS, job_names
from config_spark import Settings
from docs.generate.__main__ import DOCS
from docs.generate.grants import IDENTITIES, batch_jobs, read_grants
from tests.support.processes import PROJECT
from workflows.commands import main as entry  # noqa: F401
from workflows.commands.app import app
from workflows.spec.batch_size import DISK_GB, ROWS_PER_EXECUTOR, size_for
from workflows.spec.release_paths import CONTAINER_ARGUMENTS

PAGE = DOCS / "guides" / "cloud-bootstrap.md"
PAGES = {
    name: (PAGE.parent / name).read_text(encoding="utf-8") for name in (PAGE.name, "cloud-smoke.md")
}
TEXT = "\n".join(PAGES.values())
SOURCES = {
    path.name: path.read_text(encoding="utf-8") for path in (PROJECT / "terraform").glob("*.tf")
}
CONFIGURATION = "\n".join(SOURCES.values())
COMMANDS = sorted(set(re.findall(r"\bpython -m workflows ([^`\n]+)", TEXT)))
DECLARED = set(re.findall(r'^variable "(\w+)"', CONFIGURATION, re.MULTILINE))


def test_a_grant_without_a_reason_is_an_error() -> None:
    text = IDENTITIES.read_text(encoding="utf-8")
    with pytest.raises(ValueError, match="the grant workflow_log has no reason"):
        read_grants(re.sub(r' +reason = "Writes one line.*\n', "", text))
    with pytest.raises(ValueError, match="no map `grants`"):
        read_grants("locals {}")


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_a_page_is_understood(command: str) -> None:
    arguments = shlex.split(command.replace(" BATCH", " metrics-0b2c7d1e"))
    command_of_line: Any = typer.main.get_command(app)
    while hasattr(command_of_line, "commands"):
        command_of_line = command_of_line.commands[arguments.pop(0)]
    assert command_of_line.make_context(command_of_line.name, arguments).args == []


def test_variables_resources_and_files_of_the_pages_exist() -> None:
    variables = set(re.findall(r"-var (\w+)=", TEXT)) | set(re.findall(r"`(\w+) = \w+`", TEXT))
    assert variables
    assert variables - DECLARED == set()
    names = set(re.findall(r"`([a-z]+(?:_[a-z]+)+)`", TEXT))
    events = " ".join(event.name for event in EVENTS)
    assert [
        resource_name
        for resource_name in sorted(names)
        if resource_name not in CONFIGURATION + events
    ] == []
    for kind, name in re.findall(r"\b(google_\w+)\.(\w+)", TEXT):
        assert f'resource "{kind}" "{name}"' in CONFIGURATION
    paths = re.findall(r"`?\b((?:terraform|workflows|docs)/[\w./-]+\.\w+)", TEXT)
    assert [path for path in sorted(set(paths)) if not (PROJECT / path).exists()] == []
    settings = set(re.findall(r"`([A-Z]+(?:_[A-Z]+)+)(?:=\w+)?`", TEXT)) - {"ALL_TRAFFIC"}
    assert {name.lower() for name in settings} <= set(Settings.model_fields)


def test_the_quotas_are_those_of_the_smallest_batch() -> None:
    size = size_for(CALCULATE_METRICS.name, None, 0, max_executors=20)
    machines = 1 + size.executors_min
    cores = size.driver.cores + size.executors_min * size.executor.cores
    page = " ".join(PAGES[PAGE.name].split())
    assert f"{cores} vCPU and {machines * DISK_GB} GB of disk" in page
    most = size.executors_min * ROWS_PER_EXECUTOR // 1_000_000
    assert f"more than {most} million" in page


def test_links_of_the_pages_lead_somewhere() -> None:
    for name, text in PAGES.items():
        for link in re.findall(r"\]\(([\w./-]+)(?:#[\w-]+)?\)", text):
            assert (PAGE.parent / link).exists(), f"{name}: {link}"


def test_every_variable_is_described_typed_and_in_order() -> None:
    blocks = re.findall(
        r'^variable "(\w+)" \{\n(.*?)^\}', SOURCES["variables.tf"], re.MULTILINE | re.DOTALL
    )
    assert [name for name, _ in blocks] == sorted(name for name, _ in blocks)
    for name, body in blocks:
        assert re.search(r'^  description = ".+\."$', body, re.MULTILINE), name
        kind = re.search(r"^  type +=\s(.+)$", body, re.MULTILINE)
        assert kind, name
        assert "validation {" in body or kind[1] in ("bool", "list(string)"), name


def test_the_example_sets_declared_variables() -> None:
    example = (PROJECT / "terraform" / "example.tfvars").read_text(encoding="utf-8")
    assert set(re.findall(r"^(?:# )?(\w+) += ", example, re.MULTILINE)) <= DECLARED


def test_the_jobs_have_the_arguments_that_the_code_gives_them() -> None:
    """Without overrides of a start."""
    blocks = re.findall(
        r"^ +([a-z-]+) += \[(\".*?)\]|\{ (ingest) = concat\(\[(.*?)\]",
        SOURCES["run.tf"],
        re.MULTILINE,
    )
    arguments = {
        f"yieldspark-{name or ingest}": tuple(re.findall(r'"([^"]*)"', listed_arguments or more))
        for name, listed_arguments, ingest, more in blocks
    }
    assert arguments == CONTAINER_ARGUMENTS
    assert '{ for job in local.batch_jobs : job => [replace(job, "-", "_")] }' in SOURCES["run.tf"]
    assert [name.replace("-", "_") for name in batch_jobs()] == list(job_names())
