"""The zips that a release runs from, the jobs' and the operator's: the same bytes for the same
files.

Goes in: the checkout. Comes out: a zip with the folders that are imported, at its root. Tests,
benchmarks, samples and the local cloud stay out of both; command line, reports, this machine's care
and the cloud's commands are in the operator's alone.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

from common import jobs
from workflows.releases.working_tree import files_of

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("common", "database", "spark")
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
)
"""Files that every job needs: the settings, and the jobs' commands."""
OPERATOR_PACKAGES = ("cli", "local_runtime", "reporting", "workflows")

OPERATOR_MAIN = "__main__.py"
"""What Python runs of a folder or a zip."""
OPERATOR_ENTRY = '''"""Runs one command of the operator, out of the folder that this file is in."""

from workflows.commands.allowed_commands import main

if __name__ == "__main__":
    main()
'''

EPOCH = (1980, 1, 1, 0, 0, 0)
"""The oldest time a zip can hold: real ones would make two builds of one commit differ."""
UNIX = 3
"""The system that a zip is marked with, whichever it is made on."""


def build_archive(root: Path = ROOT) -> bytes:
    """The jobs' archive. Raises: OSError where a file can't be read; ConfigurationError where root
    is no git checkout.
    """
    return _zipped(_contents(root, job_paths()))


def build_operator_archive(root: Path = ROOT) -> bytes:
    """The operator's archive: the jobs' code, the commands around it, and what starts one. Raises:
    as `build_archive`.
    """
    paths = [*job_paths(), *OPERATOR_PACKAGES]
    return _zipped({**_contents(root, paths), OPERATOR_MAIN: OPERATOR_ENTRY.encode()})


def job_paths() -> list[str]:
    """Return the folders and files of the jobs' archive, as paths below the checkout."""
    return sorted({*PACKAGES, *(job.package for job in jobs.JOBS), *MODULES})


def _contents(root: Path, paths: list[str]) -> dict[str, bytes]:
    return {name: (root / name).read_bytes() for name in files_of(root, paths)}


def _zipped(files: Mapping[str, bytes]) -> bytes:
    """Nothing in it comes from the machine: not a file's time, mode or owner, and no zlib, whose
    versions compress differently.
    """
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, date_time=EPOCH)
            entry.create_system = UNIX
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, files[name])
    return stream.getvalue()
