"""Tests `python -m workflows operator` from outside the network: requests, log, exit code, Ctrl-C.

The containers are small programs.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
import typer

from common.errors import Interrupted
from emulator.services.batch_lifecycle import BatchScript
from emulator.services.batch_process import LocalPlatform
from emulator.services.fake_cloud_run import FakeCloudRun
from emulator.services.fake_logging import FakeLogging
from emulator.services.http_server import serving
from emulator.services.http_service import Service
from emulator.services.written_lines import WrittenLine
from tests.support.dataproc_cases import WorkflowsHere, cloud_variables
from tests.support.releases import cloud_settings
from workflows.inside_network import container_log, container_runs
from workflows.inside_network.container_log import ContainerLog, last_log_lines
from workflows.inside_network.container_runs import run_container
from workflows.releases.code_archive import build_operator_archive
from workflows.spec.release_paths import OPERATOR_JOB

SAYS = """
import getpass, sys
command = sys.argv[sys.argv.index("--") + 1]
if command != "ingest":
    print("operator of version abc1234", file=sys.stderr)
print('{"a": 1}')
print("first, ü", flush=True)
print()
print("asked by", getpass.getuser(), file=sys.stderr)
sys.stdout.write("no end")
sys.exit({"status": 0, "ingest": 0, "evaluate": 2}.get(command, 1))
"""

NAME = f"projects/acme/locations/europe-west1/jobs/{OPERATOR_JOB}/executions/{OPERATOR_JOB}-abcde"


@dataclass
class Outside:
    """The command line outside the network, and the requests that arrived inside."""

    url: str
    run: WorkflowsHere
    cloud_run: FakeCloudRun
    services: list[Service]

    def document(self, *arguments: str, code: int = 0, **variables: str) -> Any:
        """Return the JSON output of `operator --json` with these arguments."""
        result = self.run("operator", "--json", *arguments, **variables)
        assert result.returncode == code, result.stderr
        return json.loads(result.stdout)

    @property
    def started(self) -> list[Any]:
        """Return the bodies of the requests that start a container."""
        return [
            request.json() for request in self.cloud_run.requests if request.path.endswith(":run")
        ]


@pytest.fixture
def outside(processes: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Outside]:
    monkeypatch.setattr(container_runs, "POLL_SECONDS", 0.05)
    entry = tmp_path / "says.py"
    entry.write_text(SAYS, encoding="utf-8")
    services: list[Service] = []
    with serving(services) as url:
        platform = LocalPlatform(tmp_path / "network", url, None)
        cloud_run = FakeCloudRun(
            BatchScript(pending_seconds=0),
            run=lambda name, arguments, variables: platform.run_container(
                entry, arguments, variables, name
            ),
        )
        services += [cloud_run, FakeLogging(cloud_run.lines)]
        yield Outside(url, WorkflowsHere(tmp_path, cloud_variables(url)), cloud_run, services)


def test_container_output_keeps_its_stream(outside: Outside) -> None:
    """Cloud Logging parses a line of JSON and stores no blank lines."""
    arguments = ["operator", "--version", "abc1234", "--", "status", "--json"]
    result = outside.run(*arguments, LOGNAME="ana")
    assert result.returncode == 0, result.stderr
    assert result.stdout == '{"a": 1}\nfirst, ü\nno end\n'
    assert result.stderr.splitlines()[1:] == ["operator of version abc1234", "asked by ana"]
    assert outside.started == [_request(arguments)]


def _request(arguments: list[str]) -> dict[str, Any]:
    """Return the body of a start by ana."""
    container = {"args": arguments, "env": [{"name": "LOGNAME", "value": "ana"}]}
    return {"overrides": {"containerOverrides": [container]}}


def test_reports_a_container_without_a_release(outside: Outside) -> None:
    """Before the first deployment, the job has a placeholder image."""
    result = outside.run("operator", "--", "ingest", "--stablecoins")
    assert result.returncode == 0
    assert "names no release: before the first deployment" in result.stderr


@pytest.mark.parametrize(("command", "code"), [("evaluate", 2), ("db", 1)])
def test_the_exit_code_is_the_containers(outside: Outside, command: str, code: int) -> None:
    arguments = ["db", "migrate"] if command == "db" else [command]
    document = outside.document("--", *arguments, code=code)
    assert (document["state"], document["exit_code"]) == ("FAILED", code)
    assert document["output"] == ['{"a": 1}', "first, ü", "no end"]
    assert f"ended FAILED with exit code {code}: " in document["error"]
    assert document["console"] in document["error"]


FACTS = ("job", "arguments", "version", "state", "exit_code")


def test_the_json_summary_of_a_run(outside: Outside) -> None:
    document = outside.document("--", "status")
    assert {name: document[name] for name in FACTS} == {
        "job": OPERATOR_JOB,
        "arguments": ["operator", "--", "status"],
        "version": "abc1234",
        "state": "SUCCEEDED",
        "exit_code": 0,
    }


REFUSED = {
    "no command": ([], "Missing parameter: command"),
    "another command": (["db", "reset", "--yes"], "allowed: db migrate, db grant, status"),
    "a job": (["calculate_metrics"], "allowed: db migrate"),
    "part of a name": (["stat"], "allowed: db migrate"),
    "a group alone": (["models"], "`models` is no command; allowed: models list, models show"),
    "no command of its group": (["quarantine", "mend"], "`quarantine mend` is no command"),
    "another command of the cloud": (["workflows", "release"], "allowed: db migrate"),
    "an unknown option": (["status", "--all"], "No such option: --all"),
    "a wrong value": (["workflows", "cost", "--day", "tomorrow"], "allowed: YYYY-MM-DD, or"),
}


@pytest.mark.parametrize(("arguments", "sentence"), REFUSED.values(), ids=REFUSED)
def test_a_wrong_command_starts_no_container(
    outside: Outside, arguments: list[str], sentence: str
) -> None:
    document = outside.document("--", *arguments, code=2)
    assert sentence in document["error"]
    assert outside.cloud_run.requests == []


@pytest.mark.usefixtures("processes")
def test_the_container_rejects_a_wrong_command(tmp_path: Path) -> None:
    """A job's arguments may come from another program than this command."""
    archive = tmp_path / "operator.zip"
    archive.write_bytes(build_operator_archive())
    result = subprocess.run(
        [sys.executable, str(archive), "db", "reset", "--yes"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith(
        "error: 'db reset --yes' does not run inside the network; allowed"
    )


def test_a_dry_run_and_help_start_no_container(outside: Outside) -> None:
    planned = outside.document(
        "--dry-run", "--", "db", "migrate", GOOGLE_API_ENDPOINT="", LOGNAME="ana"
    )
    assert planned == {
        "job": f"projects/acme/locations/europe-west1/jobs/{OPERATOR_JOB}",
        "request": _request(["operator", "--", "db", "migrate"]),
    }
    helped = outside.run("operator", "--", "db", "migrate", "--help")
    assert (helped.returncode, "db migrate" in helped.stdout) == (0, True)
    assert outside.cloud_run.requests == []


def test_an_unreadable_log_is_reported_once_and_the_command_continues(outside: Outside) -> None:
    """The service refuses without the right to read logs; here nobody has that right."""
    del outside.services[1]
    result = outside.run("operator", "--", "evaluate")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.count("the log cannot be read: entries:list: Google Cloud refused") == 1


def test_reports_a_missing_job(outside: Outside) -> None:
    outside.cloud_run._jobs = {}
    document = outside.document("--", "status", code=1)
    assert (
        f"there is no Cloud Run job projects/acme/locations/europe-west1/jobs/{OPERATOR_JOB}; "
        in (document["error"])
    )


@pytest.mark.parametrize(("answer", "cancelled"), [(None, False), (False, False), (True, True)])
def test_ctrl_c_asks_at_a_terminal_and_leaves_it_otherwise(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    answer: bool | None,
    cancelled: bool,
) -> None:
    """The answer None means no terminal. test_batch_commands.py tests that a signal does so."""
    monkeypatch.setattr(sys.stdin, "isatty", lambda: answer is not None, raising=False)
    monkeypatch.setattr(typer, "confirm", lambda *_, **__: answer)
    cloud_run = FakeCloudRun(
        BatchScript(pending_seconds=0, end=None, cancelling_seconds=0, output=b"begun\n")
    )

    def interrupt(line: object) -> None:
        raise KeyboardInterrupt

    with serving([cloud_run, FakeLogging(cloud_run.lines)]) as url, pytest.raises(Interrupted):
        run_container(cloud_settings(url), OPERATOR_JOB, ["operator"], interrupt)
    requests = [request.path for request in cloud_run.requests]
    assert any(path.endswith(":cancel") for path in requests) is cancelled
    how = f"gcloud run jobs executions cancel {OPERATOR_JOB}-"
    assert (how in capsys.readouterr().err) is not cancelled


def _log(*lines: tuple[float, str]) -> list[tuple[str, WrittenLine]]:
    return [
        (NAME, WrittenLine("stdout", number, text, received))
        for number, (received, text) in enumerate(lines)
    ]


def test_each_line_is_shown_once_however_late_it_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(container_log, "PAGE", 2)
    entries = _log((1_000.0, "a"), (1_030.0, "c"), (1_030.0, "d"))
    fake = FakeLogging(lambda: entries)
    with serving([fake]) as url:
        settings = cloud_settings(url)
        log = ContainerLog(settings, OPERATOR_JOB, "1970-01-01T00:16:39Z", NAME.rpartition("/")[2])
        assert [line.text for line in log.read_new()] == ["a", "c", "d"]
        entries = _log((1_000.0, "a"), (1_030.0, "c"), (1_030.0, "d"), (1_010.0, "b"), (990, "x"))
        assert [line.text for line in log.read_new()] == ["b"]
        assert log.read_new() == []
        assert last_log_lines(settings, OPERATOR_JOB, "1970-01-01T00:00:00Z", 2) == ["c", "d"]
        assert last_log_lines(settings, "another", "1970-01-01T00:00:00Z") == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"resourceNames": []}, "resource_names must be set"),
        ({"filters": ""}, 'Unknown name "filters"'),
        ({"filter": "textPayload:x"}, "Unparseable filter: 'textPayload:x'"),
        ({"orderBy": "severity"}, "orderBy 'severity'"),
        ({"pageSize": 1001}, "pageSize 1001"),
    ],
)
def test_the_log_rejects_unknown_requests(change: dict[str, Any], message: str) -> None:
    request = {"resourceNames": ["projects/acme"], "filter": ""} | change
    with serving([FakeLogging(list)]) as url, pytest.raises(HTTPError) as refused:
        urlopen(f"{url}/v2/entries:list", json.dumps(request).encode())
    assert json.loads(refused.value.read())["error"]["message"].count(message) == 1


