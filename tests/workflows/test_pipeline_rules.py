"""Tests the rules for a workflow's source: pipeline.yaml has no fault, each rule finds its own, and
the command applies them.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from common.errors import ConfigurationError
from emulator.workflow_engine import VirtualClock, route_to
from emulator.workflow_engine.standard_library import call_functions, expression_functions
from tests.support.workflow_services import PIPELINE
from workflows.commands import check_commands
from workflows.pipeline_lint.functions import CALLS, FUNCTIONS
from workflows.pipeline_lint.rules import check_source

GOOD = """
main:
  params: [args]
  steps:
    - first:
        assign:
          - some: {a: 1}
          - some.b: ${args}
    - second:
        try:
          call: http.get
          args: {url: "https://storage.googleapis.com/x", auth: {type: OAuth2}}
          result: answer
        retry:
          predicate: ${again}
          max_retries: 2
          backoff: {initial_delay: 1, max_delay: 2, multiplier: 2}
        except:
          as: e
          steps:
            - look:
                switch:
                  - condition: ${e.code == 404}
                    next: third
            - pass_on:
                raise: ${e}
    - third:
        for:
          value: item
          in: [1, 2]
          steps:
            - inner:
                call: twice
                args: {of: "${item}"}
                result: doubled
            - stop:
                next: break
    - last:
        return: ${some}
again:
  params: [e]
  steps:
    - never:
        return: false
twice:
  params: [of, {by: 2}]
  steps:
    - compute:
        return: ${of * by}
