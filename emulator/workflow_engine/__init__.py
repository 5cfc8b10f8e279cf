"""A strict interpreter of the part of Google Cloud Workflows that `workflows/pipeline.yaml` uses.

In: the workflow's source, the execution's argument, environment variables, and the outside world as
three parts: a `Transport` for HTTP, a `Clock`, a function that takes log entries. Out: what `main`
returns. It is strict where Google is, and where its documentation leaves something open it refuses:
what runs here means the same there. It does not know connectors, callbacks, parallel steps and
default retry policies.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from emulator.workflow_engine.clock import Clock, RealClock, VirtualClock
from emulator.workflow_engine.engine import Engine
from emulator.workflow_engine.errors import WorkflowFailed
from emulator.workflow_engine.standard_library import call_functions, expression_functions
from emulator.workflow_engine.transport import Transport, hosts_at
from workflows.pipeline_lint.program import load_program

__all__ = [
    "Clock",
    "RealClock",
    "Transport",
    "VirtualClock",
    "WorkflowFailed",
    "execute",
    "hosts_at",
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

    Args: log takes entries as Cloud Logging has them: severity, and jsonPayload or textPayload.
    Raises: WorkflowFailed; ConfigurationError where the source holds what the interpreter does not
    take.
    """
    functions = expression_functions(environment, clock)
    return Engine(
        load_program(source), functions, call_functions(transport, clock, log), clock
    ).run(argument)
