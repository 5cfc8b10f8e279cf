"""Parses a workflow's source into a program: frozen steps, parsed expressions, checked jumps.
Rejects constructs outside of the supported subset, with their line.

Syntax: https://cloud.google.com/workflows/docs/reference/syntax
"""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import lru_cache
from typing import Any

from common.errors import ConfigurationError
from workflows.pipeline_lint.errors import source_error
from workflows.pipeline_lint.expressions import (
    Literal,
    Member,
    Name,
    Node,
    dotted,
    parse_expression,
)
from workflows.pipeline_lint.source import SourceMap, load_source
from workflows.pipeline_lint.steps import (
    REQUIRED,
    Assign,
    Block,
    Branch,
    CallStep,
    Expression,
    For,
    Program,
    Raise,
    Retry,
    Return,
    Step,
    Steps,
    Subworkflow,
    Switch,
    Template,
    Try,
)

VARIABLE = re.compile(r"[A-Za-z_]\w*")
KINDS = ("assign", "call", "switch", "for", "try", "raise", "return", "steps")
MORE_KEYS = {"call": {"args", "result"}, "try": {"retry", "except"}}
WITHOUT_NEXT = ("raise", "return", "try", "for")
"""Kinds of steps without `next`. Google allows it for some, but the emulators disagree on when it
applies.
"""


@lru_cache(maxsize=8)
def load_program(source: str) -> Program:
    """Parse a source. The same source returns the same object, because a program never changes.

    Raises:
        ConfigurationError: The first fault, with its line.
    """
    workflow = load_source(source)
    program = {name: _subworkflow(name, body, workflow.line) for name, body in workflow.items()}
    if "main" not in program:
        raise source_error(workflow.line, "`main` is missing")
    if len(program["main"].parameters) > 1:
        raise source_error(
            program["main"].line, "`main` takes one parameter, the argument of the execution"
        )
    return program


def _subworkflow(name: str, body: Any, line: int) -> Subworkflow:
    body = _map(body, line, {"params", "steps"}, f"the subworkflow {name}")
    parameters: dict[str, Any] = {}
    for parameter in body.get("params", []):
        defaults = dict(parameter) if isinstance(parameter, SourceMap) else {parameter: REQUIRED}
        for key, default in defaults.items():
            if default is not REQUIRED and isinstance(template(default, body.line), Expression):
                raise source_error(body.line, f"the default of {key} is no plain value")
            parameters[_variable(key, body.line)] = default
    return Subworkflow(name, body.line, parameters, _steps(body.get("steps"), body.line, ()))


def _map(value: Any, line: int, keys: Collection[str], name: str) -> SourceMap:
    if not isinstance(value, SourceMap):
        raise source_error(line, f"{name} is no map")
    unknown = sorted(set(value) - set(keys))
    if unknown:
        raise source_error(
            value.line,
            f"{name} has {', '.join(unknown)}; here it may have {', '.join(sorted(keys))}",
        )
    return value


def _variable(name: Any, line: int) -> str:
    if not isinstance(name, str) or not VARIABLE.fullmatch(name):
        raise source_error(line, f"{name!r} is no name of a variable")
    return name


def template(value: Any, line: int) -> Template:
    """Parse the expressions of a value.

    Args:
        value: Value of the source.
        line: Its line.

    Raises:
        ConfigurationError: An expression is wrong.
    """
    if isinstance(value, dict):
        return {key: template(inner, getattr(value, "line", line)) for key, inner in value.items()}
    if isinstance(value, list):
        return [template(item, line) for item in value]
    if not isinstance(value, str) or "${" not in value:
        return value
    if not (value.startswith("${") and value.endswith("}") and value.count("${") == 1):
        raise source_error(
            line, f"{value!r}: an expression is the whole value; join text inside it with +"
        )
    try:
        return Expression(parse_expression(value[2:-1]), value)
    except ConfigurationError as error:
        raise source_error(line, str(error)) from None


def _steps(value: Any, line: int, outer: tuple[str, ...], *, loop: bool = False) -> Steps:
    """Parse a list of steps. `outer` has the names of enclosing steps, to which `next` may lead;
    only `break` leads out of a loop.
    """
    if not isinstance(value, list) or not value:
        raise source_error(line, "steps are a list with one step at least")
    items = []
    for item in value:
        if not isinstance(item, SourceMap) or len(item) != 1:
            raise source_error(
                getattr(item, "line", line), "a step is a map of its name to what it does"
            )
        items.append((next(iter(item)), item))
    names = [name for name, _ in items]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise source_error(line, f"two steps are named {', '.join(repeated)}")
    # only `break` leads out of a loop
    reachable = (*(() if loop else outer), *names, *(("break", "continue") if loop else ()))
    return tuple(_step(name, item[name], item.line, reachable) for name, item in items)


def _step(
    name: str, body: Any, line: int, reachable: tuple[str, ...], more: Collection[str] = ()
) -> Step:
    # a second kind is no allowed key of the first, and is rejected below
    kinds = [kind for kind in KINDS if isinstance(body, dict) and kind in body]
    kind = kinds[0] if kinds else None
    kind_keys = {kind} | MORE_KEYS.get(kind, set()) if kind else set()
    _map(
        body,
        line,
        {*kind_keys, *more, *(() if kind in WITHOUT_NEXT else ("next",))},
        f"the step {name}",
    )
    target = body.get("next")
    if target is not None and target != "end" and target not in reachable:
        raise source_error(
            line, f"the step {name} leads to {target!r}, and there is no such step here"
        )
    if kind is None and target is None:
        raise source_error(line, f"the step {name} does nothing")
    if kind == "switch" and target is not None:
        raise source_error(
            line,
            f"the step {name} is a switch with a `next` of its own; give each condition its own,"
            " and `true` as the last condition",
        )
    return Step(name, line, _action(kind, body, line, reachable) if kind else None, target)


