"""The command line: `app.py` has the commands, `workplace.py` what they share, `demo.py` the first command, `terminal.py` how they speak."""

from __future__ import annotations

__all__ = ["main"]


def main() -> None:
    """Run the command of `sys.argv` and exit with its code."""
    from command_line.app import main as run

    run()