@pytest.mark.usefixtures("processes")
def test_gcloud_reads_the_same_log(tmp_path: Path) -> None:
    """Google's program understands the entries, and the fake its filters."""
    if not shutil.which("gcloud"):
        pytest.skip("gcloud is not installed here")
    log_entries = _log((1_000.0, "a"), (1_030.0, '{"b": 1}'))
    with serving([FakeLogging(lambda: log_entries)]) as url:
        variables = os.environ | {
            "CLOUDSDK_AUTH_DISABLE_CREDENTIALS": "true",
            "CLOUDSDK_CONFIG": str(tmp_path / "gcloud"),
            "CLOUDSDK_CORE_PROJECT": "acme",
            "CLOUDSDK_API_ENDPOINT_OVERRIDES_LOGGING": f"{url}/",
        }
        expected = f'resource.type="cloud_run_job" AND resource.labels.job_name="{OPERATOR_JOB}"'
        result = subprocess.run(
            ["gcloud", "logging", "read", expected, "--order=asc", "--format=json"],
            env=variables,
            capture_output=True,
            text=True,
            check=False,
        )
    assert result.returncode == 0, result.stderr
    entries = json.loads(result.stdout)
    assert [entry.get("textPayload", entry.get("jsonPayload")) for entry in entries] == [
        "a",
        {"b": 1},
    ]
