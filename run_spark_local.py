"""Entry point of a clone: `python run_spark_local.py` runs the demo, `--help` lists the commands.

Creates `.venv` with the pinned packages on the first run and reuses it afterwards. The commands are
in `cli/`.
"""

# No `from __future__ import annotations` here: an old Python must reach the message below.
import sys

if sys.version_info < (3, 8):  # noqa: UP036
    sys.exit(
        "YieldSpark needs Python 3.11 or 3.12: install one and type `python3.11 run_spark_local.py`"
    )

from pathlib import Path

if str(Path(__file__).parent) not in sys.path:
    # PYTHONSAFEPATH keeps a script's folder off the path
    sys.path.insert(0, str(Path(__file__).parent))

import signal

import local_environment

if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    local_environment.open_closed_streams()
    try:
        local_environment.ensure_environment(Path(__file__), sys.argv[1:])
    except local_environment.BootstrapError as error:
        sys.stderr.write(str(error) + "\n")
        sys.exit(2)
    except KeyboardInterrupt:
        local_environment.end_interrupted(
            "\nenvironment: interrupted; the next run continues the installation\n"
        )

    try:
        from cli.main import main

        if len(sys.argv) == 1:
            sys.argv.append("demo")
        main()
    except KeyboardInterrupt:
        # only until the commands are loaded: they handle signals themselves
        local_environment.end_interrupted("interrupted before the command started\n")
