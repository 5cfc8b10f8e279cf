"""What can be wrong with a workflow and seen in its source: Google finds it when it deploys, or not
before a step runs at night.

In: the source. Out: every fault, with line and step. Beside what Google refuses (limits, jumps to
nowhere, unknown functions, waiting inside an expression) it is a fault to use what its emulators
read otherwise, a connector, a request to Google without its token, and code that nothing calls.
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
from workflows.pipeline_lint.walk import Place, Reading, as_list, as_map, readings, steps_in

LARGEST_SOURCE = 128 * 1024
LONGEST_EXPRESSION = 400
MOST_ASSIGNMENTS = MOST_CONDITIONS = 50
MOST_PARAMETERS = 10

LIBRARIES = frozenset({name.partition(".")[0] for name in FUNCTIONS | CALLS})
"""First words of functions: a variable of that name would stand in their light."""
WAITING = ("http.", "sys.sleep", "sys.log", "events.", "googleapis.")
"""Calls that can't stand in an expression
(https://cloud.google.com/workflows/docs/reference/stdlib/overview).
"""


def check_source(source: str) -> list[str]:
    """Every fault, `line N: step a of b: what`, in the order of the source; none is an
    empty list.
    """
    faults = []
    size = len(source.encode())
    if size > LARGEST_SOURCE:
        faults.append(f"line 1: the source has {size} bytes; Google takes {LARGEST_SOURCE}")
    document, broken = read_source(source)
    if broken or document is None:
        return faults + broken
    faults += [fault for rule in RULES for fault in rule(document)]
    if not faults:  # what is left is for the interpreter to refuse, one thing at a time
        try:
            load_program(source)
        except ConfigurationError as error:
            return [str(error).removeprefix("workflow source, ")]
    return sorted(faults, key=lambda fault: int(fault.split(":")[0].removeprefix("line ")))


def _expressions(document: SourceMap) -> Iterator[tuple[Place, Reading, Node]]:
    """All that can be parsed; the rest is for `_whole_values`."""
    for place, reading in readings(document):
        node = _parsed(reading.text)
        if node is not None:
            yield place, reading, node


def _parsed(text: str) -> Node | None:
    try:
        return parse_expression(text[2:-1] if text.startswith("${") else text)
    except ConfigurationError:
        return None


def _whole_values(document: SourceMap) -> Iterator[str]:
    for place, reading in readings(document):
        text = reading.text
        if reading.target:
            continue
        if not (text.startswith("${") and text.endswith("}") and text.count("${") == 1):
            yield place.fault(
                f"{text!r}: an expression is the whole value; join text inside it with +"
            )
            continue
        if len(text) > LONGEST_EXPRESSION:
            yield place.fault(
                f"an expression of {len(text)} characters; Google takes {LONGEST_EXPRESSION}"
            )
        try:
            parse_expression(text[2:-1])
        except ConfigurationError as error:
            yield place.fault(str(error))


def _known_functions(document: SourceMap) -> Iterator[str]:
    for place, _, node in _expressions(document):
        for call in (part for part in parts(node) if isinstance(part, Call)):
            if call.function.startswith(WAITING):
                yield place.fault(
                    f"{call.function} waits, and nothing that waits can stand in an expression;"
                    " make it a `call`"
                )
            elif call.function not in FUNCTIONS:
                yield place.fault(
                    f"{call.function}() is no function known here; known:"
                    f" {', '.join(sorted(FUNCTIONS))}"
                )


def _known_calls(document: SourceMap) -> Iterator[str]:
    for place in steps_in(document):
        name = place.body.get("call")
        if name is None or name in CALLS:
            continue
        if str(name).startswith("googleapis."):
            yield place.fault(
                f"{name} is a connector; there is none for Dataproc, and the others hide their"
                " requests: use http.*"
            )
        elif name not in document:
            yield place.fault(
                f"{name} is no subworkflow and no function known here; known:"
                f" {', '.join(sorted(CALLS))}"
            )
        else:
            yield from _arguments(place, document[name])


def _arguments(place: Place, called: Any) -> Iterator[str]:
    parameters = as_list(as_map(called).get("params"))
    required = {name for name in parameters if isinstance(name, str)}
    known = required | {
        name for parameter in parameters if isinstance(parameter, dict) for name in parameter
    }
    given = set(as_map(place.body.get("args")))
    if given - known or required - given:
        yield place.fault(
            f"{place.body['call']} takes {', '.join(sorted(known)) or 'nothing'}, and gets"
            f" {', '.join(sorted(given)) or 'nothing'}"
        )


def _requests_with_token(document: SourceMap) -> Iterator[str]:
    for place in steps_in(document):
        if not str(place.body.get("call")).startswith("http."):
            continue
        arguments = as_map(place.body.get("args"))
        if as_map(arguments.get("auth")).get("type") != "OAuth2":
            yield place.fault("a request to Google without `auth: {type: OAuth2}` is answered 401")
        if {"batchId", "requestId"} & set(as_map(arguments.get("body"))):
            yield place.fault(
                "batchId and requestId belong into the query: the body is the batch alone"
            )


def _jumps(document: SourceMap) -> Iterator[str]:
    for place in steps_in(document):
        target = place.body.get("next")
        if target is not None and target not in {
            *place.reachable,
            "end",
            *(("break", "continue") if place.in_loop else ()),
        }:
            yield place.fault(f"next is {target!r}, and there is no such step that it could go to")


def _limits(document: SourceMap) -> Iterator[str]:
    for name, body in document.items():
        count = len(as_list(as_map(body).get("params")))
        if count > MOST_PARAMETERS:
            yield f"line {body.line}: {name} has {count} parameters; Google takes {MOST_PARAMETERS}"
    for place in steps_in(document):
        for key, most in (("assign", MOST_ASSIGNMENTS), ("switch", MOST_CONDITIONS)):
            if len(as_list(place.body.get(key))) > most:
                yield place.fault(
                    f"{len(place.body[key])} elements of `{key}`; Google takes {most}"
                )


def _names(document: SourceMap) -> Iterator[str]:
    """Steps are named once in a subworkflow, and variables unlike functions."""
    seen: set[tuple[str, str]] = set()
    for place in steps_in(document):
        if place.is_step and (place.subworkflow, place.name) in seen:
            yield place.fault("another step of this subworkflow has the same name")
        seen.add((place.subworkflow, place.name))
        for variable in sorted(place.made & LIBRARIES):
            yield place.fault(f"the variable {variable} has a name of the standard library")


def _variables(document: SourceMap) -> Iterator[str]:
    """Names that nothing in their scope gives a value; whether that came before is for the
    tests.
    """
    for place, reading, node in _expressions(document):
        known = set(document) if reading.predicate else place.variables
        for name in sorted({part.name for part in parts(node) if isinstance(part, Name)} - known):
            yield place.fault(
                f"{name} is no subworkflow"
                if reading.predicate
                else f"the variable {name} has no value here"
            )


def _used(document: SourceMap) -> Iterator[str]:
    if "main" not in document:
        yield f"line {document.line}: `main` is missing"
    called = {str(place.body.get("call")) for place in steps_in(document)}
    called |= {
        part.name
        for _, reading, node in _expressions(document)
        if reading.predicate
        for part in parts(node)
        if isinstance(part, Name)
    }
    for name, body in document.items():
        if name != "main" and name not in called:
            yield f"line {getattr(body, 'line', 1)}: nothing calls the subworkflow {name}"


RULES: tuple[Callable[[SourceMap], Iterator[str]], ...] = (
    _whole_values,
    _known_functions,
    _known_calls,
    _requests_with_token,
    _jumps,
    _limits,
    _names,
    _variables,
    _used,
)
