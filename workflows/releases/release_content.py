"""What a release consists of, built on this machine: the jobs' zip and an entry for each of them,
the operator's zip, the jars, the batches, and the manifest over them.

In: settings and a git checkout. Out: every file's name and bytes. No cloud is asked. The same
commit and settings give the same bytes everywhere. The version is the commit. A checkout that
differs from its commit is refused, or named `dirty-..` after a hash of what it releases. What goes
to an address that stands in for Google is `local-..` after such a hash: at home other settings are
no reason for a commit.
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
from common.google.clients import required
from config_spark import Settings
from local_runtime.jars import locked_checksums, verify
from workflows.releases.code_archive import ROOT, build_archive, build_operator_archive
from workflows.releases.code_bucket import md5_hash
from workflows.releases.release_batches import batches_document
from workflows.releases.working_tree import look_at
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
"""The workflow's http.get makes a map of application/json alone."""

NO_VERSION = "unnamed"
FETCH = "delete it and run `python run_spark_local.py`, which fetches it"


@dataclass(frozen=True)
class ReleaseContent:
    """A release before it is anywhere; files by name, without the manifest. Its commit is what the
    checkout stands on.
    """

    release: Release
    commit: str
    files: Mapping[str, bytes]

    def manifest(self) -> dict[str, Any]:
        """sha256 in hex proves a file, md5 in base64 is what a bucket's listing can be compared
        with.
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
        return as_json(self.manifest())

    def platform(self) -> dict[str, Any]:
        """Where a run's jobs are by default, and why, as `batches.json` has it."""
        batches = json.loads(self.files[BATCHES])
        return {name: batches.get(name) for name in ("platform", "platform_reason")}


def as_json(document: Any) -> bytes:
    """The same bytes for the same document."""
    return (json.dumps(document, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()


def content_type(name: str) -> str:
    return CONTENT_TYPES[Path(name).suffix]


def build_content(
    settings: Settings, *, allow_dirty: bool = False, root: Path = ROOT
) -> ReleaseContent:
    """Args: allow_dirty releases a checkout that differs from its commit. root is the checkout.

    Raises: ConfigurationError (a setting is missing, a checkout that differs), EnvironmentNotReady
    (a jar is missing or damaged, no git).
    """
    required(settings, "code_bucket", "project_id", "region")
    files = {
        CODE: build_archive(root),
        OPERATOR_CODE: build_operator_archive(root),
        **job_entry_files(),
        **read_jars(settings),
    }
    release = Release(str(settings.code_bucket), NO_VERSION, tuple(locked_checksums()))
    # looked at after the files were read: what was changed in between makes the tree differ
    tree = look_at(root)
    if tree.changes and not allow_dirty:
        shown = ", ".join(line.strip() for line in tree.changes[:3])
        more = f" and {len(tree.changes) - 3} more" if len(tree.changes) > 3 else ""
        raise ConfigurationError(
            f"the checkout differs from commit {tree.commit[:12]}: {shown}{more}; commit it or put"
            " it away, or release it as it is with --allow-dirty"
        )
    version = tree.commit
    if tree.changes or settings.google_api_endpoint:
        everything = {**files, BATCHES: as_json(batches_document(settings, release))}
        version = f"{'dirty' if tree.changes else 'local'}-{_hash_of(everything)[:12]}"
    release = replace(release, version=version)
    files[BATCHES] = as_json(batches_document(settings, release))
    return ReleaseContent(release, tree.commit, files)


def job_entry_files() -> dict[str, bytes]:
    """Return the file that starts each job, by its name in the release."""
    return {
        entry_name(job.name): ENTRY.format(job=job.name, zip=CODE, module=job.module).encode()
        for job in jobs.JOBS
    }


def read_jars(settings: Settings) -> dict[str, bytes]:
    """The locked jars by their names in a release. Raises: EnvironmentNotReady for one that is
    missing or damaged.
    """
    folder = settings.jars_dir or settings.yieldspark_home / "jars"
    checksums = locked_checksums()
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
    """Of everything that is released: other code or other settings are another version."""
    lines = "".join(f"{name} {hashlib.sha256(files[name]).hexdigest()}\n" for name in sorted(files))
    return hashlib.sha256(lines.encode()).hexdigest()
