"""The zip that the jobs run from: all product code, the same bytes for the same files.

Goes in: the checkout. Comes out: one zip with the folders a job imports, at its root. Tests,
benchmarks, samples and the command line stay out.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

from workflows.releases.working_tree import files_of

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("data_processing", "forecasting", "database")
MODULES = (
    "config_spark.py",
    "google_clients.py",
    "job_entry.py",
    "job_log.py",
    "product_errors.py",
    "libpq_variables.py",
    "registry_address.py",
)
EPOCH = (1980, 1, 1, 0, 0, 0)
"""The oldest time a zip can hold: real ones would make two builds of one commit differ."""
UNIX = 3
"""The system that a zip is marked with, whichever it is made on."""


def product_files(root: Path = ROOT) -> list[Path]:
    """Every file of the archive, sorted, relative to `root`. Raises: ConfigurationError where root
    is no git checkout.
    """
    return [Path(name) for name in files_of(root, [*PACKAGES, *MODULES])]


def build_archive(root: Path = ROOT) -> bytes:
    """The archive. Nothing in it comes from the machine: not a file's time, mode or owner, and no
    zlib, whose versions compress differently.

    Raises: OSError where a file can't be read; ConfigurationError where root is no git checkout.
    """
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for name in product_files(root):
            entry = zipfile.ZipInfo(name.as_posix(), date_time=EPOCH)
            entry.create_system = UNIX
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, (root / name).read_bytes())
    return stream.getvalue()
