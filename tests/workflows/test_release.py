"""Tests releases in a bucket under kills, lost responses and concurrent releases: latest.json
always names a complete version that never changes. The bucket is the storage fake over HTTP.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from multiprocessing.context import ForkServerContext
from pathlib import Path

import httpx
import pytest
from google.cloud.storage.retry import DEFAULT_RETRY

from common.errors import CloudRefused, CloudUnavailable, ConfigurationError, ReleaseConflict
from config_spark import Settings
from emulator.services.fake_storage import CUT_AFTER, UNAVAILABLE, FakeStorage, Fault
from emulator.services.http_server import serving
from emulator.services.http_service import Request
from emulator.services.object_store import Conditions
from tests.support.fake_gcs_server import fake_gcs_server
from tests.support.releases import (
    BUCKET,
    FIRST,
    JAR,
    SECOND,
    THIRD,
    cloud_settings,
    latest_version,
    objects,
    publish_at,
    small_release,
)
from workflows.releases import code_bucket
from workflows.releases.code_bucket import CodeBucket
from workflows.releases.release import PublishedRelease, Rollback, publish_content, rollback
from workflows.releases.release_content import ReleaseContent
from workflows.releases.released_versions import find_release, versions
from workflows.spec.release_paths import BATCHES, LATEST, MANIFEST, Release, object_name


@pytest.fixture
def fake(tmp_path: Path) -> FakeStorage:
    return FakeStorage(tmp_path / "storage", [BUCKET])


@pytest.fixture
def settings(fake: FakeStorage) -> Iterator[Settings]:
    with serving([fake]) as url:
        yield cloud_settings(url)


@pytest.fixture
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the client's retries."""
    monkeypatch.setattr(
        code_bucket, "DEFAULT_RETRY", DEFAULT_RETRY.with_delay(initial=0.001, maximum=0.002)
    )


def publish(settings: Settings, content: ReleaseContent) -> PublishedRelease:
    return publish_content(CodeBucket(settings), content)


def overwrite(fake: FakeStorage, version: str, name: str, content: bytes) -> None:
    """Write an object as another person."""
    fake.store.write(
        BUCKET, object_name(version, name), content, {"contentType": "text/plain"}, Conditions(), {}
    )


def test_a_release_is_its_files_and_one_document_that_names_it(
    fake: FakeStorage, settings: Settings
) -> None:
    """There is no second copy of a file: a copy that is made file by file would have files of two
    versions meanwhile.
    """
    result = publish(settings, small_release(FIRST))
    assert (result.version, result.files, result.previous) == (FIRST, 7, None)
    names = [
        "yieldspark.zip",
        "operator.zip",
        "calculate_metrics.py",
        "forecast_pools.py",
        f"jars/{JAR}",
        BATCHES,
        MANIFEST,
    ]
    assert set(objects(fake)) == {LATEST, *(object_name(FIRST, name) for name in names)}
    assert latest_version(fake) == FIRST
    publish(settings, small_release(SECOND))
    assert {name for name in objects(fake) if not name.startswith("versions/")} == {LATEST}
    assert latest_version(fake) == SECOND


def test_the_manifest_is_the_last_of_the_version_and_latest_comes_after_a_listing(
    fake: FakeStorage, settings: Settings
) -> None:
    publish(settings, small_release(FIRST))
    requests = [request for request in fake.requests if "/o" in request.path]
    assert [_uploaded_name(request) for request in requests[-3:]] == [
        object_name(FIRST, MANIFEST),
        None,
        LATEST,
    ]
    assert requests[-2].query["prefix"] == object_name(FIRST, "")
    assert len([request for request in requests if _uploaded_name(request) == LATEST]) == 1


def test_every_write_has_a_generation_to_match(fake: FakeStorage, settings: Settings) -> None:
    """A write without a generation would silently replace an object of another release."""
    publish(settings, small_release(FIRST))
    publish(settings, small_release(SECOND))
    rollback(settings, FIRST)
    writes = [
        (_uploaded_name(request), request.query.get("ifGenerationMatch"))
        for request in fake.requests
        if request.method == "POST"
    ]
    generations = [generation for name, generation in writes if name == LATEST]
    assert generations[0] == "0"
    assert len(generations) == len(set(generations)) == 3
    assert {generation for name, generation in writes if name != LATEST} == {"0"}


def _uploaded_name(request: Request) -> str | None:
    """Return the name of the object whose upload begins."""
    if request.method != "POST":
        return None
    document = (
        request.body
        if request.query["uploadType"] == "resumable"
        else request.body.split(b"\r\n\r\n")[1].split(b"\r\n")[0]
    )
    return str(json.loads(document)["name"])


