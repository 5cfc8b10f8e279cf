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
from collections.abc import Callable, Iterator
from multiprocessing.context import ForkServerContext
from pathlib import Path

import httpx
import pytest
from google.cloud.storage.retry import DEFAULT_RETRY  # type: ignore[import-untyped]

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
from workflows.releases.released_versions import find_release, read_batches, versions
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
    """Write as somebody else."""
    fake.store.write(
        BUCKET, object_name(version, name), content, {"contentType": "text/plain"}, Conditions(), {}
    )


def test_a_release_is_its_files_and_one_document_that_names_it(
    fake: FakeStorage, settings: Settings
) -> None:
    """No second copy of anything: what is copied file by file to a place of the newest is of two
    versions for a moment, or for ever.
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
    assert [_written(request) for request in requests[-3:]] == [
        object_name(FIRST, MANIFEST),
        None,
        LATEST,
    ]
    assert requests[-2].query["prefix"] == object_name(FIRST, "")
    assert len([request for request in requests if _written(request) == LATEST]) == 1


def test_every_write_has_a_generation_to_match(fake: FakeStorage, settings: Settings) -> None:
    """Without one a write replaces what it should have found, and nobody learns of it."""
    publish(settings, small_release(FIRST))
    publish(settings, small_release(SECOND))
    rollback(settings, FIRST)
    written = [
        (_written(request), request.query.get("ifGenerationMatch"))
        for request in fake.requests
        if request.method == "POST"
    ]
    generations = [generation for name, generation in written if name == LATEST]
    assert generations[0] == "0"
    assert len(generations) == len(set(generations)) == 3
    assert {generation for name, generation in written if name != LATEST} == {"0"}


def _written(request: Request) -> str | None:
    """The name of the object that an upload begins with."""
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
    """As --no-clobber would not say: it leaves the old file there, and the release looks good."""
    publish(settings, small_release(FIRST))
    before = objects(fake)
    other = small_release(FIRST)
    changed = ReleaseContent(
        other.release, other.commit, {**other.files, "yieldspark.zip": b"other code"}
    )
    with pytest.raises(
        ReleaseConflict,
        match=(
            r"yieldspark\.zip has other bytes: its md5 is \S+==, and this release's is \S+==; .*"
            r" make a commit"
        ),
    ):
        publish(settings, changed)
    assert objects(fake) == before


def test_a_conflict_of_batches_names_what_differs(fake: FakeStorage, settings: Settings) -> None:
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
    """The listing did not have it, the write is refused: whose bytes are there decides."""

    def someone_writes(number: int, request: Request) -> None:
        if _written(request) == object_name(FIRST, "forecast_pools.py"):
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
    """Of every request the first try is done and its answer lost: the next one finds what the first
    has written.
    """
    seen: set[tuple[object, ...]] = set()

    def first_time(number: int, request: Request) -> Fault | None:
        what = (
            request.method,
            request.path,
            request.body,
            request.headers.get("content-range"),
            request.query.get("uploadType"),
        )
        if what in seen:
            return None
        seen.add(what)
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
    """Processes that begin with the product imported: each a real one, and there at once."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.support.releases"])
    return context


