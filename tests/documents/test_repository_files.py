"""Files that a code host reads: workflow, forms and hooks."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from itertools import chain
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from docs.site_hooks import on_page_markdown
from tests.support.processes import PROJECT

DOCS = PROJECT / "docs"
GITHUB = PROJECT / ".github"
SCHEMAS = {
    "vendor.github-workflows": GITHUB / "workflows" / "ci.yml",
    "custom.github-workflows-require-timeout": GITHUB / "workflows" / "ci.yml",
    "vendor.github-issue-forms": GITHUB / "ISSUE_TEMPLATE",
}


@pytest.mark.usefixtures("processes")
@pytest.mark.parametrize("schema", SCHEMAS)
def test_a_file_is_valid_by_the_schema_that_comes_with_the_checker(schema: str) -> None:
    path = SCHEMAS[schema]
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema]
    finished = subprocess.run(
        [*command, *map(str, files)], capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr


def test_the_workflow_calls_the_commands_that_people_type() -> None:
    workflow = yaml.safe_load((GITHUB / "workflows" / "ci.yml").read_text(encoding="utf-8"))
    steps = chain.from_iterable(job["steps"] for job in workflow["jobs"].values())
    commands = {step["run"] for step in steps if "run" in step}
    assert commands == {"python run_spark_local.py test --fast", ".ci/run"}


def hooks() -> dict[str, dict[str, str]]:
    """Returns the hooks of `.pre-commit-config.yaml` by id; all of them are local."""
    settings = yaml.safe_load((PROJECT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    assert [repository["repo"] for repository in settings["repos"]] == ["local"]
    return {hook["id"]: hook for hook in settings["repos"][0]["hooks"]}


def test_a_hook_runs_a_tool_of_the_environment() -> None:
    entries = [hook["entry"] for hook in hooks().values() if hook["language"] == "system"]
    programs = {shlex.split(entry)[0] for entry in entries}
    environment = Path(sys.executable).parent
    assert [name for name in programs if not (environment / Path(name).name).exists()] == []


@pytest.mark.parametrize(
    ("line", "is_refused"),
    [
        ("--index-url https://py" + "pi.org/simple", True),
        ("https://files.python" + "hosted.org/packages", True),
        ("https://repo1." + "maven.org/maven2", True),
        ("https://repo.maven.apache" + ".org/maven2", True),
        ("PyPI and Maven Central", False),
        ("crates of organic fruit", False),
    ],
)
def test_a_hook_refuses_hosts_of_package_registries(line: str, is_refused: bool) -> None:
    pattern = hooks()["registry-hosts"]["entry"]
    assert bool(re.search(pattern, line)) == is_refused


def test_the_site_has_every_page() -> None:
    class Loader(yaml.SafeLoader):
        """A loader that reads the `!!python/name` tags of mkdocs as text."""

    Loader.add_multi_constructor("tag:yaml.org,2002:python/name", lambda *_: "")
    site = yaml.load((PROJECT / "mkdocs.yml").read_text(encoding="utf-8"), Loader)
    pages = set(re.findall(r"'([\w/.-]+\.md)'", str(site["nav"])))
    assert pages == {str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md")}


def test_a_link_out_of_the_site_becomes_text() -> None:
    page = SimpleNamespace(file=SimpleNamespace(src_uri="guides/getting-started.md"))
    markdown = "[a](../metrics.md) [b](../../README.md) [c](https://example.com) [d](#part)"
    expected = "[a](../metrics.md) b [c](https://example.com) [d](#part)"
    assert on_page_markdown(markdown, page=page) == expected
