"""What the jobs' own command lines share: settings and database at the edge, one document or
sentence on stdout, logs on stderr, exit codes.

Exit codes: 0 good, 1 the job failed, 2 wrong use or configuration, 130 interrupted (Ctrl-C or
SIGTERM).
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import logging
import sys
from collections.abc import Callable, Sequence
from typing import Any

from common.errors import exit_code, summarize_error
from common.interrupts import end_if_interrupted, end_on_signal
from common.logging_setup import LineFormatter, add_log_file, traceback_logger, without_traceback
from common.plain_text import without_controls
from config_spark import Settings, load_settings
from database.connections.engine import make_engine
from database.embedded.resolve import resolve_database
from database.ledger.run_json import failure_payload
from database.schema.migrate import migrate, require_current
from spark.session import is_local_spark

Document = dict[str, Any]


def run_job(
    parser: argparse.ArgumentParser,
    work: Callable[[Settings, argparse.Namespace], Document],
    words: Callable[[Document], str],
    argv: Sequence[str] | None = None,
) -> int:
    """Parse, run `work`, show its ledger row or plan; returns the exit code.

    Args: `--dry-run`, `--batch` and `--json` are added to parser, whose `prog` is the job's name.
    words makes the document readable where `--json` is not given.
    """
    parser.add_argument(
        "--dry-run", action="store_true", help="print the plan; change nothing, start no JVM"
    )
    parser.add_argument(
        "--batch",
        metavar="ID",
        help="the platform's batch that this process is; the ledger keeps it",
    )
    parser.add_argument(
        "--json", action="store_true", help="print one JSON document on standard output"
    )
    options = parser.parse_args(argv)
    to_stderr = logging.StreamHandler(sys.stderr)
    to_stderr.setFormatter(LineFormatter())
    logging.basicConfig(level=logging.INFO, handlers=[to_stderr])
    logging.getLogger("py4j").setLevel(logging.WARNING)
    with end_on_signal(
        lambda: _show_failure(KeyboardInterrupt(), parser.prog, as_json=options.json)
    ):
        try:
            document = work(
                _prepared(
                    load_settings(**({"batch_id": options.batch} if options.batch else {})),
                    dry_run=options.dry_run,
                ),
                options,
            )
        except (Exception, KeyboardInterrupt) as error:
            _show_failure(error, parser.prog, as_json=options.json)
            _end_recording(keep=False)
            code = exit_code(error)
        else:
            code = 0
    if code:
        end_if_interrupted(code)
        return code
    shown = json.dumps(document, allow_nan=False) if options.json else words(document)
    sys.stdout.write(without_controls(shown) + "\n")
    _end_recording(keep=True)
    return 0


def _show_failure(error: BaseException, job: str, *, as_json: bool) -> None:
    sentence = summarize_error(error)
    traceback_logger.error("%s", sentence, exc_info=error)
    if as_json:
        sys.stdout.write(json.dumps(failure_payload(error, job)) + "\n")
    sys.stderr.write(f"{sentence}\n")


def _prepared(settings: Settings, *, dry_run: bool) -> Settings:
    """Settings with a database that has this version's tables; on a laptop also with a log file
    and, where a JVM will start, the machine's Java.
    """
    if settings.environment == "local":
        add_log_file(settings.yieldspark_home)
        logging.getLogger().handlers[0].addFilter(without_traceback)
    if not dry_run and is_local_spark(settings) and _has_machine():
        from local_runtime.class_data_sharing import use_class_archive
        from local_runtime.jars import prepare_process

        prepare_process()
        use_class_archive(settings)
    ready = resolve_database(settings)
    if dry_run and settings.db_host:
        require_current(make_engine(ready))
    else:
        migrate(make_engine(ready))
    return ready


def _end_recording(*, keep: bool) -> None:
    if _has_machine():
        from local_runtime.class_data_sharing import discard_class_archive, save_class_archive

        save_class_archive() if keep else discard_class_archive()


def _has_machine() -> bool:
    """Not in the zip that a cluster runs from: there Java is the platform's business."""
    return importlib.util.find_spec("local_runtime") is not None
