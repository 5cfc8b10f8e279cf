"""The command line, a contract that scripts may rely on.

`entry.py` runs a command and turns errors into exit codes, `commands.py` and the `*_commands.py`
have the commands, `options.py` and `workplace.py` what they share, `demo.py` the first of them,
`terminal.py` how they speak.
"""

from __future__ import annotations

__all__ = ["main"]


def main() -> None:
    """Run the command of `sys.argv` and exit with its code."""
    from command_line.entry import main as run

    run()
