"""Puts known faults into the workflow, one at a time, and tests that a rule or a scenario detects
each. The first of each list come from earlier designs.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import (
    batch_scenarios,
    platform_scenarios,
    release_scenarios,
    validation_scenarios,
)
from tests.support.scenario_checks import Scenario
from tests.support.workflow_services import PIPELINE, by_interpreter
from workflows.pipeline_lint.rules import check_source

Change = tuple[str, str]

POST_BATCH = """          call: http.post
          args:
            url: ${batches}
            auth: {type: OAuth2}
            query: {batchId: "${where.batch}", requestId: "${where.request}"}
            body: ${body}
"""

FOLLOW_BATCH = """    - follow_it:
        call: poll_until_done
        args:
          job: ${job}
          where: ${where}
          url: ${batches + "/" + where.batch}
"""
CREATED = """    - created:
        next: follow_it
"""
ASK_THE_OPERATION = """    - is_over:
        switch:
          - condition: ${operation.body.state == "FAILED"}
            raise: it failed
"""

SEEN_BY_RULES: dict[str, tuple[Change, str]] = {
    "a connector that does not exist": (
        (
            POST_BATCH,
            (
                "          call: googleapis.dataproc.v1.projects.locations.batches.create\n        "
                "  args: {body: '${body}'}\n"
            ),
        ),
        (
            "googleapis.dataproc.v1.projects.locations.batches.create is a connector; there is none"
            " for Dataproc"
        ),
    ),
    "an expression inside a longer string": (
        (
            'url: ${objects + "latest.json"}',
            "url: https://storage.googleapis.com/storage/v1/b/${name}/o/latest.json",
        ),
        "an expression is the whole value",
    ),
    "ids in a literal body": (
        (
            "            body: ${body}\n",
            "            body: {batchId: '${where.batch}', pysparkBatch: '${body.pysparkBatch}'}\n",
        ),
        "batchId and requestId belong into the query",
    ),
    "a request without its token": (
        (
            "            url: ${batches}\n            auth: {type: OAuth2}\n",
            "            url: ${batches}\n",
        ),
        "is answered 401",
    ),
    "a part of a function's result": (
        (
            "          - other: ${parts_of_name[7]}\n",
            '          - other: ${text.split(oldest.name, "/")[7]}\n',
        ),
        "the result of text.split() is assigned to a variable",
    ),
    "waiting inside an expression": (
        (
            '    - wait:\n        call: sys.sleep\n        args: {seconds: "${pause}"}\n',
            "    - wait:\n        assign: [{slept: '${sys.sleep(pause)}'}]\n",
        ),
        "sys.sleep waits",
    ),
    "a jump to nowhere": (("next: request_end\n", "next: stop_it\n"), "next is 'stop_it'"),
    "a word that is a boolean": (
        ("  params: [job, where, url]\n", "  params: [job, where, url, {on: 1}]\n"),
        "'on' as bool",
    ),
}

SEEN_BY_SCENARIOS: dict[str, tuple[Change, Scenario]] = {
    "polling the Operation": (
        (
            FOLLOW_BATCH,
            FOLLOW_BATCH.replace(
                'batches + "/" + where.batch',
                '"https://dataproc.googleapis.com/v1/" + operation.body.name',
            ),
        ),
        batch_scenarios.success,
    ),
    "the state of an answer that has none": (
        (CREATED, ASK_THE_OPERATION + CREATED),
        batch_scenarios.success,
    ),
    "CANCELLED polled for ever": (
        ("          - ended: [FAILED, CANCELLED]\n", "          - ended: [FAILED]\n"),
        batch_scenarios.cancelled,
    ),
    "a time-out returned as text": (
        (
            "          - condition: ${sys.now() >= deadline}\n            next: request_end\n",
            (
                "          - condition: ${sys.now() >= deadline}\n            return: it took too"
                " long\n"
            ),
        ),
        batch_scenarios.deadline,
    ),
    "the batch id from the clock": (
        (
            'batch: ${job.short_name + "-" + execution}',
            'batch: ${job.short_name + "-" + string(int(sys.now()))}',
        ),
        batch_scenarios.success,
    ),
    "ids in the body": (
        (
            "          - body.pysparkBatch.args: ${arguments}\n",
            (
                "          - body.pysparkBatch.args: ${arguments}\n          - body.batchId:"
                " ${where.batch}\n"
            ),
        ),
        batch_scenarios.success,
    ),
    "FAILED taken for a success": (
        (
            '          - condition: ${found.state == "SUCCEEDED"}\n',
            '          - condition: ${found.state in ["SUCCEEDED", "FAILED"]}\n',
        ),
        batch_scenarios.failed,
    ),
    "the argument version not heard": (
        (
            "    - is_given:\n        switch:\n          - condition: ${version != null}\n",
            '    - is_given:\n        switch:\n          - condition: ${version == ""}\n',
        ),
        release_scenarios.rollback,
    ),
    "a cancel at every look": (
        (
            (
                "          - condition: ${over_time and sys.now() >= deadline}\n            next:"
                " raise_timeout\n"
            ),
            "          - condition: ${over_time}\n            next: request_end\n",
        ),
        batch_scenarios.deadline,
    ),
    "no cancel": (
        (
            "    - cancel:\n        try:\n          call: http.post\n",
            "    - cancel:\n        try:\n          call: http.get\n",
        ),
        batch_scenarios.deadline,
    ),
    "usage is not waited for": (("looks > 6", "looks > 0"), batch_scenarios.usage_comes_later),
    "no retry of a busy service": (
        ("passes: [429, 500, 502, 503, 504]", "passes: [502, 504]"),
        batch_scenarios.unavailable_twice,
    ),
    "refusals tried again": (
        ("passes: [429, 500, 502, 503, 504]", "passes: [403, 404, 429, 500, 502, 503, 504]"),
        batch_scenarios.not_created,
    ),
    "409 taken for a failure": (
        (
            '                  - condition: ${default(map.get(e, "code"), 0) == 409}\n',
            '                  - condition: ${default(map.get(e, "code"), 0) == 410}\n',
        ),
        batch_scenarios.batch_is_there_already,
    ),
    "ABORTED taken for a batch that exists": (
        (
            '                  - condition: ${default(map.get(e, "code"), 0) == 404}\n',
            '                  - condition: ${default(map.get(e, "code"), 0) == 410}\n',
        ),
        batch_scenarios.create_is_aborted,
    ),
    "an aborted create sent again for ever": (
        ("conflicts > 6", "conflicts > 60"),
        batch_scenarios.create_is_aborted,
    ),
    "a second execution beside the first": (
        ('${other != sys.get_env("GOOGLE_CLOUD_WORKFLOW_EXECUTION_ID")}', '${other == ""}'),
        batch_scenarios.second_execution,
    ),
    "an argument that no one reads": (
        (
            "                  - condition: ${not (key in patterns)}\n",
            '                  - condition: ${key == ""}\n',
        ),
        release_scenarios.wrong_argument,
    ),
    "the engine of the release not heard": (
        ('default(map.get(release, "engine"), "synapseml")', '"synapseml"'),
        batch_scenarios.arguments_reach_the_jobs,
    ),
    "a dry run that writes": (
        (
            "${default(map.get(wanted, option.name), false)}",
            '${default(map.get(wanted, option.name), false) and option.name != "dry_run"}',
        ),
        batch_scenarios.arguments_reach_the_jobs,
    ),
    "a value without its option": (
        (
            "${list.concat(list.concat(words, option.flag), wanted[option.name])}",
            "${list.concat(words, wanted[option.name])}",
        ),
        release_scenarios.third_job,
    ),
    "a platform for a job that the release does not have": (
        ("${not (name in names)}", '${name == ""}'),
        release_scenarios.wrong_argument,
    ),
    "a release without its jobs": (
        ('${not ("jobs" in released.body)}', '${version == ""}'),
        release_scenarios.broken_release,
    ),
    "a Cloud Run job without a limit": (
        ('                timeout: ${string(release.deadline_seconds) + "s"}\n', ""),
        platform_scenarios.on_cloud_run,
    ),
    "the wrong platform": (
        (
            'where.platform == "cloud_run"}\n            next: on_cloud_run',
            'where.platform == "cloudrun"}\n            next: on_cloud_run',
        ),
        platform_scenarios.on_cloud_run,
    ),
    "the platform of the release not heard": (
        ('default(map.get(release, "platform"), "dataproc"))}', '"dataproc")}'),
        platform_scenarios.platform_of_the_release,
    ),
    "a platform of the release that nobody knows": (
        ("${not (platform in platforms)}", '${platform == ""}'),
        platform_scenarios.platform_of_the_release,
    ),
    "a Cloud Run job with a batch's id": (
        ('${"cloud-run-" + where.batch}', "${where.batch}"),
        platform_scenarios.on_cloud_run,
    ),
    "cancelled on Cloud Run taken for a success": (
        (
            (
                '          - condition: ${default(map.get(found, "cancelledCount"), 0) > 0}\n      '
                "      next: ended_early\n"
            ),
            (
                '          - condition: ${default(map.get(found, "cancelledCount"), 0) > 0}\n      '
                "      next: well\n"
            ),
        ),
        platform_scenarios.deadline_on_cloud_run,
    ),
    "a validation of a dry run": (
        ('${wanted.dry_run or not ("validation_job" in release)}', "${false}"),
        validation_scenarios.validated,
    ),
    "a validation that the ledger can not find": (
        ('              env: [{name: BATCH_ID, value: "${where.batch}"}]\n', ""),
        validation_scenarios.validated,
    ),
    "a failed validation that no alert counts": (
        ("                  event: validation_failed\n", "                  event: batch_ended\n"),
        validation_scenarios.validation_failed,
    ),
    "a failed validation that fails the run": (
        (
            "            - failed:\n                return: ${failure}\n",
            "            - failed:\n                raise: ${failure}\n",
        ),
        validation_scenarios.validation_failed,
    ),
    "a short silence taken for the end": (
        (
            "                  - condition: ${passing}\n",
            '                  - condition: ${passing and found.state == ""}\n',
        ),
        batch_scenarios.long_silence,
    ),
}


def with_fault(change: Change) -> str:
    old, new = change
    assert PIPELINE.count(old) == 1, f"the workflow no longer has, or has more than once: {old!r}"
    return PIPELINE.replace(old, new)


@pytest.mark.parametrize("fault", SEEN_BY_RULES)
def test_a_rule_finds(fault: str) -> None:
    change, message = SEEN_BY_RULES[fault]
    faults = check_source(with_fault(change))
    assert any(message in entry for entry in faults), faults


@pytest.mark.parametrize("fault", SEEN_BY_SCENARIOS)
def test_a_scenario_finds(fault: str, tmp_path: Path) -> None:
    change, scenario = SEEN_BY_SCENARIOS[fault]
    source = with_fault(change)
    assert check_source(source) == [], "this fault is one for the rules"
    with pytest.raises(AssertionError):
        scenario(tmp_path, by_interpreter, source)
