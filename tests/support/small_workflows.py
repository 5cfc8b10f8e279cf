"""Runs small workflows in the interpreter, for its tests."""

from __future__ import annotations

from textwrap import dedent
from typing import Any

from emulator.workflow_engine import VirtualClock, execute, route_to

NOWHERE = "http://127.0.0.1:9"


def run(
    source: str,
    argument: Any = None,
    *,
    address: str = NOWHERE,
    clock: VirtualClock | None = None,
    log: list[Any] | None = None,
) -> Any:
    return execute(
        dedent(source),
        argument,
        environment={"GOOGLE_CLOUD_PROJECT_ID": "project"},
        transport=route_to(address),
        clock=clock or VirtualClock(1000.0),
        log=(log if log is not None else []).append,
    )
