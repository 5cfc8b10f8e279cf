"""Runs a program: steps, variables, jumps, errors and retries. Variables of a `for` or `except` end
with it (https://cloud.google.com/workflows/docs/reference/syntax/variables#variable-scope);
assignments copy values.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from common.errors import ConfigurationError
from emulator.workflow_engine.clock import Clock
from emulator.workflow_engine.errors import Raised, WorkflowFailed, engine_error
from emulator.workflow_engine.evaluation import Functions, evaluate, member, type_name
from workflows.pipeline_lint import steps as nodes
from workflows.pipeline_lint.expressions import Member, Name, Node

MAX_DEPTH = 20
MAX_STEPS = 100_000
"""Google's limits: https://cloud.google.com/workflows/quotas#resource_limits."""


@dataclass(frozen=True)
class Jump:
    """A jump to a step, or `end`, `break` or `continue`."""

    target: str


@dataclass(frozen=True)
class Returned:
    """The result of a `return` step, which ends its subworkflow."""

    value: Any


Outcome = Jump | Returned | None
Calls = Mapping[str, Callable[..., Any]]
"""Functions of a `call` step; arguments are keywords."""


class Scope:
    """Variables of a subworkflow, or of a loop or an `except` inside one."""

    def __init__(self, variables: dict[str, Any], outer: Scope | None = None) -> None:
        self.variables = variables
        self.outer = outer

    def holder(self, name: str) -> Scope | None:
        """Return the innermost scope that has the variable."""
        if name in self.variables:
            return self
        return self.outer.holder(name) if self.outer else None

    def read(self, name: str) -> Any:
        """Return a variable's value.

        Raises:
            ConfigurationError: It has none yet.
        """
        holder = self.holder(name)
        if holder is None:
            raise ConfigurationError(f"the variable {name!r} is read before it has a value")
        return holder.variables[name]

    def write(self, name: str, value: Any) -> None:
        """Set a variable in its scope, or a new one here."""
        # assignments copy: two variables never share a map
        (self.holder(name) or self).variables[name] = copy.deepcopy(value)


