"""Rules of Dataproc Serverless for a create request. They are independent of the product's checks,
so that a wrong assumption of the product fails here.

Sources: the types of google.cloud.dataproc_v1 (ttl, staging bucket, labels, ids) and
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
"""Properties that the service sets itself; it answers 400 `Attempted to set unsupported
properties`.
"""


def request_faults(batch: Mapping[str, Any]) -> list[str]:
    """Return a message for each fault of a batch."""
    parsed, faults = _parse_by_types(batch)
    if parsed is None:
        return faults
    execution = _execution(parsed)
    properties = _properties(parsed)
    main = parsed.get("pysparkBatch", {}).get("mainPythonFileUri", "")
    if not re.fullmatch(r"(gs|file)://.+\.py", main):
        faults.append(
            f"pysparkBatch.mainPythonFileUri is {main!r}: it must be the gs:// address of a .py"
            " file"
        )
    if (
        "ttl" in execution
        and not MIN_TTL_SECONDS
        <= (seconds := float(execution["ttl"].rstrip("s")))
        <= MAX_TTL_SECONDS
    ):
        faults.append(f"ttl is {seconds:g} s: allowed are 10 minutes (600s) to 14 days (1209600s)")
    if "idleTtl" in execution:
        faults.append(
            "idleTtl is for sessions, and a batch must not have one: leave it out, ttl ends a batch"
        )
    bucket = execution.get("stagingBucket", "")
    if bucket and not BUCKET.fullmatch(bucket):
        faults.append(
            f"stagingBucket is {bucket!r}: it is a bucket's bare name, without gs:// and without a"
            " path"
        )
    faults += _label_faults(parsed.get("labels", {}))
    for name in sorted(properties):
        if name.startswith(UNSUPPORTED_PROPERTIES):
            faults.append(f"property {name} belongs to the service: leave it out")
    return faults + machine_faults(properties)


def _parse_by_types(batch: Mapping[str, Any]) -> tuple[dict[str, Any] | None, list[str]]:
    """Return the batch without fields that Google's types reject (None if they can read nothing)
    and a message for each.
    """
    faults: list[str] = []
    readable: dict[str, Any] = copy.deepcopy(dict(batch))
    with suppress(AttributeError, KeyError, TypeError):
        execution = readable["environmentConfig"]["executionConfig"]
        if {"networkUri", "subnetworkUri"} <= execution.keys():
            faults.append(
                "networkUri and subnetworkUri are both set, and only one is allowed: remove"
                " networkUri"
            )
            del execution["networkUri"]
    while True:
        try:
            return (
                MessageToDict(ParseDict(readable, Batch.pb(Batch()), ignore_unknown_fields=False)),
                faults,
            )
        except ParseError as error:
            # parsing stops at the first fault, so an unknown field is removed and parsed again
            message, unknown = (
                " ".join(str(error).split()).partition(" Available Fields")[0],
                UNKNOWN_FIELD.search(str(error)),
            )
            is_id = unknown and unknown["name"] in IDS
            faults.append(
                "Google's types refuse it:"
                f" {message}"
                f"{' It belongs in the query, not in the body' if is_id else ''}"
            )
            if not unknown or not _remove_field(
                readable, unknown["path"].split(".")[1:], unknown["name"]
            ):
                return None, faults


def _remove_field(batch: dict[str, Any], path: Sequence[str], name: str) -> bool:
    """Remove a field; return whether it was present."""
    parent: Any = batch
    for part in path:
        parent = parent.get(part) if isinstance(parent, dict) else None
    return isinstance(parent, dict) and parent.pop(name, parent) is not parent


def _execution(parsed: Mapping[str, Any]) -> dict[str, Any]:
    execution: dict[str, Any] = parsed.get("environmentConfig", {}).get("executionConfig", {})
    return execution


def _properties(parsed: Mapping[str, Any]) -> dict[str, str]:
    properties: dict[str, str] = parsed.get("runtimeConfig", {}).get("properties", {})
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
