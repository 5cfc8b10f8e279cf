"""Strict interpreter of the subset of Google Cloud Workflows that `workflows/pipeline.yaml` uses.
It rejects constructs that Google's documentation leaves open, so that a source means the same in
both. Connectors, callbacks, parallel steps and default retry policies are not supported.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from emulator.workflow_engine.clock import Clock, RealClock, VirtualClock
from emulator.workflow_engine.engine import Engine
from emulator.workflow_engine.errors import WorkflowFailed
from emulator.workflow_engine.standard_library import call_functions, expression_functions
from emulator.workflow_engine.transport import Transport, route_to
from workflows.pipeline_lint.program import load_program

__all__ = [
    "Clock",
    "RealClock",
    "Transport",
    "VirtualClock",
    "WorkflowFailed",
    "execute",
    "route_to",
]


def execute(
    source: str,
    argument: Any,
    *,
    environment: Mapping[str, str],
    transport: Transport,
    clock: Clock,
    log: Callable[[dict[str, Any]], None],
) -> Any:
    """Run a workflow to its end.

    Args:
        source: Source of the workflow.
        argument: Argument of `main`.
        environment: Variables of the execution.
        transport: Sends HTTP requests.
        clock: Time of the workflow.
        log: Receives Cloud Logging entries: severity, and jsonPayload or textPayload.

    Returns:
        The result of `main`.

    Raises:
        WorkflowFailed: An error was not caught.
        ConfigurationError: The source is not supported.
    """
    functions = expression_functions(environment, clock)
    return Engine(
        load_program(source), functions, call_functions(transport, clock, log), clock
    ).run(argument)
