"""Where a release's files are: `gs://<code bucket>/versions/<version>/..`, and `latest.json` beside
the versions. Names only, no I/O.
"""

from __future__ import annotations

from dataclasses import dataclass

CODE = "yieldspark.zip"
BATCHES = "batches.json"
MANIFEST = "manifest.json"
LATEST = "latest.json"


def entry_name(job: str) -> str:
    """The file that spark-submit starts: it imports the job out of the zip."""
    return f"{job}.py"


def jar_name(jar: str) -> str:
    return f"jars/{jar}"


def cloud_run_job(job: str) -> str:
    """The name of its Cloud Run job."""
    return f"yieldspark-{job.replace('_', '-')}"


def object_name(version: str, name: str) -> str:
    """The object in the code bucket."""
    return f"versions/{version}/{name}"


@dataclass(frozen=True)
class Release:
    """A released version: its bucket (a bare name) and the file names of its jars."""

    bucket: str
    version: str
    jars: tuple[str, ...]

    def uri(self, name: str) -> str:
        """gs://.. of one of its files, named as in its manifest."""
        return f"gs://{self.bucket}/{object_name(self.version, name)}"
