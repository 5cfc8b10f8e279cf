"""Tests released versions in a bucket: their list, a rollback, and damaged files."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from common.errors import ConfigurationError, ReleaseConflict
from config_spark import Settings
from emulator.services.fake_storage import FakeStorage
from emulator.services.object_store import Conditions
from tests.support.releases import (
    BUCKET,
    FIRST,
    JAR,
    PLATFORM,
    SECOND,
    THIRD,
    latest_version,
    small_release,
)
from tests.workflows.test_release import fake, overwrite, publish, settings
from workflows.releases.release import Rollback, rollback
from workflows.releases.released_versions import find_release, read_batches, versions
from workflows.spec.release_paths import BATCHES, LATEST, MANIFEST, Release, object_name

__all__ = ["fake", "settings"]


def test_versions_are_listed_newest_first_with_their_faults(
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
        **PLATFORM,
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
    readers: dict[str, Callable[[], object]] = {
        MANIFEST: lambda: find_release(settings, FIRST),
        BATCHES: lambda: read_batches(settings, actual),
    }
    if content != b'{"files": {}}':
        with pytest.raises(ReleaseConflict, match="is damaged: it is no JSON object"):
            readers[name]()


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
