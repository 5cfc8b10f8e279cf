"""The zip that the jobs run from: all product code, the same bytes for the same files.

Goes in: the checkout. Comes out: one zip with the folders a job imports, at its root. Tests, benchmarks, samples and the command line stay out.
"""

from __future__ import annotations

import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("data_processing", "forecasting", "database")
MODULES = ("config_spark.py", "google_clients.py", "job_entry.py", "job_log.py", "product_errors.py")
EPOCH = (1980, 1, 1, 0, 0, 0)
"""The oldest time a zip can hold: real ones would make two builds of one commit differ."""


def product_files(root: Path = ROOT) -> list[Path]:
    """Every file of the archive, sorted, relative to `root`."""
    packaged = [path for package in PACKAGES for path in (root / package).rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    return sorted([path.relative_to(root) for path in packaged] + [Path(name) for name in MODULES])


def build_archive(target: Path, root: Path = ROOT) -> Path:
    """Write the archive to `target` and return it. Raises: OSError where a file can't be read or written."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in product_files(root):
            entry = zipfile.ZipInfo(name.as_posix(), date_time=EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, (root / name).read_bytes())
    return target
