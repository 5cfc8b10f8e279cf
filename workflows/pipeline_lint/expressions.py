"""Parses the expressions of Cloud Workflows, `${..}`, into frozen nodes. Precedence is Google's
(https://cloud.google.com/workflows/docs/reference/syntax/datatypes#order-of-operations), where
`not` binds closer than a comparison.

Rejects constructs that implementations read differently: chains of comparisons, `not in`, `not`
before a comparison, map literals and `if()`. Also rejects `f(x)[0]`, because Google documents
indexes of variables only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from common.errors import ConfigurationError

TOKEN = re.compile(
    r"""\s*(?:(?P<number>\d+\.\d+|\d+)|(?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')"""
    r"""|(?P<name>[A-Za-z_]\w*)|(?P<sign>//|==|!=|<=|>=|[-+*/%<>()\[\].,]))"""
)
CONSTANTS = {"true": True, "false": False, "null": None}
COMPARISONS = ("==", "!=", "<", "<=", ">", ">=", "in")
# a higher number binds closer
BINDING = {
    "or": 1,
    "and": 2,
    **dict.fromkeys(COMPARISONS, 3),
    **dict.fromkeys(("+", "-"), 4),
    **dict.fromkeys(("*", "/", "//", "%"), 5),
}
MINUS, NOT = 6, 7
ESCAPES = {"n": "\n", "t": "\t"}


@dataclass(frozen=True)
class Literal:
    """A constant: number, text, true, false or null."""

    value: Any


@dataclass(frozen=True)
class ListOf:
    """A list of expressions, `[a, b]`."""

    items: tuple[Node, ...]


@dataclass(frozen=True)
class Name:
    """A variable."""

    name: str


@dataclass(frozen=True)
class Member:
    """Key `key` of a map, or element `key` of a list."""

    of: Node
    key: Node


@dataclass(frozen=True)
class Call:
    """A call of a function of the standard library, by its dotted name."""

    function: str
    arguments: tuple[Node, ...]


@dataclass(frozen=True)
class Unary:
    """`-a` or `not a`."""

    sign: str
    operand: Node


@dataclass(frozen=True)
class Binary:
    """An operator between two operands."""

    sign: str
    left: Node
    right: Node


Node = Literal | ListOf | Name | Member | Call | Unary | Binary


@dataclass(frozen=True)
class Token:
    """A part of the text; `kind` is number, text, name, sign or end."""

    kind: str
    text: str


@lru_cache(maxsize=1024)
def parse_expression(text: str) -> Node:
    """Parse the text between `${` and `}`.

    Rules read each expression several times: the result is cached, and its nodes are frozen.

    Raises:
        ConfigurationError: The expression is wrong.
    """
    return _Parser(text).whole()


def parts(node: Node) -> Iterator[Node]:
    """Return a node and all nodes below it."""
    yield node
    match node:
        case ListOf(items) | Call(_, items):
            below: tuple[Node, ...] = items
        case Member(of, key):
            below = (of, key)
        case Unary(_, operand):
            below = (operand,)
        case Binary(_, left, right):
            below = (left, right)
        case _:
            below = ()
    for inner in below:
        yield from parts(inner)


class _Parser:
    """Top-down operator precedence parser (Pratt)."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = [*self._scan(), Token("end", "")]
        self.at = 0

    def _scan(self) -> Iterator[Token]:
        position = 0
        while self.text[position:].strip():
            match = TOKEN.match(self.text, position)
            if not match:
                raise self.wrong(
                    f"{self.text[position:].strip()[0]!r} is no part of an expression here"
                )
            yield Token(str(match.lastgroup), str(match.group(str(match.lastgroup))))
            position = match.end()

    def wrong(self, message: str) -> ConfigurationError:
        return ConfigurationError(f"${{{self.text}}}: {message}")

    @property
    def now(self) -> Token:
        return self.tokens[self.at]

    def next(self) -> Token:
        self.at += 1
        return self.tokens[self.at - 1]

    def expect(self, sign: str) -> None:
        token = self.next()
        # a text such as ")" is no sign
        if token.text != sign or token.kind == "text":
            raise self.wrong(f"{sign!r} is missing before {token.text or 'the end'!r}")

    def whole(self) -> Node:
        node = self.expression(0)
        if self.now.kind != "end":
            raise self.wrong(f"{self.now.text!r} is unexpected")
        return node

    def operator(self) -> str | None:
        """Return the next operator between two operands."""
        return (
            self.now.text
            if self.now.kind in ("sign", "name") and self.now.text in BINDING
            else None
        )

    def expression(self, least: int) -> Node:
        left = self.prefix()
        while (sign := self.operator()) and BINDING[sign] > least:
            self.next()
            # operators of one level group from the left
            right = self.expression(BINDING[sign])
            if sign in COMPARISONS and self.operator() in COMPARISONS:
                raise self.wrong("comparisons don't chain; use `and`")
            left = Binary(sign, left, right)
        return left

    def prefix(self) -> Node:
        if self.now == Token("name", "not"):
            self.next()
            operand = self.expression(NOT)
            if self.operator() in COMPARISONS:
                raise self.wrong("`not` before a comparison is read in two ways; write not (..)")
            return Unary("not", operand)
        if self.now == Token("sign", "-"):
            self.next()
            return Unary("-", self.expression(MINUS))
        return self.postfix(self.primary())

    def primary(self) -> Node:
        token = self.next()
        if token.kind == "number":
            return Literal(float(token.text) if "." in token.text else int(token.text))
        if token.kind == "text":
            return Literal(self.unquoted(token.text))
        if token.kind == "name" and token.text not in BINDING:
            return Literal(CONSTANTS[token.text]) if token.text in CONSTANTS else Name(token.text)
        if token == Token("sign", "("):
            node = self.expression(0)
            self.expect(")")
            return node
        if token == Token("sign", "["):
            return ListOf(self.items("]"))
        raise self.wrong(
            f"{token.text!r} can't begin a value" if token.text else "it ends too early"
        )

    def unquoted(self, text: str) -> str:
        def escaped(match: re.Match[str]) -> str:
            sign = match.group(1)
            if sign not in ESCAPES and sign not in "\\\"'":
                raise self.wrong(f"the escape \\{sign} is not used here")
            return ESCAPES.get(sign, sign)

        return re.sub(r"\\(.)", escaped, text[1:-1])

    def items(self, end: str) -> tuple[Node, ...]:
        nodes: list[Node] = []
        # a text such as "]" does not end the list
        while self.now.text != end or self.now.kind == "text":
            nodes.append(self.expression(0))
            if self.now != Token("sign", ","):
                break
            self.next()
        self.expect(end)
        return tuple(nodes)

    def postfix(self, node: Node) -> Node:
        while self.now.kind == "sign" and self.now.text in (".", "[", "("):
            sign = self.next().text
            if isinstance(node, Call):
                raise self.wrong(
                    f"the result of {node.function}() is assigned to a variable before a part of"
                    " it is taken"
                )
            if sign == ".":
                key = self.next()
                if key.kind != "name":
                    raise self.wrong(f"a name is missing before {key.text or 'the end'!r}")
                node = Member(node, Literal(key.text))
            elif sign == "[":
                node = Member(node, self.expression(0))
                self.expect("]")
            else:
                node = Call(self.function(node), self.items(")"))
        return node

    def function(self, node: Node) -> str:
        name = dotted(node)
        if name is None:
            raise self.wrong("only a named function can be called")
        return name


def dotted(node: Node) -> str | None:
    """Return the name that `a.b.c` spells; None for any other node."""
    if isinstance(node, Name):
        return node.name
    if (
        isinstance(node, Member)
        and isinstance(node.key, Literal)
        and isinstance(node.key.value, str)
    ):
        before = dotted(node.of)
        return before and f"{before}.{node.key.value}"
    return None


def shown(value: Any) -> str:
    """Format a value for an error message."""
    return (
        json.dumps(value)
        if isinstance(value, str | int | float | bool | None)
        else type(value).__name__
    )
