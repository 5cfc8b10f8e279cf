"""Defines Ctrl-C while a command waits for the cloud."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TypeVar

import typer

from cli.terminal import say
from common.errors import Interrupted

Result = TypeVar("Result")


def wait_or_offer_cancel(
    wait: Callable[[], Result], cancel: Callable[[], object], name: str, cancel_command: str
) -> Result:
    """Wait; on Ctrl-C offer to cancel.

    Without a terminal nothing is cancelled: the work continues and is billed.

    Args:
        wait: Waits and returns the result.
        cancel: Cancels the work.
        name: What runs, for messages.
        cancel_command: Command that cancels it.

    Raises:
        Interrupted: After Ctrl-C.
    """
    try:
        return wait()
    except KeyboardInterrupt:
        if sys.stdin.isatty() and typer.confirm(
            f"\n{name} continues to run. Cancel it?", default=False, err=True
        ):
            cancel()
            raise Interrupted(f"{name} was cancelled") from None
        say(f"{name} continues to run; `{cancel_command}` cancels it")
        raise Interrupted(f"stopped waiting for {name}") from None
