"""Visits all steps of a workflow's source, of any shape, with their scope. A condition of a
`switch` and the single action of a `try` count as steps with the name of their step.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from workflows.pipeline_lint.program import VARIABLE
from workflows.pipeline_lint.source import SourceMap


@dataclass(frozen=True)
class StepContext:
    """A step and its scope. `variables` are all names that the scope assigns anywhere."""

    subworkflow: str
    name: str
    line: int
    body: SourceMap
    reachable: frozenset[str]
    in_loop: bool
    variables: frozenset[str]
    is_step: bool = True

    @property
    def assigned(self) -> frozenset[str]:
        """Return the names that the step itself assigns, with those of its loop or `except`."""
        inner = (
            *_strings_at(as_map(self.body.get("for")), "value", "index"),
            *_strings_at(as_map(self.body.get("except")), "as"),
        )
        return frozenset({*_assigned_here(self.body), *inner})

    def fault(self, message: str) -> str:
        """Return a message about the step, with its line and name."""
        return f"line {self.line}: step {self.name} of {self.subworkflow}: {message}"


@dataclass(frozen=True)
class ExpressionText:
    """A text with an expression.

    Attributes:
        text: The text.
        target: It is the target of an assignment, without brackets.
        predicate: It names a subworkflow.
    """

    text: str
    target: bool = False
    predicate: bool = False


def steps_in(workflow: SourceMap) -> Iterator[StepContext]:
    """Return every step of every subworkflow, in the order of the source."""
    for name, body in workflow.items():
        if isinstance(body, SourceMap):
            parameters: list[str] = []
            for parameter in as_list(body.get("params")):
                # a parameter with a default is a map of its name
                parameters += parameter if isinstance(parameter, dict) else [parameter]
            variables = frozenset({*parameters, *_assigned_in(body.get("steps"))})
            subworkflow = StepContext(name, "", body.line, body, frozenset(), False, variables)
            yield from _steps(body.get("steps"), subworkflow)


def expression_texts(workflow: SourceMap) -> Iterator[tuple[StepContext, ExpressionText]]:
    """Return every text with `${` and every target of an assignment, with its step."""
    for step in steps_in(workflow):
        body = step.body
        for pair in _pairs(body):
            yield from ((step, ExpressionText(target, target=True)) for target in pair)
        retry = body.get("retry")
        predicate = retry.get("predicate") if isinstance(retry, dict) else retry
        loop = as_map(body.get("for"))
        values = [body.get(key) for key in ("args", "raise", "return", "condition")]
        values = [*_assigned_values(body), *values, loop.get("in"), loop.get("range")]
        if isinstance(retry, dict):
            values += [value for key, value in retry.items() if key != "predicate"]
        yield from ((step, ExpressionText(text)) for text in _strings_with_expressions(values))
        yield from (
            (step, ExpressionText(text, predicate=True))
            for text in _strings_with_expressions(predicate)
        )


def _steps(
    steps: Any, around: StepContext, *, loop: bool = False, scope: frozenset[str] | None = None
) -> Iterator[StepContext]:
    """Return the steps of a list. `loop` marks a loop's steps, out of which no jump leads; `scope`
    adds names to those of `around`.
    """
    items = []
    for item in as_list(steps):
        if isinstance(item, SourceMap):
            items += [(name, item.line, body) for name, body in item.items()]
    # `next` leads to a step of the same list or of an enclosing one
    reachable = frozenset(name for name, _, _ in items) | (
        frozenset() if loop else around.reachable
    )
    variables = around.variables | (scope or frozenset())
    for name, line, body in items:
        if isinstance(body, SourceMap):
            yield from _inside(
                StepContext(
                    around.subworkflow,
                    name,
                    line,
                    body,
                    reachable,
                    loop or around.in_loop,
                    variables,
                )
            )


def _inside(step: StepContext) -> Iterator[StepContext]:
    """Return the step, then the steps inside it."""
    yield step
    body = step.body
    for item in as_list(body.get("switch")):
        if isinstance(item, SourceMap):
            yield from _inside(_part(step, item))
    if isinstance(body.get("try"), SourceMap):
        yield from _inside(_part(step, body["try"]))
    if "steps" in body:
        yield from _steps(body["steps"], step)
    loop, handler = body.get("for"), body.get("except")
    # variables of a loop and of an `except` end with it
    if isinstance(loop, SourceMap):
        steps = loop.get("steps")
        scope = frozenset({*_strings_at(loop, "value", "index"), *_assigned_in(steps)})
        yield from _steps(steps, step, loop=True, scope=scope)
    if isinstance(handler, SourceMap):
        steps = handler.get("steps")
        scope = frozenset({*_strings_at(handler, "as"), *_assigned_in(steps)})
        yield from _steps(steps, step, scope=scope)


def _part(step: StepContext, body: SourceMap) -> StepContext:
    return StepContext(
        step.subworkflow,
        step.name,
        body.line,
        body,
        step.reachable,
        step.in_loop,
        step.variables,
        is_step=False,
    )


def _assigned_in(steps: Any) -> Iterator[str]:
    """Return the variables that these steps assign in their own scope, without those of loops and
    `except`.
    """
    for item in as_list(steps):
        for body in item.values() if isinstance(item, SourceMap) else ():
            if isinstance(body, SourceMap):
                yield from _assigned_by(body)


def _assigned_by(body: SourceMap) -> Iterator[str]:
    yield from _assigned_here(body)
    for part in (*as_list(body.get("switch")), body.get("try")):
        if isinstance(part, SourceMap):
            yield from _assigned_by(part)
    yield from _assigned_in(body.get("steps"))


def _assigned_here(body: SourceMap) -> Iterator[str]:
    for pair in _pairs(body):
        yield from (target for target in pair if VARIABLE.fullmatch(target))
    yield from _strings_at(body, "result")


def _assigned_values(body: SourceMap) -> Iterator[Any]:
    for pair in _pairs(body):
        yield from pair.values()


def _pairs(body: SourceMap) -> list[SourceMap]:
    return [pair for pair in as_list(body.get("assign")) if isinstance(pair, SourceMap)]


def _strings_at(body: dict[str, Any], *keys: str) -> Iterator[str]:
    yield from (body[key] for key in keys if isinstance(body.get(key), str))


def as_list(value: Any) -> list[Any]:
    """Return the value, or an empty list for another type."""
    return value if isinstance(value, list) else []


def as_map(value: Any) -> dict[str, Any]:
    """Return the value, or an empty map for another type."""
    return value if isinstance(value, dict) else {}


def _strings_with_expressions(value: Any) -> Iterator[str]:
    if isinstance(value, str) and "${" in value:
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _strings_with_expressions(inner)
