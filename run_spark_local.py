"""YieldSpark on this machine: `python run_spark_local.py` runs the demo, `python run_spark_local.py
--help` names the other commands.

The first run makes `.venv` with the pinned packages; every later one enters it at once. The
commands themselves are in cli/.
"""

# No `from __future__ import annotations` here: a Python that is too old must get as far as the
# sentence below.
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
    try:
        local_environment.enter(Path(__file__), sys.argv[1:])
    except local_environment.NotReady as problem:
        sys.stderr.write(str(problem) + "\n")
        sys.exit(2)
    except KeyboardInterrupt:
        local_environment.end_interrupted("\nenvironment: interrupted; the next run goes on\n")

    try:
        from cli.main import main

        if len(sys.argv) == 1:
            sys.argv.append("demo")
        main()
    except KeyboardInterrupt:
        # before the commands are loaded; from then on they answer a signal themselves
        local_environment.end_interrupted("interrupted: nothing was begun\n")
