"""Tests the fake of Cloud Storage by the official client, plain HTTP and gcloud.

The first part, by the client, also passes with fake-gcs-server if Go can build it. The rest tests
what only this fake has: faults, a folder that outlives it, Google's messages, conditions of a
deletion.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path

import httpx
import pytest
from google.api_core import exceptions
from google.api_core.client_options import ClientOptions
from google.auth.credentials import AnonymousCredentials
from google.cloud.storage import Blob, Bucket, Client

from emulator.services.fake_storage import (
    CUT_AFTER,
    CUT_BEFORE,
    TOO_MANY,
    UNAVAILABLE,
    FakeStorage,
    Fault,
)
from emulator.services.http_server import serving
from tests.support.fake_gcs_server import fake_gcs_server
from tests.support.processes import PROJECT


@contextmanager
def our_fake(folder: Path) -> Iterator[str]:
    with serving([FakeStorage(folder)]) as url:
        yield url


@pytest.fixture(params=["ours", pytest.param("fake-gcs-server", marks=pytest.mark.long)])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    with (
        fake_gcs_server(tmp_path / "data")
        if request.param == "fake-gcs-server"
        else our_fake(tmp_path / "data")
    ) as url:
        yield url


@pytest.fixture
def bucket(address: str) -> Bucket:
    return client_at(address).create_bucket("code")


def client_at(address: str) -> Client:
    return Client(
        project="test",
        credentials=AnonymousCredentials(),  # type: ignore[no-untyped-call]
        client_options=ClientOptions(api_endpoint=address),
    )


def write(bucket: Bucket, name: str, content: bytes, **conditions: int) -> Blob:
    blob = bucket.blob(name)
    blob.upload_from_string(content, "application/json", **conditions)
    return blob


def test_what_is_uploaded_is_read_back(bucket: Bucket) -> None:
    name = "versions/1/a b+ü.json"
    blob = write(bucket, name, b'{"a": 1}')
    actual = bucket.get_blob(name)
    assert actual is not None
    assert (actual.size, actual.content_type, actual.metageneration) == (8, "application/json", 1)
    assert (actual.md5_hash, actual.crc32c, actual.generation) == (
        blob.md5_hash,
        blob.crc32c,
        blob.generation,
    )
    assert actual.download_as_bytes() == b'{"a": 1}'
    assert actual.download_as_bytes(start=2, end=4) == b'a": '[:3]
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


def test_an_object_goes_up_without_its_length(bucket: Bucket, address: str) -> None:
    """Uploads in chunks, as Go's client and therefore Terraform do."""
    answer = httpx.post(
        f"{address}/upload/storage/v1/b/code/o",
        params={"uploadType": "media", "name": "chunked"},
        content=iter([b"a" * 10_000, b"b"]),
        headers={"content-type": "text/plain"},
    )
    assert answer.request.headers["transfer-encoding"] == "chunked"
    assert bucket.blob("chunked").download_as_bytes() == b"a" * 10_000 + b"b"
    # the connection is ready for the next request
    assert httpx.get(f"{address}/storage/v1/b/code/o/chunked").json()["size"] == "10001"


def test_a_generation_is_written_once(bucket: Bucket) -> None:
    """Generation 0 means that the object must not exist; any other number is the generation that it
    must have.
    """
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
        bucket.blob("large", chunk_size=256 * 1024).upload_from_file(
            stream, size=None, if_generation_match=0
        )
    assert bucket.blob("large").download_as_bytes() == b"1"


def test_listing_by_prefix_delimiter_and_pages(bucket: Bucket) -> None:
    files_of_versions = product("abc", ("jars/1.jar", "manifest.json"))
    names = ["latest.json", *(f"versions/{version}/{name}" for version, name in files_of_versions)]
    for name in names:
        write(bucket, name, name.encode())
    assert [blob.name for blob in bucket.list_blobs()] == names
    assert [blob.name for blob in bucket.list_blobs(prefix="versions/b/")] == names[3:5]
    page_names = []
    for page in bucket.list_blobs(page_size=2).pages:
        page_names.append([blob.name for blob in page])
    assert page_names == [names[:2], names[2:4], names[4:6], names[6:]]
    versions = bucket.list_blobs(prefix="versions/", delimiter="/", page_size=2)
    assert list(versions) == []
    assert versions.prefixes == {"versions/a/", "versions/b/", "versions/c/"}