def test_the_same_release_again_changes_nothing(fake: FakeStorage, settings: Settings) -> None:
    publish(settings, small_release(FIRST))
    before = dict(fake.store.objects_of(BUCKET))
    result = publish(settings, small_release(FIRST))
    assert (result.uploaded, result.previous) == ([], FIRST)
    assert fake.store.objects_of(BUCKET) == before


def test_other_bytes_of_a_released_file_are_a_conflict(
    fake: FakeStorage, settings: Settings
) -> None:
    """--no-clobber would not report it: it leaves the old file, and the release looks complete."""
    publish(settings, small_release(FIRST))
    before = objects(fake)
    other = small_release(FIRST)
    other_content = ReleaseContent(
        other.release, other.commit, {**other.files, "yieldspark.zip": b"other code"}
    )
    with pytest.raises(
        ReleaseConflict,
        match=(
            r"yieldspark\.zip has other bytes: its md5 is \S+==, and this release's is \S+==; .*"
            r" make a commit"
        ),
    ):
        publish(settings, other_content)
    assert objects(fake) == before


def test_a_conflict_of_batches_names_the_differences(fake: FakeStorage, settings: Settings) -> None:
    publish(
        settings, small_release(FIRST, metrics={"ttl": "7200s", "labels": {"app": "yieldspark"}})
    )
    with pytest.raises(
        ReleaseConflict,
        match=(
            r"other settings: batches\.metrics\.ttl: 7200s there, 3600s here\. Set them as they"
            r" were"
        ),
    ) as raised:
        publish(
            settings,
            small_release(FIRST, metrics={"ttl": "3600s", "labels": {"app": "yieldspark"}}),
        )
    assert "labels" not in str(raised.value)


def test_a_concurrently_written_file_is_compared(fake: FakeStorage, settings: Settings) -> None:
    """The listing lacked the file and the write is refused, so the bytes in the bucket decide."""

    def someone_writes(number: int, request: Request) -> None:
        if _uploaded_name(request) == object_name(FIRST, "forecast_pools.py"):
            overwrite(fake, FIRST, "forecast_pools.py", b"other code")

    fake.fault = someone_writes
    with pytest.raises(ReleaseConflict, match=r"forecast_pools\.py has other bytes"):
        publish(settings, small_release(FIRST))
    assert LATEST not in objects(fake)


def test_an_unexpected_file_stops_the_release(fake: FakeStorage, settings: Settings) -> None:
    overwrite(fake, FIRST, "jars/other.jar", b"1")
    with pytest.raises(
        ReleaseConflict, match=r"is incomplete: jars/other\.jar is not in the manifest"
    ):
        publish(settings, small_release(FIRST))
    assert LATEST not in objects(fake)


@pytest.mark.usefixtures("_impatient")
def test_lost_responses_change_nothing(fake: FakeStorage, settings: Settings) -> None:
    """The first try of every request is executed and its response lost; the next try meets the
    result of the first.
    """
    requests: set[tuple[object, ...]] = set()

    def first_time(number: int, request: Request) -> Fault | None:
        key = (
            request.method,
            request.path,
            request.body,
            request.headers.get("content-range"),
            request.query.get("uploadType"),
        )
        if key in requests:
            return None
        requests.add(key)
        return CUT_AFTER

    fake.fault = first_time
    publish(settings, small_release(FIRST))
    publish(settings, small_release(SECOND))
    fake.fault = None
    assert latest_version(fake) == SECOND
    assert [entry.faults for entry in versions(settings)] == [[], []]


