"""Entry of `python -m workflows`: the application with all of its commands, and the document of a
command that failed.
"""

from __future__ import annotations

from typing import Any, NoReturn

from command_line.run_application import run_application
from product_errors import one_sentence
from workflows import (  # noqa: F401 - importing puts the commands on the application
    check_commands,
    run_commands,
)
from workflows.app import app
from workflows.batches import batch_commands  # noqa: F401
from workflows.costs import cost_commands  # noqa: F401
from workflows.local import local_commands  # noqa: F401
from workflows.releases import release_commands  # noqa: F401


def main() -> NoReturn:
    """Run the command of `sys.argv` and exit with its code."""
    run_application(app, _failure, prog_name="python -m workflows")


def _failure(error: BaseException, words: list[str]) -> dict[str, Any]:
    return {
        "command": words[0] if words else None,
        "status": "failed",
        "error": one_sentence(error),
    } | getattr(error, "document", {})
