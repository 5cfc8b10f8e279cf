"""Tests that each known fault of a batch is reported with what is allowed, and that several faults
are reported together.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from common.errors import ConfigurationError, full_message
from emulator.services.dataproc_rules import request_faults
from tests.support.batches import BATCHES, PASSWORD, SECRET, a_batch, changed, properties_of
from workflows.spec.batch_validation import (
    batch_errors,
    check_batch,
    check_batch_id,
    check_request_id,
)

Change = Callable[[dict[str, Any]], object]


def execution_of(batch: dict[str, Any]) -> dict[str, Any]:
    execution: dict[str, Any] = batch["environmentConfig"]["executionConfig"]
    return execution


def with_property(name: str, value: str) -> Change:
    return lambda batch: properties_of(batch).update({name: value})


def with_execution(**fields: Any) -> Change:
    return lambda batch: execution_of(batch).update(fields)


def with_labels(labels: dict[str, str]) -> Change:
    return lambda batch: batch["labels"].update(labels)


def with_python_files(*uris: str) -> Change:
    return lambda batch: batch["pysparkBatch"].update(pythonFileUris=list(uris))


REFUSED_BY_THE_SERVICE: list[tuple[str, Change, str]] = [
    (
        "batch id in the body",
        lambda batch: batch.update(batchId="metrics-1"),
        'no field named "batchId" .*It belongs in the query',
    ),
    (
        "request id in the body",
        lambda batch: batch.update(requestId="m-1"),
        'no field named "requestId" .*in the query',
    ),
    (
        "unknown field",
        lambda batch: batch["pysparkBatch"].update(mainFile="x"),
        'no field named "mainFile"',
    ),
    (
        "number as a property",
        lambda batch: properties_of(batch).update({"spark.driver.cores": 4}),  # type: ignore[dict-item]
        "Google's types refuse it",
    ),
    (
        "no main file",
        lambda batch: batch["pysparkBatch"].pop("mainPythonFileUri"),
        "mainPythonFileUri is ''",
    ),
    ("no job at all", lambda batch: batch.pop("pysparkBatch"), "mainPythonFileUri is ''"),
    (
        "main file of this machine",
        lambda batch: batch["pysparkBatch"].update(mainPythonFileUri="job.py"),
        "gs:// address of a .py file",
    ),
    (
        "ttl of 9 minutes",
        with_execution(ttl="540s"),
        r"ttl is 540 s: allowed are 10 minutes \(600s\) to 14 days",
    ),
    ("ttl of 15 days", with_execution(ttl="1296000s"), "ttl is 1.296e\\+06 s"),
    ("idle ttl", with_execution(idleTtl="600s"), "idleTtl is for sessions"),
    (
        "gs:// in the staging bucket",
        with_execution(stagingBucket="gs://a-project-staging"),
        "bare name, without gs://",
    ),
    (
        "path in the staging bucket",
        with_execution(stagingBucket="a-project-staging/batches"),
        "without a path",
    ),
    (
        "two kinds of network",
        with_execution(networkUri="default"),
        "networkUri and subnetworkUri are both set",
    ),
    ("label in capitals", with_labels({"Job": "x"}), "label 'Job'"),
    ("label of Google's", with_labels({"goog-batch": "x"}), "label 'goog-batch'"),
    ("label that is too long", with_labels({"a" * 64: ""}), "label 'aaaa"),
    ("value of a label", with_labels({"version": "v1.0"}), "label version='v1.0'"),
    (
        "33 labels",
        with_labels({f"label{number}": "" for number in range(30)}),
        "33 labels, and a batch may have 32",
    ),
    (
        "2 cores",
        with_property("spark.driver.cores", "2"),
        "spark.driver.cores=2: allowed are 4, 8, 16",
    ),
    ("cores in words", with_property("spark.executor.cores", "four"), "spark.executor.cores=four"),
    (
        "too little memory",
        with_property("spark.driver.memoryOverhead", "1g"),
        "driver has 768 MiB of memory a core",
    ),
    (
        "too much memory",
        with_property("spark.executor.memory", "28g"),
        "the standard tier allows 1024 to 7424",
    ),
    (
        "overhead by default",
        lambda batch: properties_of(batch).pop("spark.executor.memoryOverhead"),
        "executor has 716.8 MiB",
    ),
    (
        "memory off the heap",
        with_property("spark.memory.offHeap.size", "26g"),
        "executor has 7680 MiB",
    ),
    (
        "memory without a unit",
        with_property("spark.driver.memory", "lots"),
        "spark.driver.memory=lots: memory is a number with",
    ),
    (
        "unknown tier",
        with_property("dataproc.tier", "gold"),
        "dataproc.tier=gold: allowed are standard, premium",
    ),
    (
        "tier twice",
        lambda batch: properties_of(batch).update(
            {"dataproc.tier": "premium", "spark.dataproc.driver.compute.tier": "premium"}
        ),
        "the service accepts only one",
    ),
    (
        "one executor",
        with_property("spark.dynamicAllocation.minExecutors", "1"),
        "minExecutors=1: allowed are 2 to 2000",
    ),
    (
        "more to begin with than allowed",
        with_property("spark.dynamicAllocation.initialExecutors", "3"),
        "is above spark.dynamicAllocation.maxExecutors=2",
    ),
    (
        "master",
        with_property("spark.master", "yarn"),
        "property spark.master belongs to the service",
    ),
    (
        "deploy mode",
        with_property("spark.submit.deployMode", "cluster"),
        "spark.submit.deployMode belongs to the service",
    ),
    (
        "YARN",
        with_property("spark.yarn.am.memory", "3g"),
        "spark.yarn.am.memory belongs to the service",
    ),
    (
        "shuffle service",
        with_property("spark.shuffle.service.enabled", "true"),
        "spark.shuffle.service.enabled belongs to the service",
    ),
]

REFUSED_BY_THE_PRODUCT: list[tuple[str, Change, str]] = [
    (
        "automatic partitions",
        with_property("spark.sql.shuffle.partitions", "auto"),
        "shuffle.partitions=auto: Spark takes a number",
    ),
    (
        "loose files",
        with_python_files("gs://b/config_spark.py", "gs://b/database/tables.py"),
        "pythonFileUris has gs://b/database/tables.py: single files",
    ),
    (
        "packages from the internet",
        with_property("spark.jars.packages", "org.postgresql:postgresql:42.7.14"),
        "spark.jars.packages: a private network",
    ),
    (
        "a repository",
        with_property("spark.jars.repositories", "https://a.host"),
        "spark.jars.repositories: a private network",
    ),
    (
        "runtime that is not known",
        lambda batch: batch["runtimeConfig"].update(version="4.7"),
        "runtime '4.7' is none of 1.1, ",
    ),
    (
        "no service account",
        lambda batch: execution_of(batch).pop("serviceAccount"),
        "no serviceAccount.*BATCH_SERVICE_ACCOUNT",
    ),
    (
        "no network",
        lambda batch: execution_of(batch).pop("subnetworkUri"),
        "no subnetworkUri.*BATCH_SUBNETWORK",
    ),
    ("no ttl", lambda batch: execution_of(batch).pop("ttl"), "no ttl.*BATCH_TTL_MINUTES"),
    (
        "no staging bucket",
        lambda batch: execution_of(batch).pop("stagingBucket"),
        "no stagingBucket.*STAGING_BUCKET",
    ),
    (
        "as whoever submits",
        lambda batch: execution_of(batch).pop("authenticationConfig"),
        "is not SERVICE_ACCOUNT",
    ),
    ("no runtime", lambda batch: batch["runtimeConfig"].pop("version"), "no runtimeConfig.version"),
    (
        "an image that moves",
        lambda batch: batch["runtimeConfig"].update(containerImage="gcr.io/p/yieldspark:latest"),
        "HOST/PATH@sha256",
    ),
    (
        "no ceiling",
        lambda batch: properties_of(batch).pop("spark.dynamicAllocation.maxExecutors"),
        "no property spark.dynamicAllocation.maxExecutors",
    ),
    (
        "no partitions",
        lambda batch: properties_of(batch).pop("spark.sql.shuffle.partitions"),
        "no property spark.sql.shuffle.partitions",
    ),
    (
        "no parallelism",
        lambda batch: properties_of(batch).pop("spark.default.parallelism"),
        "no property spark.default.parallelism",
    ),
    (
        "a password",
        with_property("spark.dataproc.driverEnv.DB_PASSWORD", "hunter2"),
        "driverEnv.DB_PASSWORD holds a value",
    ),
    (
        "a token for executors",
        with_property("spark.executorEnv.MLFLOW_TRACKING_TOKEN", "hunter2"),
        "MLFLOW_TRACKING_TOKEN holds a value",
    ),
    (
        "a secret where its name belongs",
        with_property("spark.dataproc.driverEnv.DB_PASSWORD_SECRET", "hunter2"),
        "DB_PASSWORD_SECRET holds a value",
    ),
    (
        "an address with a password",
        with_property("spark.dataproc.driverEnv.MLFLOW", "https://me:hunter2@host/"),
        "a user and a password in an address",
    ),
]


def by_name(faults: list[tuple[str, Change, str]]) -> list[Any]:
    return [pytest.param(change, message, id=name) for name, change, message in faults]


@pytest.mark.parametrize(("job", "engine"), BATCHES)
def test_what_is_built_has_no_fault(job: str, engine: str | None) -> None:
    batch = a_batch(job, engine)
    assert request_faults(batch) == batch_errors(batch) == []
    check_batch(batch)


HOST = "europe-west1-docker.pkg.dev"


@pytest.mark.parametrize(
    "image",
    [
        f"{HOST}/a-project/jobs/batch@sha256:{'0' * 64}",
        f"{HOST}/a-project/batch:3f9c2ab41d7e",
        f"{HOST}/a-project/jobs/batch:3f9c2ab41d7e",
        f"{HOST}/a-project/some.jobs/batch_1:2026-11-29_v1.2",
        f"{HOST}/a-project/jobs/batch:latest-1",
        f"{HOST}/a-project/jobs/batch:3f9c@sha256:{'0' * 64}",
    ],
)
def test_an_image_by_digest_or_by_a_tag_that_may_be_immutable_is_taken(image: str) -> None:
    check_batch(
        changed(a_batch(), lambda batch: batch["runtimeConfig"].update(containerImage=image))
    )


@pytest.mark.parametrize(
    "image",
    [
        f"{HOST}/a-project/jobs/batch",
        f"{HOST}/a-project/jobs/batch:",
        f"{HOST}/a-project/jobs/batch:latest",
        f"{HOST}/a-project/jobs/batch:a:b",
        f"{HOST}/a-project/jobs/batch:{'a' * 129}",
        f"{HOST}/a-project/jobs/batch@sha256:123",
        f"{HOST}/batch:3f9c2ab41d7e",
        "a-project/jobs/batch:3f9c2ab41d7e",
        "gs://bucket/batch:3f9c2ab41d7e",
        f"https://{HOST}/a-project/jobs/batch:3f9c2ab41d7e",
    ],
)
def test_an_image_that_is_not_pinned_is_refused_with_both_forms(image: str) -> None:
    batch = changed(a_batch(), lambda batch: batch["runtimeConfig"].update(containerImage=image))
    with pytest.raises(ConfigurationError) as caught:
        check_batch(batch)
    assert f"containerImage is {image!r}: it must be HOST/PATH@sha256:" in str(caught.value)
    assert "or HOST/PROJECT/IMAGE:TAG with a tag that never moves" in str(caught.value)


@pytest.mark.parametrize(("change", "message"), by_name(REFUSED_BY_THE_SERVICE))
def test_the_emulator_refuses_faults_that_the_service_refuses(change: Change, message: str) -> None:
    (fault,) = request_faults(changed(a_batch(), change))
    assert re.search(message, fault)


@pytest.mark.parametrize(("change", "message"), by_name(REFUSED_BY_THE_PRODUCT))
def test_faults_that_the_service_accepts_are_reported_before(change: Change, message: str) -> None:
    batch = changed(a_batch(), change)
    assert request_faults(batch) == []
    with pytest.raises(ConfigurationError, match=message) as caught:
        check_batch(batch)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("runtime", "scala"),
    [("2.1", "2.13"), ("2.3", "2.13"), ("2.2.30", "2.13"), ("1.2", None), ("1.1", None)],
)
def test_synapseml_needs_a_runtime_of_its_scala(runtime: str, scala: str | None) -> None:
    batch = changed(
        a_batch("forecast_pools", "synapseml"),
        lambda batch: batch["runtimeConfig"].update(version=runtime),
    )
    message = (
        f"synapseml-lightgbm_2.12-1.1.3.jar is built for Scala 2.12, and runtime {runtime} has"
        f" {scala}"
    )
    assert (message in batch_errors(batch)) == (scala is not None)


def test_a_premium_machine_may_have_more_memory() -> None:
    big = changed(a_batch(), with_property("spark.executor.memory", "28g"))
    assert request_faults(big)
    assert (
        request_faults(
            changed(big, with_property("spark.dataproc.executor.compute.tier", "premium"))
        )
        == []
    )
    assert request_faults(changed(big, with_property("dataproc.tier", "premium"))) == []


def test_all_faults_are_in_one_message() -> None:
    def change(batch: dict[str, Any]) -> None:
        execution_of(batch).pop("ttl")
        properties_of(batch).update(
            {"spark.sql.shuffle.partitions": "auto", "spark.jars.packages": "a:b:1"}
        )

    with pytest.raises(ConfigurationError) as caught:
        check_batch(changed(a_batch(), change))
    message = full_message(caught.value)
    assert message.startswith("this batch can't be submitted, 3 errors: ")
    for part in ("no ttl", "auto", "spark.jars.packages"):
        assert part in message


def test_the_emulator_names_all_faults_of_a_request() -> None:
    def change(batch: dict[str, Any]) -> None:
        batch |= {"batchId": "metrics-1", "requestId": "m-1"}
        execution_of(batch).update(
            ttlSeconds=1, stagingBucket="gs://bucket", idleTtl="600s", networkUri="default"
        )
        properties_of(batch)["spark.master"] = "yarn"

    faults = request_faults(changed(a_batch(), change))
    parts = ("batchId", "requestId", "ttlSeconds", "gs://bucket", "idleTtl", "networkUri", "master")
    assert len(faults) == len(parts)
    for part in parts:
        assert part in "; ".join(faults)


def test_an_empty_batch_lacks_everything() -> None:
    with pytest.raises(ConfigurationError, match=r"10 errors: no serviceAccount"):
        check_batch({})
    assert request_faults({}) == [
        "pysparkBatch.mainPythonFileUri is '': it must be the gs:// address of a .py file"
    ]


@pytest.mark.parametrize(
    "unreadable",
    [{"pysparkBatch": "job.py"}, {"runtimeConfig": {"properties": []}}, {"labels": ["a"]}],
)
def test_an_unreadable_value_is_one_fault_of_many(unreadable: dict[str, Any]) -> None:
    (fault,) = request_faults(a_batch() | unreadable)
    assert fault.startswith("Google's types refuse it")


@pytest.mark.parametrize(
    "change",
    [
        with_property("spark.dataproc.driverEnv.DB_USER", PASSWORD),
        with_labels({"note": PASSWORD}),
        lambda batch: batch["pysparkBatch"].update(args=["--with", PASSWORD]),
    ],
)
def test_finds_a_secrets_value_anywhere_and_does_not_print_it(change: Change) -> None:
    batch = changed(a_batch(), change)
    check_batch(batch)
    with pytest.raises(ConfigurationError, match="has the value of a secret") as caught:
        check_batch(batch, secrets=[PASSWORD, ""])
    assert PASSWORD not in str(caught.value)


def test_a_secrets_name_is_no_secret() -> None:
    check_batch(
        changed(a_batch(), with_property("spark.dataproc.driverEnv.ANOTHER_PASSWORD", SECRET))
    )


@pytest.mark.parametrize(
    "good", ["abcd", "metrics-1", "1--a", "a" * 63, "forecast-0b5f7a52-9d0e-4c7e-8a63-0f6f1e2d3c4b"]
)
def test_a_good_batch_id(good: str) -> None:
    check_batch_id(good)


@pytest.mark.parametrize(
    "bad", ["abc", "a" * 64, "-abc", "abc-", "Metrics-1", "a_bcd", "abc.d", ""]
)
def test_a_bad_batch_id(bad: str) -> None:
    with pytest.raises(ConfigurationError, match="is not 4 to 63 of"):
        check_batch_id(bad)


def test_request_ids() -> None:
    check_request_id("m-0b5f7a52-9d0e-4c7e-8a63-0f6f1e2d3c4b")
    for bad in ("", "a" * 41, "a.b", "ä"):
        with pytest.raises(ConfigurationError, match="is not 1 to 40 of"):
            check_request_id(bad)
