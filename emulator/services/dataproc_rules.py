"""The rules of Dataproc Serverless for a request that creates a batch. They are the emulator's own
copy, so that a wrong belief of the product about the service fails here.

Input: a `Batch` as the REST API's JSON. Output: a sentence for each fault; the service answers 400.
Sources: the types of the API (google.cloud.dataproc_v1: ttl, staging bucket, labels, ids) and
https://cloud.google.com/dataproc-serverless/docs/concepts/properties.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from google.cloud.dataproc_v1.types import Batch
from google.protobuf.json_format import MessageToDict, ParseDict, ParseError  # type: ignore[import-untyped]

from emulator.services.dataproc_machines import machine_faults

MIN_TTL_SECONDS, MAX_TTL_SECONDS = 600, 14 * 86_400

BATCH_ID = re.compile(r"[a-z0-9][a-z0-9-]{2,61}[a-z0-9]")
REQUEST_ID = re.compile(r"[a-zA-Z0-9_-]{1,40}")

UNKNOWN_FIELD = re.compile(r'has no field named "(?P<name>[^"]*)" at "(?P<path>[^"]*)"')
IDS = ("batchId", "batch_id", "requestId", "request_id")

LABEL_KEY = re.compile(r"[a-z][a-z0-9_-]{0,62}")
LABEL_VALUE = re.compile(r"[a-z0-9_-]{0,63}")
MAX_LABELS = 32

BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]")

UNSUPPORTED_PROPERTIES = (
    "spark.master",
    "spark.submit.",
    "spark.yarn.",
    "spark.kubernetes.",
    "spark.shuffle.service.",
)
"""The service sets master and deployment itself, and answers 400 `Attempted to set unsupported
properties`.
"""


def request_faults(batch: Mapping[str, Any]) -> list[str]:
    """Every fault of a batch, a sentence each."""
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
        if name.startswith(UNSUPPORTED_PROPERTIES):
            found.append(f"property {name} belongs to the service: leave it out")
    return found + machine_faults(properties)


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