class Engine:
    """One execution."""

    def __init__(
        self, program: nodes.Program, functions: Functions, calls: Calls, clock: Clock
    ) -> None:
        self.program = program
        self.functions = functions
        self.calls = calls
        self.signatures = {name: inspect.signature(call) for name, call in calls.items()}
        self.clock = clock
        self.steps_left = MAX_STEPS
        self.depth = 0

    def run(self, argument: Any) -> Any:
        """Run `main`.

        Args:
            argument: Its argument.

        Returns:
            Its result.

        Raises:
            WorkflowFailed: An error was not caught.
            ConfigurationError: The source names something that does not exist.
        """
        main = self.program["main"]
        try:
            return self._subworkflow(main, dict.fromkeys(main.parameters, argument))
        except Raised as error:
            raise WorkflowFailed(error.payload, error.trail) from None

    def _subworkflow(self, subworkflow: nodes.Subworkflow, arguments: Mapping[str, Any]) -> Any:
        required = {
            name for name, default in subworkflow.parameters.items() if default is nodes.REQUIRED
        }
        mismatched = (set(arguments) - set(subworkflow.parameters)) | (required - set(arguments))
        if mismatched:
            raise ConfigurationError(
                f"{subworkflow.name}() is called with other parameters than it has:"
                f" {', '.join(sorted(mismatched))}"
            )
        if self.depth == MAX_DEPTH:
            raise engine_error(
                "RecursionError", f"more than {MAX_DEPTH} subworkflows inside each other"
            )
        self.depth += 1
        try:
            outcome = self._steps(
                subworkflow.steps, Scope(copy.deepcopy({**subworkflow.parameters, **arguments}))
            )
        finally:
            self.depth -= 1
        return outcome.value if isinstance(outcome, Returned) else None

    def _steps(self, steps: nodes.Steps, scope: Scope) -> Outcome:
        positions = {step.name: number for number, step in enumerate(steps)}
        position = 0
        while position < len(steps):
            outcome = self._step(steps[position], scope)
            # a jump to a step of an enclosing list is passed outwards
            if isinstance(outcome, Jump) and outcome.target in positions:
                position = positions[outcome.target]
            elif outcome is not None:
                return outcome
            else:
                position += 1
        return None

    def _step(self, step: nodes.Step, scope: Scope) -> Outcome:
        self.steps_left -= 1
        if self.steps_left < 0:
            raise engine_error("ResourceLimitError", f"more than {MAX_STEPS} steps")
        try:
            outcome = self._action(step.action, scope)
        except Raised as error:
            error.trail.append(f"{step.name}, line {step.line}")
            raise
        return Jump(step.next) if outcome is None and step.next else outcome

    def _action(self, action: Any, scope: Scope) -> Outcome:
        match action:
            case nodes.Assign(pairs):
                for target, value_template in pairs:
                    self._assign(target, self._value(value_template, scope), scope)
                return None
            case nodes.CallStep():
                self._call(action, scope)
                return None
            case nodes.Switch(branches):
                return self._switch(branches, scope)
            case nodes.For():
                return self._for(action, scope)
            case nodes.Try():
                return self._try(action, scope)
            case nodes.Block(steps):
                return self._steps(steps, scope)
            case nodes.Return(value):
                return Returned(self._value(value, scope))
            case nodes.Raise(value):
                raise Raised(self._raisable(self._value(value, scope)))
        return None

    def _value(self, template: nodes.Template, scope: Scope) -> Any:
        if isinstance(template, nodes.Expression):
            return evaluate(template.node, scope.read, self.functions)
        if isinstance(template, dict):
            return {key: self._value(inner, scope) for key, inner in template.items()}
        if isinstance(template, list):
            return [self._value(item, scope) for item in template]
        return template

    @staticmethod
    def _raisable(value: Any) -> Any:
        if not isinstance(value, str | dict):
            raise engine_error(
                "TypeError", f"`raise` takes a map or a string, not {type_name(value)}"
            )
        return copy.deepcopy(value)

    def _assign(self, target: Node, value: Any, scope: Scope) -> None:
        if isinstance(target, Name):
            scope.write(target.name, value)
            return
        assert isinstance(target, Member)
        holder = evaluate(target.of, scope.read, self.functions)
        key = evaluate(target.key, scope.read, self.functions)
        if not (isinstance(holder, dict) and isinstance(key, str)):
            # an element of a list must exist already
            member(holder, key)
        holder[key] = copy.deepcopy(value)

    def _call(self, step: nodes.CallStep, scope: Scope) -> None:
        arguments = copy.deepcopy(self._value(step.arguments, scope))
        if step.function in self.program:
            result = self._subworkflow(self.program[step.function], arguments)
        elif step.function in self.calls:
            self._check_arguments(step.function, arguments)
            result = self.calls[step.function](**arguments)
        else:
            raise ConfigurationError(
                f"{step.function} can't be called here; known:"
                f" {', '.join(sorted([*self.calls, *self.program]))}"
            )
        if step.result:
            scope.write(step.result, result)

    def _check_arguments(self, function: str, arguments: Mapping[str, Any]) -> None:
        try:
            self.signatures[function].bind(**arguments)
        except TypeError as error:
            raise ConfigurationError(f"{function}: {error}") from None

    def _switch(self, branches: tuple[nodes.Branch, ...], scope: Scope) -> Outcome:
        for branch in branches:
            condition = self._value(branch.condition, scope)
            if not isinstance(condition, bool):
                raise engine_error(
                    "TypeError", f"a condition is boolean, not {type_name(condition)}"
                )
            if condition:
                return self._step(branch.step, scope)
        return None

    def _for(self, loop: nodes.For, scope: Scope) -> Outcome:
        items = self._value(loop.items, scope)
        if not isinstance(items, list):
            raise engine_error("TypeError", f"`for` takes a list, not {type_name(items)}")
        # a `range` includes its last number
        for index, value in enumerate(range(items[0], items[1] + 1) if loop.is_range else items):
            variables = {loop.value: copy.deepcopy(value)} | (
                {loop.index: index} if loop.index else {}
            )
            outcome = self._steps(loop.steps, Scope(variables, scope))
            if outcome == Jump("break"):
                break
            if outcome is not None and outcome != Jump("continue"):
                return outcome
        return None

    def _try(self, step: nodes.Try, scope: Scope) -> Outcome:
        try:
            return self._run_with_retry(step, scope)
        except Raised as error:
            if step.error is None:
                raise
            return self._steps(step.otherwise, Scope({step.error: error.payload}, scope))

    def _run_with_retry(self, step: nodes.Try, scope: Scope) -> Outcome:
        if step.retry is None:
            return self._steps(step.steps, scope)
        backoff = self._value(step.retry.backoff, scope)
        delay = backoff["initial_delay"]
        # max_retries does not count the first try
        for _ in range(self._value(step.retry.max_retries, scope)):
            try:
                return self._steps(step.steps, scope)
            except Raised as error:
                if not self._is_retryable(step.retry.predicate, error):
                    raise
            self.clock.sleep(min(delay, backoff["max_delay"]))
            delay *= backoff["multiplier"]
        return self._steps(step.steps, scope)

    def _is_retryable(self, predicate: str, error: Raised) -> bool:
        if predicate not in self.program:
            raise ConfigurationError(f"the predicate {predicate} is no subworkflow")
        subworkflow = self.program[predicate]
        is_retryable = self._subworkflow(
            subworkflow, dict.fromkeys(subworkflow.parameters, error.payload)
        )
        if not isinstance(is_retryable, bool):
            raise engine_error(
                "TypeError",
                f"the predicate {predicate} returned {type_name(is_retryable)}, not a boolean",
            )
        return is_retryable