"""


def test_the_pipeline_and_a_good_source_have_no_fault() -> None:
    assert check_source(PIPELINE) == []
    assert check_source(GOOD) == []


LONG = " + ".join(["1"] * 120)

FAULTS = {
    "an expression that is no expression": (
        "${of * by}",
        "${of *}",
        "line 48: step compute of twice: ${of *}: it ends too early",
    ),
    "text beside an expression": (
        "${of * by}",
        "a ${of} b",
        "step compute of twice: 'a ${of} b': an expression is the whole value",
    ),
    "a long expression": ("${of * by}", "${of + " + LONG + "}", "characters; Google takes 400"),
    "an unknown function": (
        "${of * by}",
        "${math.power(of, by)}",
        "math.power() is no function known here",
    ),
    "a call that waits": ("${of * by}", "${http.get(of)}", "http.get waits"),
    "an unknown call": (
        "call: twice",
        "call: thrice",
        "thrice is no subworkflow and no function known here",
    ),
    "a connector": ("call: twice", "call: googleapis.storage.v1.objects.get", "is a connector"),
    "an argument too many": (
        '{of: "${item}"}',
        '{of: "${item}", over: 1}',
        "twice takes by, of, and gets of, over",
    ),
    "an argument too few": ('{of: "${item}"}', "{by: 3}", "twice takes by, of, and gets by"),
    "no token": (", auth: {type: OAuth2}", "", "is answered 401"),
    "a token for others": ("OAuth2", "OIDC", "is answered 401"),
    "ids in the body": (
        "auth: {type: OAuth2}",
        "auth: {type: OAuth2}, body: {requestId: a}",
        "belong into the query",
    ),
    "a jump to nowhere": ("next: third", "next: fourth", "step look of main: next is 'fourth'"),
    "a jump out of a loop": ("next: break", "next: last", "step stop of main: next is 'last'"),
    "a break outside of a loop": ("next: third", "next: break", "next is 'break'"),
    "many assignments": (
        "          - some.b: ${args}\n",
        "          - some.b: ${args}\n" * 50,
        "51 elements of `assign`; Google takes 50",
    ),
    "many conditions": (
        "                  - condition: ${e.code == 404}\n                    next: third\n",
        "                  - condition: ${e.code == 404}\n                    next: third\n" * 51,
        "51 elements of `switch`; Google takes 50",
    ),
    "many parameters": (
        "[of, {by: 2}]",
        "[of, by, a, b, c, d, f, g, h, i, j]",
        "twice has 11 parameters; Google takes 10",
    ),
    "a step named twice": (
        "    - last:\n",
        "    - look:\n",
        "step look of main: another step of this subworkflow has the same name",
    ),
    "a variable named like a module": (
        "value: item",
        "value: text",
        "the variable text has a name of the standard library",
    ),
    "a variable without a value": (
        "${some}",
        "${same}",
        "step last of main: the variable same has no value here",
    ),
    "a path into a variable without a value": (
        "some.b",
        "same.b",
        "the variable same has no value here",
    ),
    "a variable of a loop after it": (
        "${some}",
        "${doubled}",
        "the variable doubled has no value here",
    ),
    "an error after its except": ("${some}", "${e}", "the variable e has no value here"),
    "a variable of another subworkflow": ("${some}", "${of}", "the variable of has no value here"),
    "a predicate that is none": (
        "${again}",
        "${http.default_retry_predicate}",
        "http is no subworkflow",
    ),
    "a subworkflow that no one calls": (
        "          predicate: ${again}\n",
        "          predicate: ${twice}\n",
        "line 41: nothing calls the subworkflow again",
    ),
    "a word that is a boolean": (
        "value: item",
        "value: no",
        "line 29: YAML 1.1 reads the plain word 'no' as bool",
    ),
    "a letter that is a boolean": (
        "value: item",
        "value: y",
        "YAML 1.1 reads the plain word 'y' as bool",
    ),
    "a key twice": (
        "          max_retries: 2\n",
        "          max_retries: 2\n          max_retries: 3\n",
        "duplicate key 'max_retries'",
    ),
    "what only the interpreter refuses": (
        "in: [1, 2]",
        "in: [1, 2]\n          range: [1, 2]",
        "either `in` or `range`",
    ),
    "no main": ("main:", "mine:", "`main` is missing"),
    "no map": (GOOD, "[1]", "a workflow is a map"),
    "a source too large": (GOOD, GOOD + "# " + "x" * 128 * 1024, "Google takes 131072"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_finds_a_fault(name: str) -> None:
    old, new, expected = FAULTS[name]
    assert GOOD.count(old) == 1
    actual = check_source(GOOD.replace(old, new))
    assert any(expected in fault for fault in actual), actual


def test_lists_all_faults_in_order() -> None:
    actual = check_source(
        GOOD.replace("call: twice", "call: thrice")
        .replace("${some}", "${same}")
        .replace("next: third", "next: nowhere")
    )
    assert [int(fault.split(":")[0].removeprefix("line ")) for fault in actual] == [23, 32, 38, 46]
    odd = (
        "main: {steps: [{a: {for: 3}}, 5, {b: 7}, {c: {switch: 4}}, {d: {assign: 4}}, {f: {call: 5,"
        " args: 6}}, {g: {try: 7}}]}\nx: 3"
    )
    assert check_source(odd) == [
        "line 1: step f of main: 5 is no subworkflow and no function known here; known: " + KNOWN,
        NOT_CALLED,
    ]


KNOWN = "http.delete, http.get, http.post, sys.log, sys.sleep"
NOT_CALLED = "line 1: nothing calls the subworkflow x"


def test_the_command_ends_with_2_where_there_are_faults(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check_commands.check(as_json=True)
    assert json.loads(capsys.readouterr().out) == {
        "source": str(check_commands.PIPELINE),
        "faults": [],
    }
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(GOOD.replace("next: third", "next: nowhere"), encoding="utf-8")
    with pytest.raises(
        ConfigurationError, match=r"wrong\.yaml: line 23: step look of main: next is 'nowhere'"
    ) as caught:
        check_commands.check(wrong)
    assert caught.value.exit_code == 2


def test_the_rules_and_the_engine_have_the_same_functions() -> None:
    assert frozenset(expression_functions({}, VirtualClock())) == FUNCTIONS
    assert frozenset(call_functions(route_to(""), VirtualClock(), print)) == CALLS
