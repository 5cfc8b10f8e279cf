"""`python -m workflows`: enters the virtual environment of the clone, then runs the command."""

# no `from __future__ import annotations`: a Python that is too old must reach the message below
import sys
from pathlib import Path

if sys.version_info < (3, 8):  # noqa: UP036
    sys.exit("YieldSpark needs Python 3.11 or 3.12: install one and type `python3.11 -m workflows`")

ROOT = Path(__file__).resolve().parents[1]
if sys.path[0] != str(ROOT):
    # the environment's Python runs this file by path, which puts its folder on sys.path instead
    # of the root
    sys.path[0] = str(ROOT)

import signal  # noqa: E402

import local_environment  # noqa: E402

if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    local_environment.open_closed_streams()
    try:
        local_environment.ensure_environment(Path(__file__), sys.argv[1:])
    except local_environment.BootstrapError as problem:
        sys.stderr.write(str(problem) + "\n")
        sys.exit(2)
    except KeyboardInterrupt:
        local_environment.end_interrupted(
            "\nenvironment: interrupted; the next run continues the installation\n"
        )

    try:
        from workflows.commands.main import main

        main()
    except KeyboardInterrupt:
        # only while the commands load; later they handle a signal themselves
        local_environment.end_interrupted("interrupted before the command started\n")
