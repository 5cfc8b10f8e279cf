"""Where a release's files are: `gs://<code bucket>/versions/<version>/..`, and `latest.json` beside
the versions. Names only, no I/O.
"""

from __future__ import annotations

from dataclasses import dataclass

CODE = "yieldspark.zip"
OPERATOR = "operator"
OPERATOR_CODE = "operator.zip"
"""The operator's code. The jobs' archive must not contain `local_runtime/`, which it needs."""
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


OPERATOR_JOB = cloud_run_job(OPERATOR)
COSTS_JOB = cloud_run_job("costs")
INGEST_JOB = cloud_run_job("ingest")

CONTAINER_ARGUMENTS = {
    OPERATOR_JOB: (OPERATOR, "--", "status"),
    COSTS_JOB: (OPERATOR, "--", "workflows", "cost", "--day", "yesterday"),
    INGEST_JOB: (OPERATOR, "--", "ingest"),
}
"""The Cloud Run jobs of the operator's entry, and what each one's container is given where a start
overrides nothing. The ingest job's words are followed by those that choose its pools, such as
--min-tvl 10000000.
"""


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