def test_reports_a_missing_bucket(address: str, bucket: Bucket) -> None:
    client = client_at(address)
    assert client.lookup_bucket("code") is not None
    assert client.lookup_bucket("none") is None
    assert [entry.name for entry in client.list_buckets()] == ["code"]
    with pytest.raises(exceptions.Conflict):
        client.create_bucket("code")
    with pytest.raises(exceptions.NotFound):
        list(client.bucket("none").list_blobs())
    with pytest.raises(exceptions.NotFound):
        write(client.bucket("none"), "a", b"1")


def test_one_of_many_concurrent_writers_wins(address: str, bucket: Bucket) -> None:
    outcomes: list[str] = []

    def write_once(number: int) -> None:
        try:
            write(
                client_at(address).bucket("code"),
                "latest.json",
                str(number).encode(),
                if_generation_match=0,
            )
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


@pytest.fixture
def fake(tmp_path: Path) -> FakeStorage:
    return FakeStorage(tmp_path / "data", ["code"])


@pytest.mark.parametrize(
    "fault",
    [UNAVAILABLE, TOO_MANY, CUT_BEFORE, CUT_AFTER],
    ids=["503", "429", "cut before", "cut after"],
)
def test_the_client_retries_after_a_fault(fake: FakeStorage, fault: Fault) -> None:
    fake.fault = lambda number, request: fault if number == 1 else None
    with serving([fake]) as url:
        write(client_at(url).bucket("code"), "a", b"1")
    assert [request.method for request in fake.requests if "/o" in request.path] == ["POST", "POST"]
    assert fake.store.objects_of("code")["a"].size == 1


def test_an_answer_that_is_lost_leaves_the_work_done(fake: FakeStorage) -> None:
    """The repeated upload meets its own object, so a writer with a condition must compare the
    bytes.
    """
    fake.fault = lambda number, request: CUT_AFTER if number == 1 else None
    with serving([fake]) as url, pytest.raises(exceptions.PreconditionFailed):
        write(client_at(url).bucket("code"), "a", b"1", if_generation_match=0)


def test_errors_have_googles_messages(fake: FakeStorage) -> None:
    with serving([fake]) as url, httpx.Client(base_url=url) as http:
        created = http.post(
            "/upload/storage/v1/b/code/o?uploadType=media&name=a/b&ifGenerationMatch=0",
            content=b"1",
        ).json()
        assert (created["size"], created["metageneration"], created["name"]) == ("1", "1", "a/b")
        again = http.post(
            "/upload/storage/v1/b/code/o?uploadType=media&name=a/b&ifGenerationMatch=0",
            content=b"1",
        )
        message = "At least one of the pre-conditions you specified did not hold."
        where = {
            "domain": "global",
            "reason": "conditionNotMet",
            "locationType": "header",
            "location": "If-Match",
        }
        assert (again.status_code, again.json()) == (
            412,
            {"error": {"code": 412, "message": message, "errors": [{"message": message, **where}]}},
        )
        same = http.get(
            "/storage/v1/b/code/o/a%2Fb", params={"ifGenerationNotMatch": created["generation"]}
        )
        assert (same.status_code, same.content) == (304, b"")
        assert (
            http.get("/storage/v1/b/code/o/a%2Fb?alt=media&ifMetagenerationMatch=2").status_code
            == 412
        )
        absent = http.get("/storage/v1/b/code/o/none")
        assert (absent.status_code, absent.json()["error"]["message"]) == (
            404,
            "No such object: code/none",
        )
        assert http.get("/storage/v1/b/code/o/none?alt=media").text == "No such object: code/none"
        assert http.head("/storage/v1/b/code").status_code == 200
        assert http.get("/storage/v1/b/code/o/a%2Fb?ifGenerationMatch=x").status_code == 400


def test_deleting_takes_a_condition_too(fake: FakeStorage) -> None:
    """fake-gcs-server 1.56 checks the condition of an upload only."""
    with serving([fake]) as url:
        blob = write(client_at(url).bucket("code"), "a", b"1")
        with pytest.raises(exceptions.PreconditionFailed):
            blob.delete(if_generation_match=blob.generation + 1)
        blob.delete(if_generation_match=blob.generation)
        with pytest.raises(exceptions.NotFound):
            blob.delete()
        write(blob.bucket, "a", b"2", if_generation_match=0)


def test_wrong_checksums_are_refused(fake: FakeStorage) -> None:
    with serving([fake]) as url, httpx.Client(base_url=url) as http:
        wrong = http.post(
            "/upload/storage/v1/b/code/o?uploadType=media&name=a",
            content=b"1",
            headers={"x-goog-hash": "crc32c=AAAAAA=="},
        )
        assert (wrong.status_code, "doesn't match" in wrong.json()["error"]["message"]) == (
            400,
            True,
        )
    assert fake.store.objects_of("code") == {}


