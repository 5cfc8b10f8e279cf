"""Waiting for something that runs in the cloud: what Ctrl-C means."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TypeVar

import typer

from cli.terminal import say
from common.errors import Interrupted

Result = TypeVar("Result")


def wait_or_ask(
    wait: Callable[[], Result], cancel: Callable[[], object], what: str, how: str
) -> Result:
    """Wait; on Ctrl-C ask, at a terminal, whether to cancel. Without a terminal nothing is
    cancelled: it goes on, and is paid for, without us.

    Args: what is its name, how the command that cancels it. Raises: Interrupted after a Ctrl-C;
    what wait and cancel raise.
    """
    try:
        return wait()
    except KeyboardInterrupt:
        if sys.stdin.isatty() and typer.confirm(
            f"\n{what} goes on without you. Cancel it?", default=False, err=True
        ):
            cancel()
            raise Interrupted(f"{what} was cancelled") from None
        say(f"{what} goes on; `{how}` cancels it")
        raise Interrupted(f"stopped waiting for {what}") from None
