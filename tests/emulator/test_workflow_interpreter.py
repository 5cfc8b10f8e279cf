"""Tests the interpreter of Cloud Workflows: Google's precedence and types, scopes, jumps, errors,
and the constructs it rejects, with their line.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from common.errors import ConfigurationError
from emulator.workflow_engine import RealClock, VirtualClock, WorkflowFailed
from tests.support.small_workflows import run


def value_of(expression: str) -> Any:
    steps = [
        {
            "init": {
                "assign": [
                    {"m": {"a.b": {"c": 7}, "n": None}},
                    {"l": [1, 2.5, "three"]},
                    {"yes_": True},
                    {"text_": "a b/c"},
                ]
            }
        },
        {"out": {"return": f"${{{expression}}}"}},
    ]
    return run(json.dumps({"main": {"steps": steps}}))


VALUES = [
    ("1 + 2 * 3", 7),
    ("(1 + 2) * 3", 9),
    ("7 // 2 + 7 % 2", 4),
    ("7 / 2", 3.5),
    ("10 - 2 - 3", 5),
    ("-2 * -3", 6),
    ("-m['a.b'].c + 1", -6),
    ("1 + 0.5", 1.5),
    ('"a" + "b"', "ab"),
    (r'"say \"x\" \\ \n"', 'say "x" \\ \n'),
    ("l[0] < l[1] and l[2] == 'three'", True),
    ("not (1 > 2) or false", True),
    ("not yes_ and yes_", False),
    ('"a.b" in m', True),
    ("2 in [1, 2]", True),
    ("m.n == null", True),
    ("m.n != 5", True),
    ("1 == 1.0", True),
    ('default(map.get(m, "missing"), 3)', 3),
    ("default(false, true)", False),
    ('map.get(m, ["a.b", "c"])', 7),
    ('map.get(m.n, "x")', None),
    ("keys(m)", ["a.b", "n"]),
    ("len(l) + len(m) + len(text_)", 10),
    ("string(5) + string(2.5) + string(true)", "52.5true"),
    ('int("12") + int(3.9)', 15),
    ("list.concat(l, 4)", [1, 2.5, "three", 4]),
    ("json.encode_to_string(l)", '[1,2.5,"three"]'),
    ('json.decode("[1]")', [1]),
    ("math.min(3, 2.5)", 2.5),
    ('text.match_regex("2025-01-31", "^[0-9-]+$")', True),
    ("text.url_encode(text_)", "a%20b%2Fc"),
    ('text.replace_all(text_, " ", "_")', "a_b/c"),
    ('text.split(text_, " ")', ["a", "b/c"]),
    ('sys.get_env("GOOGLE_CLOUD_PROJECT_ID") + sys.get_env("X", "none")', "projectnone"),
    ("sys.now()", 1000.0),
    ("time.format(0)", "1970-01-01T00:00:00.000000Z"),
]


@pytest.mark.parametrize(
    ("expression", "expected"), VALUES, ids=[expression for expression, _ in VALUES]
)
def test_expression(expression: str, expected: Any) -> None:
    actual = value_of(expression)
    assert actual == expected
    assert type(actual) is type(expected)


@pytest.mark.parametrize(
    ("expression", "tag"),
    [
        ('"a" + 1', "TypeError"),
        ('1 == "1"', "TypeError"),
        ("1 == true", "TypeError"),
        ('"a" < 1', "TypeError"),
        ("1 and true", "TypeError"),
        ("false and 1", "TypeError"),
        ("not 1", "TypeError"),
        ('-"a"', "TypeError"),
        ('"a" in "abc"', "TypeError"),
        ("m.n.x", "TypeError"),
        ("l.x", "TypeError"),
        ("m.missing", "KeyError"),
        ('sys.get_env("MISSING")', "KeyError"),
        ("l[3]", "IndexError"),
        ("l[-1]", "IndexError"),
        ("1 / 0", "ZeroDivisionError"),
        ("1 // 0", "ZeroDivisionError"),
        ("len(1)", "TypeError"),
        ("len()", "TypeError"),
        ('math.min(1, "a")', "TypeError"),
        ('int("x")', "ValueError"),
        ('json.decode("{")', "ValueError"),
        ("map.get(m, 1)", "TypeError"),
    ],
)
def test_wrong_types_and_missing_things_are_errors_of_the_workflow(
    expression: str, tag: str
) -> None:
    with pytest.raises(WorkflowFailed) as caught:
        value_of(expression)
    assert caught.value.payload["tags"] == [tag]
    assert "out, line 1" in str(caught.value)


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("not 1 in l", "read in two ways"),
        ("1 < 2 < 3", "don't chain"),
        ("1 not in l", "'not'"),
        ("{}", "'\\{'"),
        ("1 +", "ends too early"),
        ("(1", "'\\)' is missing"),
        ("l[0", "'\\]' is missing"),
        ("m.", "a name is missing"),
        ("1 2", "'2' is unexpected"),
        ("a & b", "'&'"),
        (r'"\d"', "escape"),
        ("l[0](1)", "only a named function"),
        ('text.split("a b", " ")[0]', r"the result of text.split\(\) is assigned to a variable"),
        ("f(1).x", r"the result of f\(\) is assigned to a variable"),
        ("unknown", "'unknown' is read before it has a value"),
        ("http.get(1)", "http.get\\(\\) is no function"),
        ("True", "'True' is read before"),
    ],
)
def test_rejects_ambiguous_expressions(expression: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        value_of(expression)


BACKOFF = "{initial_delay: 1, max_delay: 2, multiplier: 2}"
GOOD = "main:\n  steps:\n    - one:\n        return: 1\n"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("- a", "line 1: a workflow is a map"),
        ("a: [", "no YAML"),
        ("other:\n  steps: []", "line 2: steps are a list|line 1: steps are a list"),
        (GOOD.replace("main", "other"), "`main` is missing"),
        (GOOD + GOOD, "line 5: duplicate key 'main'"),
        (GOOD.replace("1", "yes"), "line 4: YAML 1.1 reads the plain word 'yes' as bool"),
        (GOOD.replace("1", "012"), "line 4: YAML 1.1 reads the plain word '012' as int"),
        (GOOD.replace("1", "1:30"), "as int"),
        (GOOD.replace("1", "2025-01-01"), "as timestamp"),
        (GOOD.replace("1", "1_0"), "as int"),
        (GOOD.replace("1", "1e3"), None),
        (GOOD.replace("return", "on"), "line 4: YAML 1.1 reads the plain word 'on' as bool"),
        (GOOD.replace("1", "&a 1"), "line 4: anchors"),
        (GOOD.replace("1", "!!str 1"), None),
        (
            GOOD.replace("1", "a ${b} c"),
            "line 3: 'a \\$\\{b\\} c': an expression is the whole value",
        ),
        (GOOD.replace("1", "${b}${c}"), "whole value"),
        (GOOD.replace("return: 1", "parallel: 1"), "line 4: the step one has parallel"),
        (
            GOOD.replace("return: 1", "assign: [{a: 1}]\n        return: 1"),
            "line 4: the step one has return",
        ),
        (GOOD.replace("return: 1", "return: 1\n        next: one"), "the step one has next"),
        (GOOD.replace("return: 1", "next: two"), "leads to 'two'"),
        (GOOD.replace("return: 1", "next: break"), "leads to 'break'"),
        (GOOD.replace("return: 1", "assign: []"), "`assign` is a list with one element"),
        (GOOD.replace("return: 1", "assign: [{f(1): 1}]"), "nothing that can be assigned to"),
        (GOOD.replace("return: 1", "assign: [{'a b': 1}]"), "'b' is unexpected"),
        (GOOD.replace("return: 1", "assign: [{a: 1, b: 1}]"), "one name"),
        (GOOD.replace("return: 1", "call: f\n        result: a.b"), "no name of a variable"),
        (GOOD.replace("return: 1", "call: [f]"), "`call` is a name"),
        (GOOD.replace("return: 1", "switch: [{next: end}]"), "has a `condition`"),
        (
            GOOD.replace("return: 1", "switch: [{condition: 'true', next: end}]"),
            "a `condition` is an expression",
        ),
        (
            GOOD.replace("return: 1", "switch: [{condition: true, next: end}]\n        next: end"),
            "a `next` of its own",
        ),
        (
            GOOD.replace("return: 1", "for: {value: a, steps: [{s: {return: 1}}]}"),
            "either `in` or `range`",
        ),
        (
            GOOD.replace("return: 1", "for: {value: a, range: [1], steps: [{s: {return: 1}}]}"),
            "its first and its last",
        ),
        (
            GOOD.replace("return: 1", "for: {value: a, in: [1], steps: [{s: {next: one}}]}"),
            "leads to 'one'",
        ),
        (GOOD.replace("return: 1", "try: {call: f}"), "neither `retry` nor `except`"),
        (
            GOOD.replace("return: 1", "try: {call: f}\n        retry: ${http.default_retry}"),
            "`retry` is no map",
        ),
        (
            GOOD.replace(
                "return: 1", "try: {call: f}\n        retry: {predicate: '${p}', max_retries: 1}"
            ),
            "`backoff` is no map",
        ),
        (
            GOOD.replace(
                "return: 1",
                f"try: {{call: f}}\n        retry: {{predicate: '${{p}}', backoff: {BACKOFF}}}",
            ),
            "`retry` here has a `predicate`",
        ),
        (
            GOOD.replace(
                "return: 1",
                "try: {call: f}\n        retry: {predicate: p, max_retries: 1, backoff:"
                f" {BACKOFF}}}",
            ),
            "a `predicate` that is a subworkflow",
        ),
        (GOOD.replace("  steps:", "  params: [a, b]\n  steps:"), "`main` takes one parameter"),
        (GOOD.replace("  steps:", "  params: [{a: '${b}'}]\n  steps:"), "no plain value"),
        (GOOD + "    - one:\n        return: 1\n", "two steps are named one"),
    ],
)
def test_a_source_outside_the_subset_is_refused_before_it_runs(
    source: str, message: str | None
) -> None:
    if message is None:
        assert run(source) in ("1e3", "1")
        return
    with pytest.raises(ConfigurationError, match=message):
        run(source)


JUMPS = """
main:
  params: [argument]
  steps:
    - begin:
        assign:
          - seen: []
          - m: {"a.b": {}}
          - m["a.b"].c: ${argument.first}
          - copied: ${m}
          - m["a.b"].c: changed
        next: loop
    - never:
        return: skipped
    - loop:
        for:
          value: number
          index: place
          range: [1, 9]
          steps:
            - look:
                switch:
                  - condition: ${number == 2}
                    next: continue
                  - condition: ${number > 3}
                    next: break
            - keep:
                call: pair
                args: {left: "${place}"}
                result: two
            - add:
                assign:
                  - seen: ${list.concat(seen, two)}
    - nested:
        steps:
          - through:
              for:
                value: word
                in: ["x"]
                steps:
                  - sure:
                      switch:
                        - condition: true
                          assign: [{m.last: "${word}"}]
          - out:
              next: finish
    - unreached:
        raise: never
    - finish:
        return: {"seen": "${seen}", "m": "${m}", "copied": "${copied}"}