def test_a_resumable_upload_goes_on_where_it_was(fake: FakeStorage) -> None:
    content = os.urandom(600_000)
    with serving([fake]) as url, httpx.Client(base_url=url) as http:
        begun = http.post(
            "/upload/storage/v1/b/code/o?uploadType=resumable&name=a",
            json={"contentType": "application/java-archive"},
        )
        session = begun.headers["location"]
        requests = http.put(session, headers={"content-range": "bytes */*"})
        assert (requests.status_code, requests.headers.get("range")) == (308, None)
        part = http.put(
            session, content=content[:262_144], headers={"content-range": "bytes 0-262143/600000"}
        )
        assert (part.status_code, part.headers["range"]) == (308, "bytes=0-262143")
        assert (
            http.put(
                session, content=b"x", headers={"content-range": "bytes 300000-300000/600000"}
            ).status_code
            == 503
        )
        assert http.get("/storage/v1/b/code/o/a").status_code == 404
        last = http.put(
            session,
            content=content[100_000:],
            headers={"content-range": "bytes 100000-599999/600000"},
        )
        assert (last.status_code, last.json()["size"], last.json()["contentType"]) == (
            200,
            "600000",
            "application/java-archive",
        )
        assert http.put(session, headers={"content-range": "bytes */*"}).json() == last.json()
        assert http.get("/storage/v1/b/code/o/a?alt=media").content == content
        assert http.put(session[:-1], headers={"content-range": "bytes */*"}).status_code == 404


def test_objects_outlive_the_process(fake: FakeStorage, tmp_path: Path) -> None:
    with serving([fake]) as url:
        before = write(client_at(url).bucket("code"), "versions/a", b"1")
    with serving([FakeStorage(tmp_path / "data", ["code"])]) as url:
        blob = client_at(url).bucket("code").get_blob("versions/a")
        assert (blob.generation, blob.download_as_bytes(), blob.content_type) == (
            before.generation,
            b"1",
            "application/json",
        )
        assert write(blob.bucket, "versions/a", b"2").generation > before.generation


OVERWRITE_FOR_EVER = """
import sys
from pathlib import Path
from emulator.services.object_store import Conditions, ObjectStore

store = ObjectStore(Path(sys.argv[1]))
for number in range(10_000_000):
    store.write(
        "code", "a", str(number).encode() * 5_000, {"contentType": "text/plain"}, Conditions(), {}
    )
    if number == 5:
        print("begun", flush=True)
"""


@pytest.mark.usefixtures("processes")
def test_a_killed_process_leaves_whole_objects(fake: FakeStorage, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    for _ in range(5):
        with subprocess.Popen(
            [sys.executable, "-c", OVERWRITE_FOR_EVER, str(folder)],
            cwd=PROJECT,
            stdout=subprocess.PIPE,
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"begun\n"
            time.sleep(0.01)
            process.send_signal(signal.SIGKILL)
        with serving([FakeStorage(folder)]) as url:
            content = client_at(url).bucket("code").blob("a").download_as_bytes()
        number = content[: len(content) // 5_000]
        assert content == number * 5_000


def gcloud(address: str, folder: Path, *arguments: str) -> bytes:
    variables: dict[str, str] = {
        "CLOUDSDK_API_ENDPOINT_OVERRIDES_STORAGE": f"{address}/storage/v1/",
        "CLOUDSDK_AUTH_DISABLE_CREDENTIALS": "true",
        "CLOUDSDK_CONFIG": str(folder / "gcloud"),
        "CLOUDSDK_CORE_PROJECT": "test",
        "CLOUDSDK_CORE_DISABLE_PROMPTS": "1",
    }
    return subprocess.run(
        ["gcloud", "storage", *arguments],
        env=os.environ | variables,
        capture_output=True,
        check=True,
    ).stdout


@pytest.mark.skipif(shutil.which("gcloud") is None, reason="gcloud is not installed here")
@pytest.mark.usefixtures("processes")
def test_gcloud_copies_lists_and_prints(fake: FakeStorage, tmp_path: Path) -> None:
    content = os.urandom(2_999) + b"\r"
    (tmp_path / "up").write_bytes(content)
    with serving([fake]) as url:
        gcloud(url, tmp_path, "cp", str(tmp_path / "up"), "gs://code/versions/1/up")
        assert gcloud(url, tmp_path, "ls", "gs://code/versions/1/") == b"gs://code/versions/1/up\n"
        assert gcloud(url, tmp_path, "cat", "gs://code/versions/1/up") == content
