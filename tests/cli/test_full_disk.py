"""Tests a full disk: the log file ends and the run continues; an error names where to free
space.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from common.errors import EnvironmentNotReady, describe_file_error, summarize_error
from common.logging_setup import add_log_file
from tests.support.processes import PROJECT, CommandLine

FULL = Path("/dev/full")


@pytest.mark.skipif(not FULL.exists(), reason="only Linux has /dev/full")
def test_a_log_file_on_a_full_disk_is_closed_and_reported_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "logs" / "yieldspark.log"
    file.parent.mkdir()
    file.symlink_to(FULL)
    handlers = len(logging.getLogger().handlers)
    assert add_log_file(tmp_path) == file
    for number in range(3):
        logging.getLogger("a.job").warning("line %d", number)
    messages = [record.getMessage() for record in caplog.records]
    assert [text for text in messages if "continues without it" in text] == [
        f"{file} can't be written any more: No space left on device; free disk space there."
        " The run continues without it"
    ]
    assert [text for text in messages if text.startswith("line")] == ["line 0", "line 1", "line 2"]
    assert len(logging.getLogger().handlers) == handlers
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.skipif(not FULL.exists(), reason="only Linux has /dev/full")
def test_full_standard_streams(run: CommandLine) -> None:
    """Progress that can't be written ends no run; a result that can't be written is an error."""
    command = [sys.executable, str(PROJECT / "run_spark_local.py"), "status", "--json"]
    with FULL.open("w") as full:
        options: dict[str, Any] = {
            "cwd": run.folder,
            "env": run.environment,
            "text": True,
            "check": False,
        }
        progress = subprocess.run(command, stdout=subprocess.PIPE, stderr=full, **options)
        result = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, **options)
        command[2:] = ["--help"]  # has no log file for a traceback
        help_text = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, **options)
    assert [finished.returncode for finished in (progress, result, help_text)] == [0, 1, 1]
    assert "jobs" in json.loads(progress.stdout)
    for finished in (result, help_text):
        assert "No space left on device" in finished.stderr
        assert "Traceback" not in finished.stderr


def test_closed_standard_streams(run: CommandLine) -> None:
    script = 'exec "$@" <&- >&- 2>&-'
    command = [sys.executable, str(PROJECT / "run_spark_local.py"), "status"]
    finished = subprocess.run(
        ["sh", "-c", script, "sh", *command], cwd=run.folder, env=run.environment, check=False
    )
    assert finished.returncode == 0


def test_a_folder_of_logs_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "logs").write_text("")
    with pytest.raises(
        EnvironmentNotReady,
        match=rf"{tmp_path}/logs can't be written: File exists; move it away, or set",
    ):
        add_log_file(tmp_path)


@pytest.mark.parametrize(
    ("number", "step"),
    [
        (errno.ENOSPC, "free disk space"),
        (errno.EROFS, "make it writable"),
        (errno.EISDIR, "move it away"),
        (errno.EAGAIN, "free memory, or raise ulimit -u"),
        (errno.EMFILE, "raise the limit of open files"),
        (errno.EIO, "make it writable and free disk space"),
    ],
)
def test_the_next_step_follows_from_the_systems_error(number: int, step: str) -> None:
    error = OSError(number, os.strerror(number), "/a/file")
    assert describe_file_error(error).startswith(f"{os.strerror(number)}; {step}")


def test_a_full_disk_names_the_folder_to_free() -> None:
    ours = summarize_error(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/a/file"))
    assert ours.startswith("/a/file can't be used: No space left on device; free disk space there")
    java = "An error occurred while calling None.JavaSparkContext.\n: java.io.IOException: "
    theirs = summarize_error(RuntimeError(f"{java}No space left on device\n\tat java.base/java.io"))
    assert theirs == (
        "RuntimeError: java.io.IOException: No space left on device; free disk space, also in"
        " TMPDIR and SPARK_LOCAL_DIRS, then run again"
    )
