"""What Google's types accept in a batch, and the service, Spark or a private network refuses at
night: said before anything is sent.

In: a `Batch` as the REST API's JSON, or an id. Out: nothing, or one ConfigurationError that names
every fault. No rule asks a service. Sources: the API's own types (google.cloud.dataproc_v1: ttl,
staging bucket, labels, ids), the properties that Serverless for Apache Spark knows
(https://cloud.google.com/dataproc-serverless/docs/concepts/properties), and for the rest the
sentence itself says why.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from google.cloud.dataproc_v1.types import Batch
from google.protobuf.json_format import MessageToDict, ParseDict, ParseError  # type: ignore[import-untyped]

from common.errors import ConfigurationError
from workflows.batches.batch_machines import machine_faults
from workflows.batches.platforms import SCALA_OF_RUNTIME

MIN_TTL_SECONDS, MAX_TTL_SECONDS = 600, 14 * 86_400

BATCH_ID = re.compile(r"[a-z0-9][a-z0-9-]{2,61}[a-z0-9]")
REQUEST_ID = re.compile(r"[a-zA-Z0-9_-]{1,40}")
ENDS_WITH_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")
CLOCK = re.compile(r"(^|-)(20\d{2}-?[01]\d-?[0-3]\d|1\d{9}|1\d{12})(?!\d)")
"""A date, or seconds or milliseconds since 1970."""

UNKNOWN_FIELD = re.compile(r'has no field named "(?P<name>[^"]*)" at "(?P<path>[^"]*)"')
IDS = ("batchId", "batch_id", "requestId", "request_id")

LABEL_KEY = re.compile(r"[a-z][a-z0-9_-]{0,62}")
LABEL_VALUE = re.compile(r"[a-z0-9_-]{0,63}")
MAX_LABELS = 32

BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")
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

NOT_FOR_A_BATCH = (
    "spark.master",
    "spark.submit.",
    "spark.yarn.",
    "spark.kubernetes.",
    "spark.shuffle.service.",
)
"""The service is master and deployment, and answers 400 `Attempted to set unsupported properties`,
or the application fails.
"""

NEEDS_EGRESS = ("spark.jars.packages", "spark.jars.repositories", "spark.jars.ivy")


def check_batch(batch: Mapping[str, Any], *, secrets: Collection[str] = ()) -> None:
    """Args: batch is the REST API's JSON; secrets are values that must not stand in it anywhere,
    and will not stand in the message.

    Raises: ConfigurationError naming every fault.
    """
    found = [*service_faults(batch), *product_faults(batch, secrets=secrets)]
    if found:
        raise ConfigurationError(
            f"this batch can't be submitted, {len(found)} fault{'s' * (len(found) > 1)}: "
            + "; ".join(found)
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
            " `workflows.batches.batch_request.batch_id`"
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


def service_faults(batch: Mapping[str, Any]) -> list[str]:
    """What the service answers 400 to, a sentence each."""
    known, found = _as_the_types_read_it(batch)
    if known is None:
        return found
    execution = _execution(known)
    properties = _properties(known)
    main = known.get("pysparkBatch", {}).get("mainPythonFileUri", "")
    if not re.fullmatch(r"(gs|file)://.+\.py", main):
        found.append(
            f"pysparkBatch.mainPythonFileUri is {main!r}: it must be the gs:// address of a .py"
            " file"
        )
    if (
        "ttl" in execution
        and not MIN_TTL_SECONDS
        <= (seconds := float(execution["ttl"].rstrip("s")))
        <= MAX_TTL_SECONDS
    ):
        found.append(f"ttl is {seconds:g} s: allowed are 10 minutes (600s) to 14 days (1209600s)")
    if "idleTtl" in execution:
        found.append(
            "idleTtl is for sessions, and a batch must not have one: leave it out, ttl ends a batch"
        )
    bucket = execution.get("stagingBucket", "")
    if bucket and not BUCKET.fullmatch(bucket):
        found.append(
            f"stagingBucket is {bucket!r}: it is a bucket's bare name, without gs:// and without a"
            " path"
        )
    found += _label_faults(known.get("labels", {}))
    for name in sorted(properties):
        if name.startswith(NOT_FOR_A_BATCH):
            found.append(f"property {name} belongs to the service: leave it out")
    return found + machine_faults(properties)


def product_faults(batch: Mapping[str, Any], *, secrets: Collection[str] = ()) -> list[str]:
    """What the service takes, and what then fails, costs or shows more than it should, a sentence
    each.
    """
    known, _ = _as_the_types_read_it(batch)
    if known is None:
        return []
    return [
        *_missing(known),
        *_code_faults(known),
        *_property_faults(_properties(known)),
        *_secret_faults(known, secrets),
    ]


def _as_the_types_read_it(batch: Mapping[str, Any]) -> tuple[dict[str, Any] | None, list[str]]:
    """The batch without what Google's types refuse, None where they can read nothing of it; and the
    words for that.
    """
    found: list[str] = []
    readable: dict[str, Any] = copy.deepcopy(dict(batch))
    with suppress(AttributeError, KeyError, TypeError):
        execution = readable["environmentConfig"]["executionConfig"]
        if {"networkUri", "subnetworkUri"} <= execution.keys():
            found.append(
                "networkUri and subnetworkUri are both there, and only one may be: leave"
                " networkUri out"
            )
            del execution["networkUri"]
    while True:
        try:
            return (
                MessageToDict(ParseDict(readable, Batch.pb(Batch()), ignore_unknown_fields=False)),
                found,
            )
        except ParseError as error:
            # the types stop at the first fault: an unknown field is taken out, and they go on
            words, unknown = (
                " ".join(str(error).split()).partition(" Available Fields")[0],
                UNKNOWN_FIELD.search(str(error)),
            )
            is_id = unknown and unknown["name"] in IDS
            found.append(
                "Google's types refuse it:"
                f" {words}"
                f"{' It stands in the query of the address, not in the body' if is_id else ''}"
            )
            if not unknown or not _taken_out(
                readable, unknown["path"].split(".")[1:], unknown["name"]
            ):
                return None, found


def _taken_out(batch: dict[str, Any], path: Sequence[str], name: str) -> bool:
    """Whether the field was there to be removed."""
    where: Any = batch
    for part in path:
        where = where.get(part) if isinstance(where, dict) else None
    return isinstance(where, dict) and where.pop(name, where) is not where


def _execution(known: Mapping[str, Any]) -> dict[str, Any]:
    execution: dict[str, Any] = known.get("environmentConfig", {}).get("executionConfig", {})
    return execution


def _properties(known: Mapping[str, Any]) -> dict[str, str]:
    properties: dict[str, str] = known.get("runtimeConfig", {}).get("properties", {})
    return properties


def _label_faults(labels: Mapping[str, str]) -> Iterator[str]:
    if len(labels) > MAX_LABELS:
        yield f"{len(labels)} labels, and a batch may have {MAX_LABELS}"
    for key, value in sorted(labels.items()):
        if not LABEL_KEY.fullmatch(key) or key.startswith("goog"):
            yield (
                f"label {key!r}: a key is 1 to 63 of a-z, 0-9, `_` and `-`, begins with a letter"
                " and not with goog, which is Google's"
            )
        if not LABEL_VALUE.fullmatch(value):
            yield f"label {key}={value!r}: a value is up to 63 of a-z, 0-9, `_` and `-`"


def _missing(known: Mapping[str, Any]) -> Iterator[str]:
    """What a batch of this product always has."""
    execution, runtime, properties = (
        _execution(known),
        known.get("runtimeConfig", {}),
        _properties(known),
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
            " `workflows.batches.platforms` has the one it needs"
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


def _code_faults(known: Mapping[str, Any]) -> Iterator[str]:
    pyspark = known.get("pysparkBatch", {})
    for uri in pyspark.get("pythonFileUris", []):
        if not uri.endswith(PACKAGED):
            yield (
                f"pythonFileUris has {uri}: loose files land in one flat folder, and packages are"
                " none any more; send one zip"
            )
    version = known.get("runtimeConfig", {}).get("version", "")
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


def _secret_faults(known: Mapping[str, Any], secrets: Collection[str]) -> Iterator[str]:
    """Names alone: what is found must not be said."""
    for name, value in sorted(_properties(known).items()):
        variable = name.rpartition("Env.")[2]
        if value and SECRET_NAME.search(variable) and not SECRET_VERSION.fullmatch(value):
            yield (
                f"property {name} holds a value: anyone who may read the batch reads it; give the"
                " secret's name, projects/P/secrets/S/versions/V"
            )
        elif USER_IN_URI.search(value):
            yield f"property {name} holds a user and a password in an address"
    said = {
        **{f"property {name}": value for name, value in _properties(known).items()},
        **{f"label {name}": value for name, value in known.get("labels", {}).items()},
        **{
            f"argument {number}": value
            for number, value in enumerate(known.get("pysparkBatch", {}).get("args", []), start=1)
        },
    }
    yield from (
        f"{where} holds the value of a secret"
        for where, value in said.items()
        if value and value in secrets
    )
