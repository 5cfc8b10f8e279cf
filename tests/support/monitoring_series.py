"""Cloud Monitoring for tests: the fake with the descriptors that Terraform makes, and the command
line that writes to it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from docs.generate.monitoring_page import DESCRIPTORS
from emulator.services.fake_monitoring import FakeMonitoring, read_descriptors
from tests.support.processes import CommandLineHere

PROJECT = "test-project"


def terraform_descriptors() -> dict[str, dict[str, Any]]:
    """Return the descriptors that Terraform makes."""
    return read_descriptors(DESCRIPTORS)


@contextmanager
def cloud_monitoring(run: CommandLineHere, **options: Any) -> Iterator[FakeMonitoring]:
    """Serve the fake and make the commands of `run` write to it, without a JVM."""
    fake = FakeMonitoring(terraform_descriptors(), **options)
    with fake.listening() as address:
        run.environment |= {
            "EXECUTOR": "inprocess",
            "MONITORING_EMITTER": "cloud_monitoring",
            "MONITORING_ENDPOINT": address,
            "PROJECT_ID": PROJECT,
        }
        yield fake


def value(fake: FakeMonitoring, name: str, *labels: str) -> float:
    """Return the newest value of a series of ours; labels in the order of their names."""
    points = fake.series(f"custom.googleapis.com/yieldspark/{name}")[labels]
    return points[-1][1]
