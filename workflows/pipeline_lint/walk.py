"""All steps of a workflow's source, wherever they stand, each with what can be seen from there. For
`pipeline_rules`; judges nothing.

In: the document as `read_source` gives it, of any shape. Out: places and the expressions that stand
in them. A condition of a `switch` and the one action of a `try` count as steps that have their
step's name.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from workflows.pipeline_lint.program import VARIABLE
from workflows.pipeline_lint.source import SourceMap


@dataclass(frozen=True)
class Place:
    """A step. `variables` are all names that its scope gives a value somewhere."""

    subworkflow: str
    name: str
    line: int
    body: SourceMap
    reachable: frozenset[str]
    in_loop: bool
    variables: frozenset[str]
    is_step: bool = True

    @property
    def made(self) -> frozenset[str]:
        """Names that the step itself gives a value, those of its own loop or `except` too."""
        inner = (
            *_words(as_map(self.body.get("for")), "value", "index"),
            *_words(as_map(self.body.get("except")), "as"),
        )
        return frozenset({*_made_here(self.body), *inner})

    def fault(self, message: str) -> str:
        return f"line {self.line}: step {self.name} of {self.subworkflow}: {message}"


@dataclass(frozen=True)
class Reading:
    """A text with an expression in it. Target: what is assigned to, without brackets. Predicate: it
    names a subworkflow.
    """

    text: str
    target: bool = False
    predicate: bool = False


def steps_in(document: SourceMap) -> Iterator[Place]:
    """Every step of every subworkflow, in the order of the source."""
    for name, body in document.items():
        if isinstance(body, SourceMap):
            parameters = [
                key
                for parameter in as_list(body.get("params"))
                for key in (parameter if isinstance(parameter, dict) else [parameter])
            ]
            seen = frozenset({*parameters, *_made(body.get("steps"))})
            yield from _steps(
                body.get("steps"), Place(name, "", body.line, body, frozenset(), False, seen)
            )


def readings(document: SourceMap) -> Iterator[tuple[Place, Reading]]:
    """Every text with `${`, and every target of an assignment, with the step in which it stands."""
    for place in steps_in(document):
        body = place.body
        for pair in _pairs(body):
            yield from ((place, Reading(target, target=True)) for target in pair)
        retry = body.get("retry")
        predicate = retry.get("predicate") if isinstance(retry, dict) else retry
        loop = as_map(body.get("for"))
        own = [pair[target] for pair in _pairs(body) for target in pair]
        own += [body.get(key) for key in ("args", "raise", "return", "condition")] + [
            loop.get("in"),
            loop.get("range"),
        ]
        own += (
            [value for key, value in retry.items() if key != "predicate"]
            if isinstance(retry, dict)
            else []
        )
        yield from ((place, Reading(text)) for text in _texts(own))
        yield from ((place, Reading(text, predicate=True)) for text in _texts(predicate))


def _steps(
    steps: Any, around: Place, *, loop: bool = False, scope: frozenset[str] | None = None
) -> Iterator[Place]:
    """Args: loop says that the steps are a loop's, out of which no jump leads; scope are names that
    are known in them beside those around.
    """
    named = [
        (name, item.line, body)
        for item in as_list(steps)
        if isinstance(item, SourceMap)
        for name, body in item.items()
    ]
    reachable = frozenset(name for name, _, _ in named) | (
        frozenset() if loop else around.reachable
    )
    variables = around.variables | (scope or frozenset())
    for name, line, body in named:
        if isinstance(body, SourceMap):
            yield from _inside(
                Place(
                    around.subworkflow,
                    name,
                    line,
                    body,
                    reachable,
                    loop or around.in_loop,
                    variables,
                )
            )


def _inside(place: Place) -> Iterator[Place]:
    """The place itself, then what stands in it."""
    yield place
    body = place.body
    for item in as_list(body.get("switch")):
        if isinstance(item, SourceMap):
            yield from _inside(_part(place, item))
    if isinstance(body.get("try"), SourceMap):
        yield from _inside(_part(place, body["try"]))
    if "steps" in body:
        yield from _steps(body["steps"], place)
    loop, caught = body.get("for"), body.get("except")
    if isinstance(loop, SourceMap):
        yield from _steps(
            loop.get("steps"),
            place,
            loop=True,
            scope=frozenset({*_words(loop, "value", "index"), *_made(loop.get("steps"))}),
        )
    if isinstance(caught, SourceMap):
        yield from _steps(
            caught.get("steps"),
            place,
            scope=frozenset({*_words(caught, "as"), *_made(caught.get("steps"))}),
        )


def _part(place: Place, body: SourceMap) -> Place:
    return Place(
        place.subworkflow,
        place.name,
        body.line,
        body,
        place.reachable,
        place.in_loop,
        place.variables,
        is_step=False,
    )


def _made(steps: Any) -> Iterator[str]:
    """Variables that these steps make in their own scope: those of a loop and of an `except` are
    its own.
    """
    for item in as_list(steps):
        for body in item.values() if isinstance(item, SourceMap) else ():
            if isinstance(body, SourceMap):
                yield from _made_by(body)


def _made_by(body: SourceMap) -> Iterator[str]:
    yield from _made_here(body)
    for part in (*as_list(body.get("switch")), body.get("try")):
        if isinstance(part, SourceMap):
            yield from _made_by(part)
    yield from _made(body.get("steps"))


def _made_here(body: SourceMap) -> Iterator[str]:
    yield from (target for pair in _pairs(body) for target in pair if VARIABLE.fullmatch(target))
    yield from _words(body, "result")


def _pairs(body: SourceMap) -> list[SourceMap]:
    return [pair for pair in as_list(body.get("assign")) if isinstance(pair, SourceMap)]


def _words(body: dict[str, Any], *keys: str) -> Iterator[str]:
    yield from (body[key] for key in keys if isinstance(body.get(key), str))


def as_list(value: Any) -> list[Any]:
    """The value, or an empty list where something else stands."""
    return value if isinstance(value, list) else []


def as_map(value: Any) -> dict[str, Any]:
    """The value, or an empty map where something else stands."""
    return value if isinstance(value, dict) else {}


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str) and "${" in value:
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _texts(inner)
