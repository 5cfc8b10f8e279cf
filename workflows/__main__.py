"""`python -m workflows`: enters the environment of the clone as run_spark_local.py does, then runs
the command.
"""

# No `from __future__ import annotations` here: a Python that is too old must get as far as the
# sentence below.
import sys
from pathlib import Path

if sys.version_info < (3, 8):  # noqa: UP036
    sys.exit("YieldSpark needs Python 3.11 or 3.12: install one and type `python3.11 -m workflows`")

ROOT = Path(__file__).resolve().parents[1]
if sys.path[0] != str(ROOT):
    # handed over to the environment's Python by path, which puts this folder on the path and not
    # the root
    sys.path[0] = str(ROOT)

import signal  # noqa: E402

import local_environment  # noqa: E402

if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
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
        # before the commands are loaded; from then on they answer a signal themselves
        local_environment.end_interrupted("interrupted before the command started\n")