def _action(kind: str, body: SourceMap, line: int, reachable: tuple[str, ...]) -> Any:
    match kind:
        case "assign":
            return _assign(body["assign"], line)
        case "call":
            return _call(body, line)
        case "switch":
            return Switch(
                tuple(
                    _branch(item, line, reachable) for item in _list(body["switch"], line, "switch")
                )
            )
        case "for":
            return _for(body["for"], line, reachable)
        case "try":
            return _try(body, line, reachable)
        case "steps":
            return Block(_steps(body["steps"], line, reachable))
        case "raise":
            return Raise(template(body["raise"], line))
        case _:
            return Return(template(body["return"], line))


def _list(value: Any, line: int, key: str) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise source_error(line, f"`{key}` is a list with one element at least")
    return value


def _assign(value: Any, line: int) -> Assign:
    pairs = []
    for item in _list(value, line, "assign"):
        if not isinstance(item, SourceMap) or len(item) != 1:
            raise source_error(
                getattr(item, "line", line), "an assignment is a map of one name to its value"
            )
        for target, value_template in item.items():
            pairs.append((_target(target, item.line), template(value_template, item.line)))
    return Assign(tuple(pairs))


def _target(text: str, line: int) -> Node:
    """Parse the target of an assignment: a variable, or a path such as m["a.b"].c or l[0]."""
    try:
        node = parse_expression(text)
    except ConfigurationError as error:
        raise source_error(line, str(error)) from None
    inner = node
    while isinstance(inner, Member) and isinstance(inner.key, Literal | Name | Member):
        inner = inner.of
    if not isinstance(inner, Name):
        raise source_error(line, f"{text!r} is nothing that can be assigned to")
    return node


def _call(body: SourceMap, line: int) -> CallStep:
    result = body.get("result")
    arguments = template(body.get("args", {}), line)
    if not isinstance(body["call"], str) or not isinstance(arguments, dict):
        raise source_error(line, "`call` is a name, and `args` a map")
    return CallStep(body["call"], arguments, None if result is None else _variable(result, line))


def _branch(item: Any, line: int, reachable: tuple[str, ...]) -> Branch:
    if not isinstance(item, SourceMap) or "condition" not in item:
        raise source_error(getattr(item, "line", line), "an element of a switch has a `condition`")
    condition = template(item["condition"], item.line)
    if condition is not True and not isinstance(condition, Expression):
        raise source_error(item.line, "a `condition` is an expression, or true")
    return Branch(condition, _step("(condition)", item, item.line, reachable, more=("condition",)))


def _for(body: Any, line: int, reachable: tuple[str, ...]) -> For:
    body = _map(body, line, {"value", "index", "in", "range", "steps"}, "`for`")
    if ("in" in body) == ("range" in body) or "value" not in body:
        raise source_error(body.line, "`for` has a `value`, and either `in` or `range`")
    index = body.get("index")
    items = template(body.get("in", body.get("range")), body.line)
    if (
        "range" in body
        and not isinstance(items, Expression)
        and not (isinstance(items, list) and len(items) == 2)
    ):
        raise source_error(body.line, "a `range` is a list of its first and its last number")
    steps = _steps(body.get("steps"), body.line, reachable, loop=True)
    return For(
        _variable(body["value"], body.line),
        None if index is None else _variable(index, body.line),
        items,
        "range" in body,
        steps,
    )


def _try(body: SourceMap, line: int, reachable: tuple[str, ...]) -> Try:
    inner = _map(body["try"], line, {*KINDS, "args", "result"}, "`try`")
    only_steps = set(inner) == {"steps"}
    steps = (
        _steps(inner["steps"], inner.line, reachable)
        if only_steps
        else (_step("(try)", inner, inner.line, reachable),)
    )
    if "retry" not in body and "except" not in body:
        raise source_error(line, "`try` has neither `retry` nor `except`")
    retry = _retry(body["retry"], line) if "retry" in body else None
    if "except" not in body:
        return Try(steps, retry, None, ())
    caught = _map(body["except"], line, {"as", "steps"}, "`except`")
    return Try(
        steps,
        retry,
        _variable(caught.get("as"), caught.line),
        _steps(caught.get("steps"), caught.line, reachable),
    )


def _retry(value: Any, line: int) -> Retry:
    body = _map(value, line, {"predicate", "max_retries", "backoff"}, "`retry`")
    predicate = template(body.get("predicate"), body.line)
    name = dotted(predicate.node) if isinstance(predicate, Expression) else None
    backoff = _map(
        body.get("backoff"), body.line, {"initial_delay", "max_delay", "multiplier"}, "`backoff`"
    )
    if name is None or "max_retries" not in body or len(backoff) != 3:
        raise source_error(
            body.line,
            "`retry` here has a `predicate` that is a subworkflow, `max_retries`, and a `backoff`"
            " of three numbers",
        )
    return Retry(name, template(body["max_retries"], body.line), template(backoff, body.line))
