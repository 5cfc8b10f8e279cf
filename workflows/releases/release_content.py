"""Builds the files of a release on this machine, without the cloud: zips, job entries, jars,
batches.json and the manifest.

The same commit and settings give the same bytes. The version is the commit, `dirty-<hash>` for a
checkout that differs from it, and `local-<hash>` for an emulator.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from common import jobs
from common.errors import ConfigurationError, EnvironmentNotReady
from common.google.clients import require_settings
from config_spark import Settings
from local_runtime.jars import read_checksums, verify
from spark.jar_sets import jars_folder
from workflows.releases.code_archive import ROOT, build_archive, build_operator_archive
from workflows.releases.code_bucket import md5_hash
from workflows.releases.release_batches import build_batches_json
from workflows.releases.working_tree import read_status
from workflows.spec.platform_choice import PlatformChoice
from workflows.spec.release_paths import (
    BATCHES,
    CODE,
    OPERATOR_CODE,
    Release,
    entry_name,
    jar_name,
)

ENTRY = '''"""Starts {job}, out of {zip} on Python's path."""

import sys

from {module} import main

if __name__ == "__main__":
    sys.exit(main())
'''

CONTENT_TYPES = {
    ".json": "application/json",
    ".py": "text/x-python",
    ".zip": "application/zip",
    ".jar": "application/java-archive",
}
"""The workflow's http.get parses only application/json into a map."""

NO_VERSION = "unnamed"
FETCH = "delete it and run `python run_spark_local.py`, which fetches it"


@dataclass(frozen=True)
class ReleaseContent:
    """A release before it is published.

    Attributes:
        release: Bucket, version and jars.
        commit: Commit of the checkout.
        files: Bytes by name, without the manifest.
    """

    release: Release
    commit: str
    files: Mapping[str, bytes]

    def manifest(self) -> dict[str, Any]:
        """Return size and hashes of every file: SHA-256 (hex) proves a file, MD5 (base64) compares
        it with a listing.
        """
        entries = {
            name: {
                "bytes": len(content),
                "sha256": hashlib.sha256(content).hexdigest(),
                "md5": md5_hash(content),
            }
            for name, content in self.files.items()
        }
        return {"version": self.release.version, "commit": self.commit, "files": entries}

    def manifest_bytes(self) -> bytes:
        """Return the manifest as it is stored; latest.json names its SHA-256."""
        return as_json(self.manifest())

    def default_platform(self) -> PlatformChoice:
        """Return the platform of runs that name none, which batches.json stores."""
        batches = json.loads(self.files[BATCHES])
        return PlatformChoice(batches["platform"], batches["platform_reason"])


def as_json(payload: Any) -> bytes:
    """Serialize a payload; equal payloads give equal bytes."""
    return (json.dumps(payload, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()


def content_type(name: str) -> str:
    """Return the MIME type of a release's file."""
    return CONTENT_TYPES[Path(name).suffix]


def build_content(
    settings: Settings, *, allow_dirty: bool = False, root: Path = ROOT
) -> ReleaseContent:
    """Build a release.

    Args:
        settings: Project, CODE_BUCKET and the jobs' settings.
        allow_dirty: Release a checkout that differs from its commit.
        root: The checkout.

    Raises:
        ConfigurationError: A setting is missing, or the checkout differs.
        EnvironmentNotReady: A jar is missing or damaged, or git is not installed.
    """
    require_settings(settings, "code_bucket", "project_id", "region")
    files = {
        CODE: build_archive(root),
        OPERATOR_CODE: build_operator_archive(root),
        **job_entry_files(),
        **read_jars(settings),
    }
    release = Release(str(settings.code_bucket), NO_VERSION, tuple(read_checksums()))
    # after the files were read, so that a change in between makes the tree differ
    tree = read_status(root)
    if tree.changes and not allow_dirty:
        changes = ", ".join(line.strip() for line in tree.changes[:3])
        more = f" and {len(tree.changes) - 3} more" if len(tree.changes) > 3 else ""
        raise ConfigurationError(
            f"the checkout differs from commit {tree.commit[:12]}: {changes}{more}; commit or"
            " stash the changes, or release them with --allow-dirty"
        )
    version = tree.commit
    if tree.changes or settings.google_api_endpoint:
        # an emulator gets a new version for other settings without a commit
        everything = {**files, BATCHES: as_json(build_batches_json(settings, release))}
        version = f"{'dirty' if tree.changes else 'local'}-{_hash_of(everything)[:12]}"
    release = replace(release, version=version)
    files[BATCHES] = as_json(build_batches_json(settings, release))
    return ReleaseContent(release, tree.commit, files)


def job_entry_files() -> dict[str, bytes]:
    """Return the file that starts each job, by its name in the release."""
    return {
        entry_name(job.name): ENTRY.format(job=job.name, zip=CODE, module=job.module).encode()
        for job in jobs.JOBS
    }


def read_jars(settings: Settings) -> dict[str, bytes]:
    """Return the locked jars by their names in a release.

    Raises:
        EnvironmentNotReady: A jar is missing or damaged.
    """
    folder = jars_folder(settings)
    checksums = read_checksums()
    missing = [name for name in checksums if not (folder / name).is_file()]
    if missing:
        raise EnvironmentNotReady(
            f"{', '.join(missing)} not in {folder}, and a release needs all jars; fetch them:"
            " python run_spark_local.py"
        )
    for name, checksum in checksums.items():
        verify(folder / name, checksum, FETCH)
    return {jar_name(name): (folder / name).read_bytes() for name in checksums}


def _hash_of(files: Mapping[str, bytes]) -> str:
    """Hash all files: other code or settings make another version."""
    lines = "".join(f"{name} {hashlib.sha256(files[name]).hexdigest()}\n" for name in sorted(files))
    return hashlib.sha256(lines.encode()).hexdigest()
