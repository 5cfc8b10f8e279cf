"""What the jobs' own command lines share: settings and database at the edge, one document or sentence on stdout, logs on stderr, exit codes.

Exit codes: 0 good, 1 the job failed, 2 wrong use or configuration, 130 interrupted (Ctrl-C or SIGTERM).
"""

from __future__ import annotations

import argparse
import json
import logging
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any

from config_spark import Settings, load_settings
from database.connection import make_engine, with_database
from database.migrate import migrate
from database.run_ledger import failed_row
from product_errors import Interrupted, YieldSparkError, one_sentence

log = logging.getLogger(__name__)

Document = dict[str, Any]


def run_job(
    parser: argparse.ArgumentParser,
    work: Callable[[Settings, argparse.Namespace], Document],
    words: Callable[[Document], str],
    argv: Sequence[str] | None = None,
) -> int:
    """Parse, run `work`, show its ledger row or plan; returns the exit code.

    Args: `--dry-run` and `--json` are added to parser. words makes the document readable where `--json` is not given.
    """
    parser.add_argument("--dry-run", action="store_true", help="print the plan; change nothing, start no JVM")
    parser.add_argument("--json", action="store_true", help="print one JSON document on standard output")
    options = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("py4j").setLevel(logging.WARNING)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        settings = with_database(load_settings())
        migrate(make_engine(settings))
        document = work(settings, options)
    except (Exception, KeyboardInterrupt) as error:
        return _failed(error, as_json=options.json)
    sys.stdout.write((json.dumps(document, allow_nan=False) if options.json else words(document)) + "\n")
    return 0


def _failed(error: BaseException, *, as_json: bool) -> int:
    """Show the run's ledger row, where it got as far as having one, and end stderr with the cause in one sentence."""
    code = Interrupted.exit_code if isinstance(error, KeyboardInterrupt) else error.exit_code if isinstance(error, YieldSparkError) else 1
    if not isinstance(error, YieldSparkError | KeyboardInterrupt):
        log.error("the job failed", exc_info=error)
    if as_json and (row := failed_row(error)):
        sys.stdout.write(json.dumps(row) + "\n")
    sys.stderr.write("interrupted: nothing was written\n" if code == Interrupted.exit_code else f"{one_sentence(error)}\n")
    return code
