"""A batch of the Dataproc fake, and its JSON as the service returns it: batch and operation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from emulator.services.batch_lifecycle import BatchLifecycle
from emulator.services.batch_payloads import (
    BATCH_TYPE,
    METADATA_TYPE,
    encode_operation,
    timestamp,
)


@dataclass
class ServedBatch:
    """One batch. `requested` is its create request; `written` is the size of its output object."""

    project: str
    region: str
    batch_id: str
    uuid: str
    operation: str
    requested: dict[str, Any]
    output_uri: str
    lifecycle: BatchLifecycle
    written: int = 0

    @property
    def name(self) -> str:
        """Return the full resource name."""
        return f"projects/{self.project}/locations/{self.region}/batches/{self.batch_id}"

    def to_json(self, now: float) -> dict[str, Any]:
        """Return the batch as `get` returns it; `now` is seconds since the epoch."""
        *earlier, (state, message, since) = self.lifecycle.history
        return {
            "name": self.name,
            "uuid": self.uuid,
            "createTime": timestamp(self.lifecycle.history[0][2]),
            **self.requested,
            "runtimeInfo": self._runtime_info(now),
            "state": state,
            **(
                {"stateMessage": self._state_message(message)}
                if message or state == "FAILED"
                else {}
            ),
            "stateTime": timestamp(since),
            # .invalid is reserved for names that must not exist (RFC 2606)
            "creator": "local@yieldspark.invalid",
            "runtimeConfig": {
                **self.requested.get("runtimeConfig", {}),
                "properties": self._properties(),
            },
            "operation": self.operation,
            "stateHistory": [
                {"state": name, "stateStartTime": timestamp(start)} for name, _, start in earlier
            ],
        }

    def _runtime_info(self, now: float) -> dict[str, Any]:
        info: dict[str, Any] = (
            {"outputUri": self.output_uri} if self.lifecycle.state != "PENDING" else {}
        )
        if usage := self.lifecycle.usage(now):
            info["approximateUsage"] = _as_strings(usage)
        if present := self.lifecycle.current_usage():
            info["currentUsage"] = {**_as_strings(present), "snapshotTime": timestamp(now)}
        return info

    def _state_message(self, message: str) -> str:
        """Return a failure's message in the service's form."""
        if self.lifecycle.state != "FAILED":
            return message
        folder = self.output_uri.rpartition("/")[0].removeprefix("gs://")
        return (
            f"Google Cloud Dataproc Agent reports job failure{f': {message}' if message else ''}."
            " If logs are available, they can be found at:\n"
            f"https://console.cloud.google.com/dataproc/batches/{self.region}/{self.batch_id}"
            f"?project={self.project}\n"
            f"gcloud dataproc batches wait '{self.batch_id}' --region '{self.region}' --project"
            f" '{self.project}'\n"
            f"https://console.cloud.google.com/storage/browser/{folder}/\n"
            f"{self.output_uri}.*"
        )

    def operation_json(self, now: float, query: Mapping[str, str]) -> dict[str, Any]:
        """Return the batch's operation. It has no state of its own, and `done` only when it has
        ended.
        """
        state, message, since = self.lifecycle.history[-1]
        metadata: dict[str, Any] = {
            "@type": METADATA_TYPE,
            "batch": self.name,
            "batchUuid": self.uuid,
            "createTime": timestamp(self.lifecycle.history[0][2]),
            "operationType": "BATCH",
            "description": "Batch",
            "labels": {
                "goog-dataproc-batch-id": self.batch_id,
                "goog-dataproc-batch-uuid": self.uuid,
                "goog-dataproc-location": self.region,
                **self.requested.get("labels", {}),
            },
        }
        operation: dict[str, Any] = {"name": self.operation, "metadata": metadata}
        if self.lifecycle.done:
            metadata["doneTime"] = timestamp(since)
            operation["done"] = True
            if state == "SUCCEEDED":
                operation["response"] = {"@type": BATCH_TYPE, **self.to_json(now)}
            else:
                operation["error"] = {
                    # google.rpc.Code: CANCELLED and ABORTED
                    "code": 1 if state == "CANCELLED" else 10,
                    "message": self._state_message(message),
                }
        return encode_operation(operation, query)

    def _properties(self) -> dict[str, str]:
        """Return the properties as the service shows them: with a prefix and its defaults."""
        defaults = {
            "spark.app.name": self.name,
            "spark.driver.cores": "4",
            "spark.executor.cores": "4",
            "spark.executor.instances": "2",
        }
        properties = {**defaults, **self.requested.get("runtimeConfig", {}).get("properties", {})}
        return {f"spark:{name}": value for name, value in properties.items()}


def _as_strings(values: Mapping[str, int]) -> dict[str, str]:
    """Encode int64 as JSON strings (https://protobuf.dev/programming-guides/json)."""
    return {name: str(number) for name, number in values.items()}
