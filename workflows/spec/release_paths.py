"""Names of a release's files: `gs://<code bucket>/versions/<version>/..` and `latest.json`.

Reads and writes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

CODE = "yieldspark.zip"
OPERATOR = "operator"
OPERATOR_CODE = "operator.zip"
"""The operator's code. It needs `local_runtime/`, which the jobs' archive must not contain."""
BATCHES = "batches.json"
MANIFEST = "manifest.json"
LATEST = "latest.json"


def entry_name(job: str) -> str:
    """Return the name of the file that spark-submit starts; it imports the job from the zip."""
    return f"{job}.py"


def jar_name(jar: str) -> str:
    """Return the name of a jar in the release."""
    return f"jars/{jar}"


def cloud_run_job(job: str) -> str:
    """Return the name of the Cloud Run job of a job."""
    return f"yieldspark-{job.replace('_', '-')}"


OPERATOR_JOB = cloud_run_job(OPERATOR)
COSTS_JOB = cloud_run_job("costs")
INGEST_JOB = cloud_run_job("ingest")
VALIDATE = "validate"
"""Name of the validation's command, and of its `job` in a result of the workflow."""
VALIDATE_JOB = cloud_run_job(VALIDATE)

CONTAINER_ARGUMENTS = {
    OPERATOR_JOB: (OPERATOR, "--", "status"),
    COSTS_JOB: (OPERATOR, "--", "workflows", "cost", "--day", "yesterday"),
    INGEST_JOB: (OPERATOR, "--", "ingest"),
    VALIDATE_JOB: (OPERATOR, "--", VALIDATE),
}
"""The operator's Cloud Run jobs with the default arguments of their containers. Those of the ingest
job are followed by options that choose its pools, such as --min-tvl 10000000.
"""


def object_name(version: str, name: str) -> str:
    """Return the name of an object in the code bucket."""
    return f"versions/{version}/{name}"


@dataclass(frozen=True)
class Release:
    """A released version: its bucket (a bare name) and the file names of its jars."""

    bucket: str
    version: str
    jars: tuple[str, ...]

    def uri(self, name: str) -> str:
        """Return the gs:// address of a file, by its name in the manifest."""
        return f"gs://{self.bucket}/{object_name(self.version, name)}"
