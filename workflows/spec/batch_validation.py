"""Faults of a batch that the service accepts, but that fail, cost or reveal too much afterwards.

Input: a `Batch` as the REST API's JSON, or an id. Output: nothing, or one ConfigurationError that
names every fault. The service itself refuses the rest: machines, labels, unknown fields.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from common.errors import ConfigurationError
from workflows.spec.platforms import SCALA_OF_RUNTIME

BATCH_ID = re.compile(r"[a-z0-9][a-z0-9-]{2,61}[a-z0-9]")
REQUEST_ID = re.compile(r"[a-zA-Z0-9_-]{1,40}")
ENDS_WITH_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")
CLOCK = re.compile(r"(^|-)(20\d{2}-?[01]\d-?[0-3]\d|1\d{9}|1\d{12})(?!\d)")
"""A date, or seconds or milliseconds since 1970."""

PINNED_IMAGE = re.compile(
    r"[^\s@]+/[^\s@]+@sha256:[0-9a-f]{64}"
    r"|[a-z0-9-]+(\.[a-z0-9-]+)+(/[a-z0-9]+([._-]+[a-z0-9]+)*){2,}:(?!latest$)\w[\w.-]{0,127}",
    re.ASCII,
)
"""By digest, or as Google documents it, HOST/PROJECT/IMAGE:TAG. A tag is as good as a digest only
where its repository forbids overwriting it; `latest` means one that moves.
"""
JAR_OF_SCALA = re.compile(r"_(2\.1[1-3])-[^/]*\.jar$")
SECRET_NAME = re.compile(
    r"PASSWORD|PASSWD|SECRET|TOKEN|CREDENTIAL|PRIVATE_KEY|API_KEY", re.IGNORECASE
)
SECRET_VERSION = re.compile(r"projects/[^/]+/secrets/[^/]+/versions/[^/]+")
USER_IN_URI = re.compile(r"://[^/@\s]*:[^/@\s]+@")
PACKAGED = (".zip", ".whl", ".egg")

NEEDS_EGRESS = ("spark.jars.packages", "spark.jars.repositories", "spark.jars.ivy")


def check_batch(batch: Mapping[str, Any], *, secrets: Collection[str] = ()) -> None:
    """Args: batch is the REST API's JSON; secrets are values that must not stand in it anywhere,
    and will not stand in the message.

    Raises: ConfigurationError naming every fault.
    """
    faults = batch_faults(batch, secrets=secrets)
    if faults:
        raise ConfigurationError(
            f"this batch can't be submitted, {len(faults)} fault{'s' * (len(faults) > 1)}: "
            + "; ".join(faults)
        )


def check_batch_id(batch_id: str) -> None:
    """Raises: ConfigurationError for an id that the service refuses, or that comes from a clock."""
    found = []
    if not BATCH_ID.fullmatch(batch_id):
        found.append(
            f"batch id {batch_id!r} is not 4 to 63 of a-z, 0-9 and `-`, with a letter or digit at"
            " both ends"
        )
    if not ENDS_WITH_UUID.search(batch_id) and CLOCK.search(batch_id):
        found.append(
            f"batch id {batch_id!r} comes from a clock: a second try would be a second batch, and"
            " not find the first; make it from the execution's id,"
            " `workflows.spec.batch_request.batch_id`"
        )
    if found:
        raise ConfigurationError("; ".join(found))


def check_request_id(request_id: str) -> None:
    """Raises: ConfigurationError for a requestId that the service refuses."""
    if not REQUEST_ID.fullmatch(request_id):
        raise ConfigurationError(
            f"requestId {request_id!r} is not 1 to 40 of a-z, A-Z, 0-9, `_` and `-`: f-<uuid> is"
            " short enough"
        )


def batch_faults(batch: Mapping[str, Any], *, secrets: Collection[str] = ()) -> list[str]:
    """Every fault, a sentence each."""
    return [
        *_missing(batch),
        *_code_faults(batch),
        *_property_faults(_properties(batch)),
        *_secret_faults(batch, secrets),
    ]


def _execution(batch: Mapping[str, Any]) -> dict[str, Any]:
    execution: dict[str, Any] = batch.get("environmentConfig", {}).get("executionConfig", {})
    return execution


def _properties(batch: Mapping[str, Any]) -> dict[str, str]:
    properties: dict[str, str] = batch.get("runtimeConfig", {}).get("properties", {})
    return properties


def _missing(batch: Mapping[str, Any]) -> Iterator[str]:
    """What a batch of this product always has."""
    execution, runtime, properties = (
        _execution(batch),
        batch.get("runtimeConfig", {}),
        _properties(batch),
    )
    if not execution.get("serviceAccount"):
        yield (
            "no serviceAccount: the project's default one may do far more than a batch needs; set"
            " BATCH_SERVICE_ACCOUNT"
        )
    if not execution.get("subnetworkUri"):
        yield (
            "no subnetworkUri: the database is reachable from one private subnetwork alone; set"
            " BATCH_SUBNETWORK"
        )
    if not execution.get("ttl"):
        yield (
            "no ttl: a batch that hangs would run, and bill, for hours or for ever; set"
            " BATCH_TTL_MINUTES"
        )
    if not execution.get("stagingBucket"):
        yield (
            "no stagingBucket: the service would make one that nobody looks after; set"
            " STAGING_BUCKET"
        )
    if (
        execution.get("authenticationConfig", {}).get("userWorkloadAuthenticationType")
        != "SERVICE_ACCOUNT"
    ):
        yield (
            "authenticationConfig.userWorkloadAuthenticationType is not SERVICE_ACCOUNT: the job"
            " would run as whoever submits it"
        )
    if not runtime.get("version"):
        yield (
            "no runtimeConfig.version: the service's default changes under the job;"
            " `workflows.spec.platforms` has the one it needs"
        )
    if not PINNED_IMAGE.fullmatch(runtime.get("containerImage", "")):
        yield (
            f"containerImage is {runtime.get('containerImage', '')!r}: it must be"
            " HOST/PATH@sha256:<64 digits>, or HOST/PROJECT/IMAGE:TAG with a tag that never moves"
            " (not latest); set CONTAINER_IMAGE"
        )
    for name in (
        "spark.dynamicAllocation.maxExecutors",
        "spark.sql.shuffle.partitions",
        "spark.default.parallelism",
    ):
        if name not in properties:
            yield f"no property {name}: the service's own has no relation to the rows"


def _code_faults(batch: Mapping[str, Any]) -> Iterator[str]:
    pyspark = batch.get("pysparkBatch", {})
    for uri in pyspark.get("pythonFileUris", []):
        if not uri.endswith(PACKAGED):
            yield (
                f"pythonFileUris has {uri}: loose files land in one flat folder, and packages are"
                " none any more; send one zip"
            )
    version = batch.get("runtimeConfig", {}).get("version", "")
    scala = SCALA_OF_RUNTIME.get(".".join(version.split(".")[:2]))
    if version and scala is None:
        yield f"runtime {version!r} is none of {', '.join(SCALA_OF_RUNTIME)}"
    for uri in pyspark.get("jarFileUris", []):
        built_for = JAR_OF_SCALA.search(uri)
        if scala and built_for and built_for[1] != scala:
            yield (
                f"{uri.rpartition('/')[2]} is built for Scala {built_for[1]}, and runtime {version}"
                f" has {scala}"
            )


def _property_faults(properties: Mapping[str, str]) -> Iterator[str]:
    partitions = properties.get("spark.sql.shuffle.partitions")
    if partitions is not None and not re.fullmatch(r"[1-9]\d*", partitions):
        yield (
            f"spark.sql.shuffle.partitions={partitions}: Spark takes a number and ends the job at"
            " anything else, `auto` too"
        )
    for name in sorted(properties):
        if name.startswith(NEEDS_EGRESS):
            yield (
                f"property {name}: a private network has no way out to fetch it from; release the"
                " jars and name them in jarFileUris"
            )


def _secret_faults(batch: Mapping[str, Any], secrets: Collection[str]) -> Iterator[str]:
    """Names alone: what is found must not be said."""
    for name, value in sorted(_properties(batch).items()):
        variable = name.rpartition("Env.")[2]
        if value and SECRET_NAME.search(variable) and not SECRET_VERSION.fullmatch(value):
            yield (
                f"property {name} holds a value: anyone who may read the batch reads it; give the"
                " secret's name, projects/P/secrets/S/versions/V"
            )
        elif USER_IN_URI.search(value):
            yield f"property {name} holds a user and a password in an address"
    said = {
        **{f"property {name}": value for name, value in _properties(batch).items()},
        **{f"label {name}": value for name, value in batch.get("labels", {}).items()},
        **{
            f"argument {number}": value
            for number, value in enumerate(batch.get("pysparkBatch", {}).get("args", []), start=1)
        },
    }
    yield from (
        f"{where} holds the value of a secret"
        for where, value in said.items()
        if value and value in secrets
    )