def _kill_after(
    fake: FakeStorage, last: int, forks: ForkServerContext, content: ReleaseContent
) -> bool:
    """Release in a process of its own that is killed when request number `last` is done; returns
    whether it got so far.
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
    named = []
    for last in range(1, 100):
        folder = shutil.copytree(tmp_path / "template", tmp_path / str(last))
        fake = FakeStorage(folder)
        if not _kill_after(fake, last, forks, small_release(SECOND)):
            break
        named.append(latest_version(fake))
        with serving([fake]) as url:
            publish(cloud_settings(url), small_release(SECOND))
            assert [entry.faults for entry in versions(cloud_settings(url))] == [[], []]
        assert latest_version(fake) == SECOND
    # latest.json and a listing are read; 5 small files and the manifest are written, a jar begun
    # and sent; a listing; latest.json
    assert named == [FIRST] * 11 + [SECOND]


def test_reports_a_concurrent_release_that_was_faster(
    fake: FakeStorage, settings: Settings
) -> None:
    publish(settings, small_release(FIRST))
    faster: list[str] = []

    def other_release(number: int, request: Request) -> None:
        if _written(request) == object_name(SECOND, MANIFEST) and not faster:
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
        if _written(request) == object_name(FIRST, "forecast_pools.py") and not requests:
            requests.append(request)
            other.append(publish(settings, small_release(FIRST)))

    fake.fault = the_same
    assert publish(settings, small_release(FIRST)).version == other[0].version == FIRST
    assert latest_version(fake) == FIRST


def test_versions_are_listed_newest_first_with_what_is_wrong(
    fake: FakeStorage, settings: Settings
) -> None:
    assert versions(settings) == []
    for version in (FIRST, SECOND, THIRD):
        publish(settings, small_release(version))
    overwrite(fake, FIRST, "yieldspark.zip", b"other code")
    fake.store.delete(BUCKET, object_name(SECOND, f"jars/{JAR}"), Conditions())
    overwrite(fake, "d" * 40, "yieldspark.zip", b"code")
    actual = versions(settings)
    assert {entry.version: entry.latest for entry in actual} == {
        "d" * 40: False,
        FIRST: False,
        SECOND: False,
        THIRD: True,
    }
    faults = {entry.version: "; ".join(entry.faults) for entry in actual}
    assert faults["d" * 40] == "no manifest: its release was interrupted"
    assert "yieldspark.zip has 10 bytes of md5" in faults[FIRST]
    assert faults[SECOND] == f"jars/{JAR} is missing"
    assert faults[THIRD] == ""
    assert [entry.version for entry in versions(settings, 2)] == [
        entry.version for entry in actual[:2]
    ]
    assert [entry.released for entry in actual] == sorted(
        (entry.released for entry in actual), reverse=True
    )


def test_a_rollback_names_an_earlier_version_if_it_is_whole(
    fake: FakeStorage, settings: Settings
) -> None:
    for version in (FIRST, SECOND, THIRD):
        publish(settings, small_release(version))
    assert rollback(settings, FIRST, dry_run=True) == Rollback(FIRST, previous=THIRD, moved=False)
    assert latest_version(fake) == THIRD
    assert rollback(settings, FIRST) == Rollback(FIRST, previous=THIRD, moved=True)
    assert latest_version(fake) == FIRST
    overwrite(fake, SECOND, "yieldspark.zip", b"other code")
    with pytest.raises(
        ReleaseConflict, match=rf"versions/{SECOND} is incomplete: yieldspark\.zip has 10 bytes"
    ):
        rollback(settings, SECOND)
    assert latest_version(fake) == FIRST


def test_an_unknown_version_lists_the_newest_versions(settings: Settings) -> None:
    with pytest.raises(
        ConfigurationError, match="nothing is released in gs://acme-code; release with"
    ):
        find_release(settings)
    publish(settings, small_release(FIRST))
    publish(settings, small_release(SECOND))
    for work in (lambda: find_release(settings, "1234567"), lambda: rollback(settings, "1234567")):
        with pytest.raises(
            ConfigurationError,
            match=(
                rf"1234567 is no released version of gs://acme-code; the newest are: {SECOND},"
                rf" {FIRST}\."
            ),
        ):
            work()


def test_a_released_version_is_found_with_its_batches(settings: Settings) -> None:
    publish(settings, small_release(FIRST, metrics={"ttl": "7200s"}))
    publish(settings, small_release(SECOND))
    assert find_release(settings) == Release(BUCKET, SECOND, (JAR,))
    actual = find_release(settings, FIRST)
    assert actual == Release(BUCKET, FIRST, (JAR,))
    assert read_batches(settings, actual) == {
        "version": FIRST,
        "batches": {"metrics": {"ttl": "7200s"}},
    }


@pytest.mark.parametrize(
    ("name", "content"),
    [(MANIFEST, b"{}"), (MANIFEST, b'{"files": {}}'), (BATCHES, b"{}"), (BATCHES, b"\xff")],
)
def test_reports_a_damaged_file(
    fake: FakeStorage, settings: Settings, name: str, content: bytes
) -> None:
    publish(settings, small_release(FIRST))
    overwrite(fake, FIRST, name, content)
    with pytest.raises(
        ReleaseConflict,
        match=(
            r"is incomplete: batches\.json has"
            if name == BATCHES
            else "names a{40} with another manifest"
        ),
    ):
        read_batches(settings, find_release(settings))
    actual = Release(BUCKET, FIRST, (JAR,))
    read: dict[str, Callable[[], object]] = {
        MANIFEST: lambda: find_release(settings, FIRST),
        BATCHES: lambda: read_batches(settings, actual),
    }
    if content != b'{"files": {}}':
        with pytest.raises(ReleaseConflict, match="is damaged: it is no JSON object"):
            read[name]()


def test_reports_a_damaged_latest_and_the_next_release_repairs_it(
    fake: FakeStorage, settings: Settings
) -> None:
    publish(settings, small_release(FIRST))
    fake.store.write(BUCKET, LATEST, b"{", {"contentType": "application/json"}, Conditions(), {})
    for work in (lambda: find_release(settings), lambda: versions(settings)):
        with pytest.raises(
            ReleaseConflict,
            match=r"latest\.json is damaged: it is no JSON object with version; release again",
        ):
            work()
    assert publish(settings, small_release(FIRST)).previous is None
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