pair:
  params: [left, {right: 5}]
  steps:
    - done:
        return: ["${left}", "${right}"]
"""


def test_steps_jump_loop_and_call() -> None:
    actual = run(JUMPS, {"first": 1})
    assert actual == {
        "seen": [[0, 5], [2, 5]],
        "m": {"a.b": {"c": "changed"}, "last": "x"},
        "copied": {"a.b": {"c": 1}},
    }


@pytest.mark.parametrize(
    "inside",
    [
        "for: {value: i, in: [1], steps: [{s: {assign: [{new: 1}]}}]}",
        "try: {raise: a}\n        except: {as: new, steps: [{s: {assign: [{x: 1}]}}]}",
    ],
)
def test_a_variable_of_a_loop_or_an_except_ends_with_it(inside: str) -> None:
    with pytest.raises(ConfigurationError, match="'new' is read before it has a value"):
        run(
            f"main:\n  steps:\n    - one:\n        {inside}\n    - two:\n        return: ${{new}}\n"
        )


def test_a_subworkflow_sees_its_parameters_alone_and_ends_at_twenty_levels() -> None:
    with pytest.raises(
        ConfigurationError, match="f\\(\\) is called with other parameters than it has: x, z"
    ):
        run(
            "main: {steps: [{a: {call: f, args: {x: 1}}}]}\nf: {params: [z], steps: [{a: {return:"
            " 1}}]}"
        )
    with pytest.raises(WorkflowFailed) as caught:
        run("main: {steps: [{a: {call: f}}]}\nf: {steps: [{a: {call: f}}]}")
    assert caught.value.payload["tags"] == ["RecursionError"]
    with pytest.raises(WorkflowFailed, match="more than 100000 steps"):
        run("main: {steps: [{a: {next: a}}]}")
    assert run("main: {steps: [{a: {next: end}}]}") is None


def test_what_is_raised_is_what_except_gets() -> None:
    source = """
        main:
          params: [what]
          steps:
            - risky:
                try:
                  steps:
                    - throw:
                        raise: ${what}
                except:
                  as: e
                  steps:
                    - known:
                        switch:
                          - condition: ${e.code == 5}
                            return: ${e}
                    - other:
                        raise: ${e}
        """
    assert run(source, {"code": 5, "more": [1]}) == {"code": 5, "more": [1]}
    with pytest.raises(WorkflowFailed) as caught:
        run(source, {"code": 6, "message": "six"})
    assert caught.value.payload == {"code": 6, "message": "six"}
    assert str(caught.value).startswith("six (in step other, line 17, of risky, line 5)")
    with pytest.raises(WorkflowFailed, match="`raise` takes a map or a string, not integer"):
        run("main: {steps: [{a: {raise: 1}}]}")


def test_log_entries_and_sleeps() -> None:
    log: list[Any] = []
    clock = VirtualClock(50.0)
    source = """
        main:
          steps:
            - say:
                call: sys.log
                args: {severity: INFO, json: {event: "${\\"be\\" + \\"gun\\"}"}}
            - rest:
                call: sys.sleep
                args: {seconds: 30}
            - word:
                call: sys.log
                args: {text: over}
            - done:
                return: ${sys.now()}
        """
    assert run(source, clock=clock, log=log) == 80.0
    assert log == [
        {"severity": "INFO", "jsonPayload": {"event": "begun"}},
        {"severity": "DEFAULT", "textPayload": "over"},
    ]
    with pytest.raises(WorkflowFailed, match=r"sys.log takes json or text"):
        run(source.replace("INFO", "LOUD"))


def test_a_real_clock_can_wait_less() -> None:
    clock = RealClock(factor=10_000)
    before = clock.now()
    clock.sleep(2_000)
    assert clock.now() - before < 2_000
