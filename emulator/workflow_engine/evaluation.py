"""Evaluates an expression with Google's types and no conversion. Errors are the workflow's, so that
`except` can catch them. Stricter than Google where its documentation is open or its emulators
differ: `+` joins text with text only, values of different types do not compare (except with null),
and `and` and `or` evaluate both sides.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

from common.errors import ConfigurationError
from emulator.workflow_engine.errors import engine_error
from workflows.pipeline_lint.expressions import (
    Binary,
    Call,
    ListOf,
    Literal,
    Member,
    Name,
    Node,
    Unary,
    shown,
)

Functions = Mapping[str, Callable[..., Any]]
Lookup = Callable[[str], Any]
ORDERINGS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
ARITHMETIC = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": operator.truediv,
    "//": operator.floordiv,
    "%": operator.mod,
}
TYPE_NAMES = {
    bool: "boolean",
    int: "integer",
    float: "double",
    str: "string",
    dict: "map",
    list: "list",
    type(None): "null",
    bytes: "bytes",
}


def type_name(value: Any) -> str:
    """Return Google's name of a value's type."""
    return TYPE_NAMES[type(value)]


def evaluate(node: Node, lookup: Lookup, functions: Functions) -> Any:
    """Evaluate an expression.

    Args:
        node: The expression.
        lookup: Returns a variable's value by its name.
        functions: Functions by name.

    Raises:
        Raised: The evaluation fails.
        ConfigurationError: A name is not defined.
    """

    def value_of(inner: Node) -> Any:
        return evaluate(inner, lookup, functions)

    match node:
        case Literal(value):
            return value
        case Name(name):
            return lookup(name)
        case ListOf(items):
            return [value_of(item) for item in items]
        case Member(of, key):
            return member(value_of(of), value_of(key))
        case Unary(sign, operand):
            return _unary(sign, value_of(operand))
        case Binary(sign, left, right):
            return _binary(sign, value_of(left), value_of(right))
        case Call(function, arguments):
            if function not in functions:
                raise ConfigurationError(
                    f"{function}() is no function that an expression here can call; known:"
                    f" {', '.join(sorted(functions))}"
                )
            values = [value_of(argument) for argument in arguments]
            try:
                return functions[function](*values)
            except TypeError as error:
                raise engine_error("TypeError", f"{function}: {error}") from None


def member(of: Any, key: Any) -> Any:
    """Return `of.key` or `of[key]`.

    Raises:
        Raised: There is no such member.
    """
    if isinstance(of, dict) and isinstance(key, str):
        if key not in of:
            raise engine_error("KeyError", f"key not found: {key}")
        return of[key]
    if isinstance(of, list) and type(key) is int:
        if not 0 <= key < len(of):
            raise engine_error("IndexError", f"index {key} is out of range of a list of {len(of)}")
        return of[key]
    raise engine_error("TypeError", f"{type_name(of)} has no member {shown(key)}")


def _is_number(value: Any) -> bool:
    # not isinstance: a bool is an int in Python, and no number in Workflows
    return type(value) in (int, float)


def _unary(sign: str, value: Any) -> Any:
    if sign == "not" and type(value) is bool:
        return not value
    if sign == "-" and _is_number(value):
        return -value
    raise engine_error("TypeError", f"{sign} does not take {type_name(value)}")


def _binary(sign: str, left: Any, right: Any) -> Any:
    # an integer compares with a double
    same_type = type(left) is type(right) or (_is_number(left) and _is_number(right))
    if sign in ("and", "or") and type(left) is bool and type(right) is bool:
        return (left and right) if sign == "and" else (left or right)
    if sign in ("==", "!=") and (same_type or left is None or right is None):
        return (left == right) is (sign == "==")
    if sign in ORDERINGS and same_type and (_is_number(left) or isinstance(left, str)):
        return ORDERINGS[sign](left, right)
    if sign == "in" and (
        isinstance(right, list) or (isinstance(right, dict) and isinstance(left, str))
    ):
        return left in right
    if sign == "+" and isinstance(left, str) and isinstance(right, str):
        return left + right
    if sign in ARITHMETIC and _is_number(left) and _is_number(right):
        if sign in ("/", "//", "%") and right == 0:
            raise engine_error("ZeroDivisionError", f"{shown(left)} {sign} 0")
        return ARITHMETIC[sign](left, right)
    raise engine_error(
        "TypeError", f"{sign} does not take {type_name(left)} and {type_name(right)}"
    )
