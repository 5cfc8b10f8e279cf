"""The double of Cloud Storage, by the official client, by plain HTTP, and by gcloud; fake-gcs-server, where Go can build it, passes the client's tests too.

What only our double does (faults, a folder that outlives it) and where the two differ from each other has tests of its own.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.api_core import exceptions
from google.api_core.client_options import ClientOptions
from google.auth.credentials import AnonymousCredentials
from google.cloud.storage import Blob, Bucket, Client  # type: ignore[import-untyped]
from google.cloud.storage.retry import DEFAULT_RETRY  # type: ignore[import-untyped]

from workflows.local.http_service import serving
from workflows.local.storage_double import StorageDouble

SOON = DEFAULT_RETRY.with_delay(initial=0.01, maximum=0.02).with_timeout(20.0)


def client_at(address: str) -> Client:
    return Client(project="test", credentials=AnonymousCredentials(), client_options=ClientOptions(api_endpoint=address))  # type: ignore[no-untyped-call]


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    with serving([StorageDouble(tmp_path)]) as url:
        yield url


@pytest.fixture
def bucket(address: str) -> Bucket:
    return client_at(address).create_bucket("code")


def write(bucket: Bucket, name: str, content: bytes, **conditions: int) -> Blob:
    blob = bucket.blob(name)
    blob.upload_from_string(content, "application/json", **conditions)
    return blob


def test_what_is_uploaded_is_read_back(bucket: Bucket) -> None:
    name = "versions/1/a b+ü.json"
    blob = write(bucket, name, b'{"a": 1}')
    found = bucket.get_blob(name)
    assert found is not None
    assert (found.size, found.content_type, found.metageneration) == (8, "application/json", 1)
    assert (found.md5_hash, found.crc32c, found.generation) == (blob.md5_hash, blob.crc32c, blob.generation)
    assert found.download_as_bytes() == b'{"a": 1}'
    assert found.download_as_bytes(start=2, end=4) == b'a": '[:3]
    assert bucket.get_blob("versions/1/b") is None
    with pytest.raises(exceptions.NotFound):
        bucket.blob("versions/1/b").download_as_bytes()


def test_a_large_object_goes_up_in_parts(bucket: Bucket, tmp_path: Path) -> None:
    for size in (0, 1, 256 * 1024, 3 * 256 * 1024, 3 * 256 * 1024 + 5):
        path = tmp_path / "large"
        path.write_bytes(os.urandom(size))
        blob = bucket.blob("large", chunk_size=256 * 1024)
        with path.open("rb") as stream:
            blob.upload_from_file(stream, size=None)
        assert blob.size == size
        assert bucket.blob("large").download_as_bytes() == path.read_bytes()


def test_a_generation_is_written_once(bucket: Bucket) -> None:
    """0 is an object that must not exist; any other number is the generation that it must have."""
    first = write(bucket, "latest.json", b"1", if_generation_match=0)
    with pytest.raises(exceptions.PreconditionFailed):
        write(bucket, "latest.json", b"2", if_generation_match=0)
    second = write(bucket, "latest.json", b"3", if_generation_match=first.generation)
    assert second.generation > first.generation
    with pytest.raises(exceptions.PreconditionFailed):
        write(bucket, "latest.json", b"4", if_generation_match=first.generation)
    with pytest.raises(exceptions.PreconditionFailed):
        write(bucket, "other.json", b"4", if_generation_match=first.generation)
    assert bucket.blob("latest.json").download_as_bytes() == b"3"


def test_a_resumable_upload_keeps_its_condition(bucket: Bucket, tmp_path: Path) -> None:
    path = tmp_path / "large"
    path.write_bytes(b"x" * 300_000)
    write(bucket, "large", b"1")
    with path.open("rb") as stream, pytest.raises(exceptions.PreconditionFailed):
        bucket.blob("large", chunk_size=256 * 1024).upload_from_file(stream, size=None, if_generation_match=0)
    assert bucket.blob("large").download_as_bytes() == b"1"


def test_deleting_takes_a_condition_too(bucket: Bucket) -> None:
    blob = write(bucket, "a", b"1")
    with pytest.raises(exceptions.PreconditionFailed):
        blob.delete(if_generation_match=blob.generation + 1)
    blob.delete(if_generation_match=blob.generation)
    with pytest.raises(exceptions.NotFound):
        bucket.blob("a").delete()
    write(bucket, "a", b"2", if_generation_match=0)


def test_listing_by_prefix_delimiter_and_pages(bucket: Bucket) -> None:
    names = ["latest.json", *(f"versions/{version}/{name}" for version in "abc" for name in ("jars/1.jar", "manifest.json"))]
    for name in names:
        write(bucket, name, name.encode())
    assert [blob.name for blob in bucket.list_blobs()] == names
    assert [blob.name for blob in bucket.list_blobs(prefix="versions/b/")] == names[3:5]
    pages = list(bucket.list_blobs(page_size=2).pages)
    assert [[blob.name for blob in page] for page in pages] == [names[:2], names[2:4], names[4:6], names[6:]]
    versions = bucket.list_blobs(prefix="versions/", delimiter="/", page_size=2)
    assert list(versions) == []
    assert versions.prefixes == {"versions/a/", "versions/b/", "versions/c/"}


def test_a_bucket_that_does_not_exist_is_said(address: str, bucket: Bucket) -> None:
    client = client_at(address)
    assert client.lookup_bucket("code") is not None
    assert client.lookup_bucket("none") is None
    assert [found.name for found in client.list_buckets()] == ["code"]
    with pytest.raises(exceptions.Conflict):
        client.create_bucket("code")
    with pytest.raises(exceptions.NotFound):
        list(client.bucket("none").list_blobs())
    with pytest.raises(exceptions.NotFound):
        write(client.bucket("none"), "a", b"1")


def test_of_many_writers_at_once_one_wins(address: str, bucket: Bucket) -> None:
    outcomes: list[str] = []

    def write_once(number: int) -> None:
        try:
            write(client_at(address).bucket("code"), "latest.json", str(number).encode(), if_generation_match=0)
            outcomes.append(str(number))
        except exceptions.PreconditionFailed:
            outcomes.append("refused")

    threads = [threading.Thread(target=write_once, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    winners = [outcome for outcome in outcomes if outcome != "refused"]
    assert (len(outcomes), len(winners)) == (8, 1)
    assert bucket.blob("latest.json").download_as_bytes() == winners[0].encode()
