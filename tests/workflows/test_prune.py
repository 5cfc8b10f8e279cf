"""Tests `prune`: which releases it deletes and keeps, and that an interrupted one leaves nothing
that a run could use. Storage, Dataproc and Executions are fakes at one address.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from common.errors import CloudRefused, ConfigurationError, ReleaseConflict, RunInProgress
from config_spark import Settings
from emulator.services.batch_lifecycle import BatchScript
from emulator.services.fake_dataproc import FakeDataproc
from emulator.services.fake_executions import FakeExecutions
from emulator.services.fake_storage import FakeStorage, Fault
from emulator.services.http_server import serving
from emulator.services.http_service import Request
from emulator.services.object_store import Conditions
from tests.support.dataproc_cases import WorkflowsHere, batch_request, cloud_variables
from tests.support.releases import (
    BUCKET,
    FIRST,
    SECOND,
    THIRD,
    cloud_settings,
    latest_version,
    objects,
    small_release,
)
from workflows.clients.dataproc import Batches
from workflows.clients.executions import Executions
from workflows.releases.code_bucket import CodeBucket
from workflows.releases.prune import Pruned, prune
from workflows.releases.release import publish_content, rollback
from workflows.spec.release_paths import LATEST, MANIFEST, object_name

FOURTH, FIFTH = "d" * 40, "e" * 40
ALL = (FIRST, SECOND, THIRD, FOURTH, FIFTH)


@dataclass
class Cloud:
    """The fakes, and settings with their address. An execution runs until `over` is set."""

    storage: FakeStorage
    dataproc: FakeDataproc
    settings: Settings
    over: threading.Event = field(default_factory=threading.Event)

    @property
    def versions(self) -> set[str]:
        names = (name.split("/") for name in objects(self.storage) if name != LATEST)
        return {parts[1] for parts in names}

    def submit(self, name: str, version: str, bucket: str = BUCKET) -> None:
        """Submit a batch of this version, which keeps running."""
        batch = batch_request()
        batch["pysparkBatch"]["mainPythonFileUri"] = f"gs://{bucket}/versions/{version}/metrics.py"
        Batches(self.settings).submit(batch, name, f"m-{name[-30:]}")

    def start(self, argument: Any) -> str:
        """Return the id of an execution that has started."""
        return str(Executions(self.settings).start(argument)["name"]).rpartition("/")[2]


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[Cloud]:
    """Five releases; the last one is the latest."""
    storage = FakeStorage(tmp_path / "storage", [BUCKET])
    dataproc = FakeDataproc(BatchScript(pending_seconds=0, end=None, cancelling_seconds=0))
    over = threading.Event()
    executions = FakeExecutions(lambda name, argument: over.wait())
    with serving([storage, dataproc, executions]) as url:
        created = Cloud(storage, dataproc, cloud_settings(url), over)
        for version in ALL:
            publish_content(CodeBucket(created.settings), small_release(version))
        yield created
        over.set()


def reasons(pruned: Pruned) -> dict[str, str | None]:
    return {candidate.version[0]: candidate.kept for candidate in pruned.candidates}


def deleted_versions(pruned: Pruned) -> list[str]:
    return [entry["version"] for entry in pruned.payload()["releases"] if entry["deleted"]]


ROLLBACK = "kept for a rollback"


def test_the_newest_stay_and_a_dry_run_lists_deletions(cloud: Cloud) -> None:
    before = objects(cloud.storage)
    planned = prune(cloud.settings, 3, dry_run=True)
    assert objects(cloud.storage) == before
    assert reasons(planned) == {
        "e": "the latest",
        "d": ROLLBACK,
        "c": "one of the newest 3",
        "b": None,
        "a": None,
    }
    assert deleted_versions(planned) == []
    output: list[str] = []
    result = prune(cloud.settings, 3, say=output.append)
    assert output == [f"1/2 {SECOND}", f"2/2 {FIRST}"]
    assert deleted_versions(result) == [SECOND, FIRST]
    assert (result.bucket, result.bytes, reasons(result)) == (
        BUCKET,
        sum(len(content) for name, content in before.items() if FIRST in name or SECOND in name),
        reasons(planned),
    )
    assert objects(cloud.storage) == {
        name: content
        for name, content in before.items()
        if FIRST not in name and SECOND not in name
    }
    assert prune(cloud.settings, 3).bytes == 0


def test_the_latest_and_the_one_before_it_stay_after_a_rollback(cloud: Cloud) -> None:
    rollback(cloud.settings, THIRD)
    assert reasons(prune(cloud.settings, 1)) == {
        "e": "one of the newest 1",
        "d": None,
        "c": "the latest",
        "b": ROLLBACK,
        "a": None,
    }
    assert cloud.versions == {FIFTH, THIRD, SECOND}
    assert latest_version(cloud.storage) == THIRD
    assert rollback(cloud.settings, SECOND).moved


def test_a_version_that_a_batch_runs_stays_until_it_has_ended(cloud: Cloud) -> None:
    cloud.submit("metrics-1", FIRST)
    cloud.submit("metrics-2", SECOND, bucket="another-code")
    assert reasons(prune(cloud.settings, 1))["a"] == "batch metrics-1 is RUNNING"
    assert cloud.versions == {FIRST, FOURTH, FIFTH}
    Batches(cloud.settings).cancel("metrics-1")
    prune(cloud.settings, 1)
    assert cloud.versions == {FOURTH, FIFTH}


def test_a_version_that_an_execution_was_given_stays(cloud: Cloud) -> None:
    name = cloud.start({"version": FIRST})
    assert reasons(prune(cloud.settings, 1, dry_run=True))["a"] == f"execution {name} is ACTIVE"
    cloud.over.set()
    while Executions(cloud.settings).active():
        pass
    assert reasons(prune(cloud.settings, 1))["a"] is None


@pytest.mark.parametrize("argument", [None, {}])
def test_between_two_batches_the_version_of_the_first_is_in_use(
    cloud: Cloud, argument: dict[str, str] | None
) -> None:
    name = cloud.start(argument)
    with pytest.raises(
        RunInProgress, match=f"execution {name} of yieldspark-pipeline is running since 20.*prune"
    ):
        prune(cloud.settings, 1)
    assert cloud.versions == set(ALL)
    cloud.submit(f"metrics-{name}", SECOND)
    Batches(cloud.settings).cancel(f"metrics-{name}")
    assert reasons(prune(cloud.settings, 1))["b"] == f"execution {name} is ACTIVE"
    assert cloud.versions == {SECOND, FOURTH, FIFTH}


def test_executions_are_read_page_by_page(cloud: Cloud) -> None:
    names = {cloud.start({"version": FIRST}) for _ in range(101)}
    active = Executions(cloud.settings).active()
    assert {entry["name"].rpartition("/")[2] for entry in active} == names


def test_unknown_use_stops_the_prune(cloud: Cloud, tmp_path: Path) -> None:
    with serving([cloud.storage]) as url, pytest.raises(CloudRefused):
        prune(cloud.settings.model_copy(update={"google_api_endpoint": url}), 1)
    assert cloud.versions == set(ALL)


def test_an_unfinished_release_stays_a_day_and_is_no_release_to_count(cloud: Cloud) -> None:
    for version in (FIFTH, "f" * 40):
        cloud.storage.store.write(
            BUCKET, object_name(version, "x.zip"), b"1", {"contentType": "x"}, Conditions(), {}
        )
    cloud.storage.store.delete(BUCKET, object_name(FOURTH, MANIFEST), Conditions())
    assert reasons(prune(cloud.settings, 2, dry_run=True)) == {
        "f": "without a manifest for less than 24 hours",
        "e": "the latest",
        "d": "without a manifest for less than 24 hours",
        "c": ROLLBACK,
        "b": None,
        "a": None,
    }
    prune(cloud.settings, 2, now=datetime.now(UTC) + timedelta(hours=25))
    assert cloud.versions == {FIFTH, THIRD}


@pytest.mark.parametrize(
    ("latest", "error", "message"),
    [
        (
            None,
            ConfigurationError,
            r"latest\.json does not exist, so it is unknown which of 5 versions",
        ),
        (b"{", ReleaseConflict, r"latest\.json is damaged"),
        (
            json.dumps({"version": "f" * 40}).encode(),
            ReleaseConflict,
            "names f{40}, which is incomplete in acme-code; release again",
        ),
    ],
)
def test_without_a_latest_nothing_is_deleted(
    cloud: Cloud, latest: bytes | None, error: type[Exception], message: str
) -> None:
    if latest is None:
        cloud.storage.store.delete(BUCKET, LATEST, Conditions())
    else:
        cloud.storage.store.write(BUCKET, LATEST, latest, {"contentType": "x"}, Conditions(), {})
    with pytest.raises(error, match=message):
        prune(cloud.settings, 1)
    assert cloud.versions == set(ALL)


def test_an_empty_bucket_has_nothing_to_prune(tmp_path: Path) -> None:
    services = [
        FakeStorage(tmp_path, [BUCKET]),
        FakeDataproc(),
        FakeExecutions(lambda name, argument: None),
    ]
    with serving(services) as url:
        assert prune(cloud_settings(url), 1).candidates == ()


def test_a_version_that_becomes_the_latest_meanwhile_is_not_deleted(cloud: Cloud) -> None:
    moved: list[str] = []

    def roll_back(number: int, request: Request) -> None:
        if request.method == "DELETE" and not moved:
            moved.append(FIRST)
            rollback(cloud.settings, FIRST)

    cloud.storage.fault = roll_back
    with pytest.raises(ReleaseConflict, match=r"names a{40} now, which was about to be deleted"):
        prune(cloud.settings, 1)
    assert cloud.versions == {FIRST, FOURTH, FIFTH}
    assert latest_version(cloud.storage) == FIRST


def test_an_interrupted_prune_leaves_no_whole_version_and_the_next_one_goes_on(
    cloud: Cloud,
) -> None:
    def refuse_the_second(number: int, request: Request) -> Fault | None:
        deletes = [requests for requests in cloud.storage.requests if requests.method == "DELETE"]
        return Fault(status=403) if request.method == "DELETE" and deletes else None

    cloud.storage.fault = refuse_the_second
    with pytest.raises(CloudRefused, match=f"gs://{BUCKET}/versions/{THIRD}/"):
        prune(cloud.settings, 1)
    cloud.storage.fault = None
    assert object_name(THIRD, MANIFEST) not in objects(cloud.storage)
    with pytest.raises(ConfigurationError, match="is no released version"):
        rollback(cloud.settings, THIRD)
    prune(cloud.settings, 1, now=datetime.now(UTC) + timedelta(hours=25))
    assert cloud.versions == {FOURTH, FIFTH}


def test_the_command(cloud: Cloud, tmp_path: Path) -> None:
    run = WorkflowsHere(tmp_path, cloud_variables(str(cloud.settings.google_api_endpoint)))
    for wrong in ([], ["--keep", "0"], ["--keep", "two"]):
        refused = run("prune", *wrong)
        assert (refused.returncode, "--keep" in refused.stderr) == (2, True), refused.stderr
    output = run("prune", "--keep", "1", "--dry-run")
    rows = [line.split(maxsplit=4)[-1].strip() for line in output.stdout.splitlines()]
    assert (output.returncode, rows[1:]) == (
        0,
        ["the latest", ROLLBACK, *["would be deleted"] * 3],
    )
    assert cloud.versions == set(ALL)
    cloud.start({})
    assert "is running since" in run.json("prune", "--keep", "1", code=1)["error"]
    cloud.over.set()
    while Executions(cloud.settings).active():
        pass
    result = run.json("prune", "--keep", "1")
    assert (result["dry_run"], [entry["deleted"] for entry in result["releases"]]) == (
        False,
        [False, False, True, True, True],
    )
    assert "CODE_BUCKET" in run.json("prune", "--keep", "1", code=2, CODE_BUCKET="")["error"]
