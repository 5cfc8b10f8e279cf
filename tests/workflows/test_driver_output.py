"""Tests the reader of a batch's output: several objects that grow while the batch runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from common.errors import CloudRefused
from config_spark import load_settings
from emulator.services.fake_storage import FakeStorage
from emulator.services.http_server import serving
from emulator.services.object_store import Conditions
from workflows.batches import driver_output
from workflows.batches.driver_output import DriverOutput

URI = "gs://staging/google-cloud-dataproc-metainfo/x/jobs/srvls-batch-y/driveroutput"

Writer = Callable[[int, bytes], object]


@pytest.fixture
def reader_and_writer(tmp_path: Path) -> Iterator[tuple[DriverOutput, Writer]]:
    """Yield the reader and a function that writes the content of object number N, next to another
    batch's output.
    """
    storage = FakeStorage(tmp_path, ["staging"])

    def write(number: int, content: bytes, uri: str = URI) -> None:
        name = f"{uri.removeprefix('gs://staging/')}.{number:09d}"
        storage.store.write(
            "staging", name, content, {"contentType": "text/plain"}, Conditions(), {}
        )

    write(0, b"another batch\n", URI.replace("batch-y", "batch-z"))
    with serving([storage]) as url:
        settings = load_settings(_env_file=None, project_id="acme", google_api_endpoint=url)
        yield DriverOutput(settings, URI), write


def test_reads_on_from_the_last_offset(reader_and_writer: tuple[DriverOutput, Writer]) -> None:
    output, write = reader_and_writer
    assert output.read_new() == ""
    write(0, "one\nzwö".encode()[:-1])
    assert output.read_new() == "one\nzw", "half a character waits for its other half"
    write(0, "one\nzwölf\n".encode())
    write(1, b"three\n")
    assert output.read_new() == "ölf\nthree\n"
    assert output.read_new() == ""


def test_the_last_lines_may_span_objects(
    reader_and_writer: tuple[DriverOutput, Writer], monkeypatch: pytest.MonkeyPatch
) -> None:
    output, write = reader_and_writer
    assert output.last_lines() == []
    for number in range(3):
        write(
            number, b"".join(b"line %d\n" % line for line in range(number * 10, number * 10 + 10))
        )
    assert output.last_lines() == [f"line {line}" for line in range(10, 30)]
    monkeypatch.setattr(driver_output, "TAIL_BYTES", 16)
    assert output.last_lines() == ["line 28", "line 29"]


def test_a_bucket_that_is_not_there_is_refused(
    reader_and_writer: tuple[DriverOutput, Writer],
) -> None:
    settings = load_settings(
        _env_file=None,
        project_id="acme",
        google_api_endpoint=reader_and_writer[0]._client._connection.API_BASE_URL,
    )
    with pytest.raises(CloudRefused, match="gs://nowhere/x"):
        DriverOutput(settings, "gs://nowhere/x").last_lines()
