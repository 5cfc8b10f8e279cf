"""Steps of a parsed workflow, as frozen values: what `program` builds and an interpreter runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from workflows.pipeline_lint.expressions import Node


@dataclass(frozen=True)
class Expression:
    """A value that is computed when its step runs."""

    node: Node
    text: str


Template = Any
"""A literal, an `Expression`, or a list or map of templates."""


@dataclass(frozen=True)
class Assign:
    """Targets and their values, assigned in this order."""

    pairs: tuple[tuple[Node, Template], ...]


@dataclass(frozen=True)
class CallStep:
    """A call of a subworkflow or of a function that waits; `result` is the variable for it."""

    function: str
    arguments: Mapping[str, Template]
    result: str | None


@dataclass(frozen=True)
class Branch:
    """A condition of a `switch`, and the step to run if it is the first that is true."""

    condition: Template
    step: Step


@dataclass(frozen=True)
class Switch:
    """Branches, tried in this order."""

    branches: tuple[Branch, ...]


@dataclass(frozen=True)
class For:
    """A loop; `value` and `index` are variables, `items` a list or a range's two numbers."""

    value: str
    index: str | None
    items: Template
    is_range: bool
    steps: Steps


@dataclass(frozen=True)
class Retry:
    """When and how often a `try` is repeated; `predicate` is a subworkflow."""

    predicate: str
    max_retries: Template
    backoff: Mapping[str, Template]


@dataclass(frozen=True)
class Try:
    """Steps, and `otherwise` the steps of `except`, whose variable is `error`."""

    steps: Steps
    retry: Retry | None
    error: str | None
    otherwise: Steps


@dataclass(frozen=True)
class Raise:
    """A `raise` of a map or a text."""

    value: Template


@dataclass(frozen=True)
class Return:
    """A `return`, which ends the subworkflow."""

    value: Template


@dataclass(frozen=True)
class Block:
    """Nested steps; their variables belong to the subworkflow."""

    steps: Steps


@dataclass(frozen=True)
class Step:
    """One step. Without an action it only jumps."""

    name: str
    line: int
    action: Assign | CallStep | Switch | For | Try | Raise | Return | Block | None
    next: str | None


Steps = tuple[Step, ...]


@dataclass(frozen=True)
class Subworkflow:
    """Parameters with their defaults (`REQUIRED` for none), and steps."""

    name: str
    line: int
    parameters: Mapping[str, Any]
    steps: Steps


REQUIRED = object()
"""Marks a parameter without a default; null is a default."""
Program = Mapping[str, Subworkflow]