@pytest.mark.usefixtures("_impatient")
def test_reports_an_unavailable_service(
    fake: FakeStorage, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(code_bucket, "RETRY_SECONDS", 0.05)
    fake.fault = lambda number, request: UNAVAILABLE
    with pytest.raises(
        CloudUnavailable, match=rf"gs://{BUCKET}/{LATEST}: Google Cloud does not answer"
    ):
        publish(settings, small_release(FIRST))


def test_reports_a_missing_bucket(settings: Settings) -> None:
    elsewhere = settings.model_copy(update={"code_bucket": "nowhere"})
    for work in (
        lambda: publish(elsewhere, small_release(FIRST)),
        lambda: find_release(elsewhere),
        lambda: versions(elsewhere),
    ):
        with pytest.raises(
            CloudRefused, match=r"gs://nowhere/.*The specified bucket does not exist"
        ):
            work()
    with pytest.raises(ConfigurationError, match="CODE_BUCKET not set"):
        versions(settings.model_copy(update={"code_bucket": None}))


@pytest.fixture(scope="module")
def forks(processes: None) -> ForkServerContext:
    """Real processes that have already imported the product, so they start at once."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.support.releases"])
    return context


def _kill_after(
    fake: FakeStorage, last: int, forks: ForkServerContext, content: ReleaseContent
) -> bool:
    """Release in a process that is killed after request number `last`.

    Returns whether it was killed.
    """
    started = threading.Event()

    def kill(number: int, request: Request) -> Fault | None:
        started.wait()
        if number != last:
            return None
        os.kill(process.pid or 0, signal.SIGKILL)
        return CUT_AFTER

    fake.fault = kill
    with serving([fake]) as url:
        process = forks.Process(target=publish_at, args=(url, content))
        process.start()
        started.set()
        process.join()
    fake.fault = None
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode != 0


def test_a_release_killed_at_any_request_leaves_a_whole_one_and_the_next_finishes(
    tmp_path: Path, forks: ForkServerContext
) -> None:
    """Killed after each request in turn, from the first to the last one of the sequence."""
    template = FakeStorage(tmp_path / "template", [BUCKET])
    with serving([template]) as url:
        publish(cloud_settings(url), small_release(FIRST))
    latest_versions = []
    for last in range(1, 100):
        folder = shutil.copytree(tmp_path / "template", tmp_path / str(last))
        fake = FakeStorage(folder)
        if not _kill_after(fake, last, forks, small_release(SECOND)):
            break
        latest_versions.append(latest_version(fake))
        with serving([fake]) as url:
            publish(cloud_settings(url), small_release(SECOND))
            assert [entry.faults for entry in versions(cloud_settings(url))] == [[], []]
        assert latest_version(fake) == SECOND
    # latest.json and a listing are read; 5 small files and the manifest are written, a jar is begun
    # and sent; a listing; latest.json
    assert latest_versions == [FIRST] * 11 + [SECOND]


def test_reports_a_concurrent_release_that_was_faster(
    fake: FakeStorage, settings: Settings
) -> None:
    publish(settings, small_release(FIRST))
    faster: list[str] = []

    def other_release(number: int, request: Request) -> None:
        if _uploaded_name(request) == object_name(SECOND, MANIFEST) and not faster:
            faster.append(THIRD)
            publish(settings, small_release(THIRD))

    fake.fault = other_release
    with pytest.raises(
        ReleaseConflict,
        match=(
            rf"another release was faster: gs://{BUCKET}/{LATEST} names {THIRD} now\. {SECOND} is"
            r" complete in the bucket"
        ),
    ):
        publish(settings, small_release(SECOND))
    assert latest_version(fake) == THIRD
    assert rollback(settings, SECOND) == Rollback(SECOND, previous=THIRD, moved=True)
    assert latest_version(fake) == SECOND


def test_concurrent_releases_of_one_commit_both_succeed(
    fake: FakeStorage, settings: Settings
) -> None:
    other: list[PublishedRelease] = []
    requests: list[Request] = []

    def the_same(number: int, request: Request) -> None:
        if _uploaded_name(request) == object_name(FIRST, "forecast_pools.py") and not requests:
            requests.append(request)
            other.append(publish(settings, small_release(FIRST)))

    fake.fault = the_same
    assert publish(settings, small_release(FIRST)).version == other[0].version == FIRST
    assert latest_version(fake) == FIRST


def test_reports_the_progress_of_a_long_upload(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(code_bucket, "SECONDS_BEFORE_PROGRESS", 0.0)
    output: list[str] = []
    publish_content(CodeBucket(settings), small_release(FIRST), output.append)
    assert f"{JAR}: 0.0 of 0.3 MB" in output
    assert output[-1] == f"7/7 {MANIFEST}"


@pytest.mark.long
def test_another_emulator_of_cloud_storage_agrees(tmp_path: Path) -> None:
    with fake_gcs_server(tmp_path) as url:
        settings = cloud_settings(url)
        httpx.post(f"{url}/storage/v1/b", json={"name": BUCKET}).raise_for_status()
        for version in (FIRST, SECOND, SECOND):
            publish(settings, small_release(version))
        with pytest.raises(ReleaseConflict, match="with other settings"):
            publish(settings, small_release(FIRST, metrics={"ttl": "7200s"}))
        assert [(entry.version, entry.latest, entry.faults) for entry in versions(settings)] == [
            (SECOND, True, []),
            (FIRST, False, []),
        ]
        assert rollback(settings, FIRST) == Rollback(FIRST, previous=SECOND, moved=True)
        assert find_release(settings) == Release(BUCKET, FIRST, (JAR,))
