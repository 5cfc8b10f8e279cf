"""Event logs of Spark: one file for each session of this machine, in YIELDSPARK_HOME/spark-events.

Only sessions of the environment `local` write one; a platform keeps its own. The logs have plans,
times and the Spark configuration, and no password.
"""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

from common.private_files import private_folder
from config_spark import Settings

SECONDS_OF_A_DAY = 86_400


def event_log_folder(settings: Settings) -> Path:
    """Return the folder of the logs, which may not exist."""
    return settings.yieldspark_home / "spark-events"


def event_logs(folder: Path) -> list[Path]:
    """Return the logs, newest first. The one of a session that runs, or was killed, ends in
    `.inprogress`.
    """
    if not folder.is_dir():
        return []
    return sorted(filter(Path.is_file, folder.iterdir()), key=_written_at, reverse=True)


def event_log_conf(settings: Settings) -> dict[str, str]:
    """Delete old logs and return the configuration of a session that writes one.

    SPARK_EVENT_LOGS is the number of logs to keep with the new one, SPARK_EVENT_LOG_DAYS their age.
    """
    if settings.environment != "local":
        return {}
    folder = event_log_folder(settings)
    _prune(folder, keep=settings.spark_event_logs - 1, days=settings.spark_event_log_days)
    if not settings.spark_event_logs:
        return {}
    return {
        "spark.eventLog.enabled": "true",
        # a path is no URI: it may have a space
        "spark.eventLog.dir": private_folder(folder).resolve().as_uri(),
        "spark.eventLog.compress": "true",
    }


def _prune(folder: Path, *, keep: int, days: int) -> None:
    oldest = time.time() - days * SECONDS_OF_A_DAY
    for position, log in enumerate(event_logs(folder)):
        if position >= keep or _written_at(log) < oldest:
            # another command may prune at the same time
            with suppress(FileNotFoundError):
                log.unlink()


def _written_at(log: Path) -> float:
    try:
        return log.stat().st_mtime
    except FileNotFoundError:
        return 0.0
