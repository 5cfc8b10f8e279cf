"""Builds the zips of a release, for the jobs and for the operator; equal files give equal bytes.
Both exclude tests, benchmarks, the emulator and the sample, except its pool history. The command
line, reports and cloud commands are in the operator's zip only.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

from common import jobs
from workflows.releases.working_tree import files_of

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("common", "database", "monitoring", "spark")
"""Folders that every job needs, besides the job's own."""
MODULES = (
    "config_spark.py",
    "cli/__init__.py",
    "cli/context.py",
    "cli/job_commands.py",
    "cli/job_script.py",
    "cli/options.py",
    "cli/output.py",
    "cli/run_application.py",
    "cli/terminal.py",
    "sample_data/LICENSE",
    "sample_data/__init__.py",
    "sample_data/pool_history.parquet",
)
"""Files that every job needs: the settings, the jobs' commands, and the transfer panel of the
forecasts with its licence.
"""
OPERATOR_PACKAGES = ("cli", "local_runtime", "reporting", "workflows")

OPERATOR_MAIN = "__main__.py"
"""File that Python runs in a folder or zip."""
OPERATOR_ENTRY = '''"""Runs one command of the operator, out of the folder that this file is in."""

from workflows.commands.allowed_commands import main

if __name__ == "__main__":
    main()
'''

EPOCH = (1980, 1, 1, 0, 0, 0)
"""Earliest time of a zip entry. Real times would make two builds of a commit differ."""
UNIX = 3
"""System code of the zip entries, on every machine."""


def build_archive(root: Path = ROOT) -> bytes:
    """Build the jobs' zip.

    Raises:
        OSError: A file cannot be read.
        ConfigurationError: `root` is not a git checkout.
    """
    return _zip(_contents(root, job_paths()))


def build_operator_archive(root: Path = ROOT) -> bytes:
    """Build the operator's zip: the jobs' code, the commands and their entry point.

    Raises:
        OSError: A file cannot be read.
        ConfigurationError: `root` is not a git checkout.
    """
    paths = [*job_paths(), *OPERATOR_PACKAGES]
    return _zip({**_contents(root, paths), OPERATOR_MAIN: OPERATOR_ENTRY.encode()})


def job_paths() -> list[str]:
    """Return the folders and files of the jobs' archive, as paths below the checkout."""
    return sorted({*PACKAGES, *(job.package for job in jobs.JOBS), *MODULES})


def _contents(root: Path, paths: list[str]) -> dict[str, bytes]:
    return {name: (root / name).read_bytes() for name in files_of(root, paths)}


def _zip(files: Mapping[str, bytes]) -> bytes:
    """Zip files without anything of this machine: times, modes, owners. Entries are stored, because
    zlib's versions compress differently.
    """
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, date_time=EPOCH)
            entry.create_system = UNIX
            # the upper half is the Unix mode
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, files[name])
    return stream.getvalue()
