"""Validates a batch, and its ids, before they are sent.

It finds errors that the service accepts but that make the batch fail, cost too much or reveal a
secret. The service itself rejects wrong machines, labels and unknown fields.
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
"""HOST/PATH@sha256:DIGEST, or HOST/PROJECT/IMAGE:TAG as Google documents it. A tag is as safe as a
digest only if its repository forbids overwriting; `latest` is refused because it moves.
"""
JAR_OF_SCALA = re.compile(r"_(2\.1[1-3])-[^/]*\.jar$")
SECRET_NAME = re.compile(
    r"PASSWORD|PASSWD|SECRET|TOKEN|CREDENTIAL|PRIVATE_KEY|API_KEY", re.IGNORECASE
)
SECRET_VERSION = re.compile(r"projects/[^/]+/secrets/[^/]+/versions/[^/]+")
USER_IN_URI = re.compile(r"://[^/@\s]*:[^/@\s]+@")
ARCHIVE_SUFFIXES = (".zip", ".whl", ".egg")

PROPERTIES_WITH_DOWNLOADS = ("spark.jars.packages", "spark.jars.repositories", "spark.jars.ivy")


def check_batch(batch: Mapping[str, Any], *, secrets: Collection[str] = ()) -> None:
    """Check a batch.

    Args:
        batch: the batch as the REST API's JSON.
        secrets: values that the batch must not contain. The message does not show them.

    Raises:
        ConfigurationError: the batch has errors; the message names all of them.
    """
    errors = batch_errors(batch, secrets=secrets)
    if errors:
        raise ConfigurationError(
            f"this batch can't be submitted, {len(errors)} error{'s' * (len(errors) > 1)}: "
            + "; ".join(errors)
        )


def check_batch_id(batch_id: str) -> None:
    """Check the id of a batch.

    Raises:
        ConfigurationError: the service refuses the id, or it is made from a clock.
    """
    errors = []
    if not BATCH_ID.fullmatch(batch_id):
        errors.append(
            f"batch id {batch_id!r} is not 4 to 63 of a-z, 0-9 and `-`, with a letter or digit at"
            " both ends"
        )
    if not ENDS_WITH_UUID.search(batch_id) and CLOCK.search(batch_id):
        errors.append(
            f"batch id {batch_id!r} comes from a clock: a second try would make a second batch"
            " instead of finding the first; make it from the execution's id,"
            " `workflows.spec.batch_request.batch_id`"
        )
    if errors:
        raise ConfigurationError("; ".join(errors))


def check_request_id(request_id: str) -> None:
    """Check a request id.

    Raises:
        ConfigurationError: the service refuses the id.
    """
    if not REQUEST_ID.fullmatch(request_id):
        raise ConfigurationError(
            f"requestId {request_id!r} is not 1 to 40 of a-z, A-Z, 0-9, `_` and `-`: f-<uuid> is"
            " short enough"
        )


def batch_errors(batch: Mapping[str, Any], *, secrets: Collection[str] = ()) -> list[str]:
    """Return the errors of a batch, one sentence each.

    Args:
        batch: the batch as the REST API's JSON.
        secrets: values that the batch must not contain.
    """
    return [
        *_missing_fields(batch),
        *_code_errors(batch),
        *_property_errors(_properties(batch)),
        *_secret_errors(batch, secrets),
    ]


def _execution(batch: Mapping[str, Any]) -> dict[str, Any]:
    execution: dict[str, Any] = batch.get("environmentConfig", {}).get("executionConfig", {})
    return execution


def _properties(batch: Mapping[str, Any]) -> dict[str, str]:
    properties: dict[str, str] = batch.get("runtimeConfig", {}).get("properties", {})
    return properties


def _missing_fields(batch: Mapping[str, Any]) -> Iterator[str]:
    """Yield an error for each field that a batch of YieldSpark always has."""
    execution, runtime, properties = (
        _execution(batch),
        batch.get("runtimeConfig", {}),
        _properties(batch),
    )
    if not execution.get("serviceAccount"):
        yield (
            "no serviceAccount: the project's default account has more rights than a batch needs;"
            " set BATCH_SERVICE_ACCOUNT"
        )
    if not execution.get("subnetworkUri"):
        yield (
            "no subnetworkUri: only one private subnetwork reaches the database; set"
            " BATCH_SUBNETWORK"
        )
    if not execution.get("ttl"):
        yield (
            "no ttl: a batch that hangs would run, and be billed, without an end; set"
            " BATCH_TTL_MINUTES"
        )
    if not execution.get("stagingBucket"):
        yield (
            "no stagingBucket: the service would create one without your rules; set STAGING_BUCKET"
        )
    if (
        execution.get("authenticationConfig", {}).get("userWorkloadAuthenticationType")
        != "SERVICE_ACCOUNT"
    ):
        yield (
            "authenticationConfig.userWorkloadAuthenticationType is not SERVICE_ACCOUNT: the job"
            " would run with the rights of its submitter"
        )
    if not runtime.get("version"):
        yield (
            "no runtimeConfig.version: the service's default changes over time;"
            " take the one of `workflows.spec.platforms`"
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
            yield f"no property {name}: the service's default does not depend on the rows"


def _code_errors(batch: Mapping[str, Any]) -> Iterator[str]:
    pyspark = batch.get("pysparkBatch", {})
    for uri in pyspark.get("pythonFileUris", []):
        if not uri.endswith(ARCHIVE_SUFFIXES):
            yield (
                f"pythonFileUris has {uri}: single files are put into one flat folder, where"
                " packages cannot be imported; send one zip"
            )
    version = batch.get("runtimeConfig", {}).get("version", "")
    # a version may name a patch, such as 2.3.4
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


def _property_errors(properties: Mapping[str, str]) -> Iterator[str]:
    partitions = properties.get("spark.sql.shuffle.partitions")
    if partitions is not None and not re.fullmatch(r"[1-9]\d*", partitions):
        yield (
            f"spark.sql.shuffle.partitions={partitions}: Spark takes a number only, and fails the"
            " job for anything else, such as `auto`"
        )
    for name in sorted(properties):
        if name.startswith(PROPERTIES_WITH_DOWNLOADS):
            yield (
                f"property {name}: a private network cannot download it; release the jars and"
                " name them in jarFileUris"
            )


def _secret_errors(batch: Mapping[str, Any], secrets: Collection[str]) -> Iterator[str]:
    """Yield an error for each value of a secret. The text has names only, never the value."""
    for name, value in sorted(_properties(batch).items()):
        # driverEnv.NAME and executorEnv.NAME
        variable = name.rpartition("Env.")[2]
        if value and SECRET_NAME.search(variable) and not SECRET_VERSION.fullmatch(value):
            yield (
                f"property {name} holds a value, which everyone who may read the batch can see; set"
                " the secret's name, projects/P/secrets/S/versions/V"
            )
        elif USER_IN_URI.search(value):
            yield f"property {name} has a user and a password in an address"
    texts = {
        **{f"property {name}": value for name, value in _properties(batch).items()},
        **{f"label {name}": value for name, value in batch.get("labels", {}).items()},
        **{
            f"argument {number}": value
            for number, value in enumerate(batch.get("pysparkBatch", {}).get("args", []), start=1)
        },
    }
    yield from (
        f"{where} has the value of a secret"
        for where, value in texts.items()
        if value and value in secrets
    )
