"""Rules over a workflow's source. They find faults that Google reports only at deployment or when a
step runs: limits, wrong jumps, unknown functions, waiting inside an expression. Constructs that
emulators read differently, connectors, requests without a token and unused code are faults too.

Syntax: https://cloud.google.com/workflows/docs/reference/syntax. Limits:
https://cloud.google.com/workflows/quotas#resource_limits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from common.errors import ConfigurationError
from workflows.pipeline_lint.expressions import Call, Name, Node, parse_expression, parts
from workflows.pipeline_lint.functions import CALLS, FUNCTIONS
from workflows.pipeline_lint.program import load_program
from workflows.pipeline_lint.source import SourceMap, read_source
from workflows.pipeline_lint.walk import (
    ExpressionText,
    StepContext,
    as_list,
    as_map,
    expression_texts,
    steps_in,
)

# bytes, characters and numbers, by the page of limits
LARGEST_SOURCE = 128 * 1024
LONGEST_EXPRESSION = 400
MOST_ASSIGNMENTS = MOST_CONDITIONS = 50
MOST_PARAMETERS = 10

LIBRARIES = frozenset({name.partition(".")[0] for name in FUNCTIONS | CALLS})
"""First parts of function names, which a variable of that name would hide."""
WAITING = ("http.", "sys.sleep", "sys.log", "events.", "googleapis.")
"""Calls that are not allowed in an expression
(https://cloud.google.com/workflows/docs/reference/stdlib/overview).
"""


def check_source(source: str) -> list[str]:
    """Check a source.

    Returns:
        Faults `line N: step a of b: message`, in the order of the source.
    """
    faults = []
    size = len(source.encode())
    if size > LARGEST_SOURCE:
        faults.append(f"line 1: the source has {size} bytes; Google takes {LARGEST_SOURCE}")
    workflow, broken = read_source(source)
    if broken or workflow is None:
        # the rules need a readable source
        return faults + broken
    for rule in RULES:
        faults += rule(workflow)
    if not faults:
        # the parser finds the remaining faults, one at a time
        try:
            load_program(source)
        except ConfigurationError as error:
            return [str(error).removeprefix("workflow source, ")]
    return sorted(faults, key=lambda fault: int(fault.split(":")[0].removeprefix("line ")))


def _expressions(workflow: SourceMap) -> Iterator[tuple[StepContext, ExpressionText, Node]]:
    """Return every expression that parses; `_whole_values` reports the others."""
    for step, text_use in expression_texts(workflow):
        node = _parse(text_use.text)
        if node is not None:
            yield step, text_use, node


def _parse(text: str) -> Node | None:
    try:
        return parse_expression(text[2:-1] if text.startswith("${") else text)
    except ConfigurationError:
        return None


def _whole_values(workflow: SourceMap) -> Iterator[str]:
    for step, text_use in expression_texts(workflow):
        text = text_use.text
        if text_use.target:
            continue
        if not (text.startswith("${") and text.endswith("}") and text.count("${") == 1):
            yield step.fault(
                f"{text!r}: an expression is the whole value; join text inside it with +"
            )
            continue
        if len(text) > LONGEST_EXPRESSION:
            yield step.fault(
                f"an expression of {len(text)} characters; Google takes {LONGEST_EXPRESSION}"
            )
        try:
            parse_expression(text[2:-1])
        except ConfigurationError as error:
            yield step.fault(str(error))


def _allowed_functions(workflow: SourceMap) -> Iterator[str]:
    for step, _, node in _expressions(workflow):
        for call in (part for part in parts(node) if isinstance(part, Call)):
            if call.function.startswith(WAITING):
                yield step.fault(
                    f"{call.function} waits, and an expression can call nothing that waits;"
                    " make it a `call`"
                )
            elif call.function not in FUNCTIONS:
                yield step.fault(
                    f"{call.function}() is no function known here; known:"
                    f" {', '.join(sorted(FUNCTIONS))}"
                )


def _allowed_calls(workflow: SourceMap) -> Iterator[str]:
    for step in steps_in(workflow):
        name = step.body.get("call")
        if name is None or name in CALLS:
            continue
        if str(name).startswith("googleapis."):
            yield step.fault(
                f"{name} is a connector; there is none for Dataproc, and the others hide their"
                " requests: use http.*"
            )
        elif name not in workflow:
            yield step.fault(
                f"{name} is no subworkflow and no function known here; known:"
                f" {', '.join(sorted(CALLS))}"
            )
        else:
            yield from _arguments(step, workflow[name])


def _arguments(step: StepContext, called: Any) -> Iterator[str]:
    parameters = as_list(as_map(called).get("params"))
    required = {name for name in parameters if isinstance(name, str)}
    # a parameter with a default is a map of its name
    allowed = required.union(*(name for name in parameters if isinstance(name, dict)))
    arguments = set(as_map(step.body.get("args")))
    if arguments - allowed or required - arguments:
        yield step.fault(
            f"{step.body['call']} takes {', '.join(sorted(allowed)) or 'nothing'}, and gets"
            f" {', '.join(sorted(arguments)) or 'nothing'}"
        )


def _requests_with_token(workflow: SourceMap) -> Iterator[str]:
    for step in steps_in(workflow):
        if not str(step.body.get("call")).startswith("http."):
            continue
        arguments = as_map(step.body.get("args"))
        if as_map(arguments.get("auth")).get("type") != "OAuth2":
            yield step.fault("a request to Google without `auth: {type: OAuth2}` is answered 401")
        # https://cloud.google.com/dataproc-serverless/docs/reference/rest/v1/projects.locations.batches/create
        if {"batchId", "requestId"} & set(as_map(arguments.get("body"))):
            yield step.fault(
                "batchId and requestId belong into the query: the body is the batch alone"
            )


def _jumps(workflow: SourceMap) -> Iterator[str]:
    for step in steps_in(workflow):
        target = step.body.get("next")
        if target is not None and target not in {
            *step.reachable,
            "end",
            *(("break", "continue") if step.in_loop else ()),
        }:
            yield step.fault(f"next is {target!r}, which is no step that it can reach")


def _limits(workflow: SourceMap) -> Iterator[str]:
    for name, body in workflow.items():
        count = len(as_list(as_map(body).get("params")))
        if count > MOST_PARAMETERS:
            yield f"line {body.line}: {name} has {count} parameters; Google takes {MOST_PARAMETERS}"
    for step in steps_in(workflow):
        for key, most in (("assign", MOST_ASSIGNMENTS), ("switch", MOST_CONDITIONS)):
            if len(as_list(step.body.get(key))) > most:
                yield step.fault(f"{len(step.body[key])} elements of `{key}`; Google takes {most}")


def _names(workflow: SourceMap) -> Iterator[str]:
    """Check that step names are unique in a subworkflow and that no variable hides a function."""
    seen: set[tuple[str, str]] = set()
    for step in steps_in(workflow):
        if step.is_step and (step.subworkflow, step.name) in seen:
            yield step.fault("another step of this subworkflow has the same name")
        seen.add((step.subworkflow, step.name))
        for variable in sorted(step.assigned & LIBRARIES):
            yield step.fault(f"the variable {variable} has a name of the standard library")


def _variables(workflow: SourceMap) -> Iterator[str]:
    """Check that every name has a value in its scope. Whether the value comes before is left to
    tests.
    """
    for step, text_use, node in _expressions(workflow):
        names = set(workflow) if text_use.predicate else step.variables
        for name in sorted({part.name for part in parts(node) if isinstance(part, Name)} - names):
            yield step.fault(
                f"{name} is no subworkflow"
                if text_use.predicate
                else f"the variable {name} has no value here"
            )


def _used(workflow: SourceMap) -> Iterator[str]:
    if "main" not in workflow:
        yield f"line {workflow.line}: `main` is missing"
    called = {str(step.body.get("call")) for step in steps_in(workflow)}
    for _, text_use, node in _expressions(workflow):
        if text_use.predicate:
            called |= {part.name for part in parts(node) if isinstance(part, Name)}
    for name, body in workflow.items():
        if name != "main" and name not in called:
            yield f"line {getattr(body, 'line', 1)}: nothing calls the subworkflow {name}"


RULES: tuple[Callable[[SourceMap], Iterator[str]], ...] = (
    _whole_values,
    _allowed_functions,
    _allowed_calls,
    _requests_with_token,
    _jumps,
    _limits,
    _names,
    _variables,
    _used,
)
