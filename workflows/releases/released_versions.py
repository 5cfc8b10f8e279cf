"""Reads the versions in the code bucket: finds one, lists all, compares files with a manifest.

Writes nothing. Raises the errors of `CodeBucket` and ReleaseConflict for damaged files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from common.errors import ConfigurationError, ReleaseConflict
from config_spark import Settings
from workflows.releases.code_bucket import CodeBucket, ObjectContent, ObjectInfo
from workflows.spec.release_paths import (
    BATCHES,
    LATEST,
    MANIFEST,
    Release,
    jar_name,
    object_name,
)

Document = dict[str, Any]

SHOWN_VERSIONS = 5
JARS = jar_name("")


@dataclass(frozen=True)
class ReleasedVersion:
    """A version in the bucket; `--json` prints the fields in this order.

    Attributes:
        version: Name of the version.
        released: When its last file was written, RFC 3339, UTC.
        files: Number of files.
        bytes: Size of all files.
        faults: A message for each file that differs from the manifest; empty if complete.
        latest: Whether latest.json names it.
    """

    version: str
    released: str
    files: int
    bytes: int
    faults: list[str]
    latest: bool


def find_release(settings: Settings, version: str | None = None) -> Release:
    """Return a complete version.

    Args:
        settings: Project and CODE_BUCKET.
        version: Name of the version; default: the one in latest.json.

    Raises:
        ConfigurationError: There is no release, or not this version.
        ReleaseConflict: A file is missing, changed or unexpected.
        CloudRefused: Google rejected a request.
        CloudUnavailable: Google cannot be reached.
    """
    bucket = CodeBucket(settings)
    latest = None if version else bucket.read(LATEST)
    name = version or version_in_latest(bucket, latest)
    if name is None:
        raise ConfigurationError(
            f"nothing is released in gs://{bucket.name}; release with `python -m workflows release`"
        )
    manifest = manifest_of(bucket, name)
    if latest and json.loads(latest.bytes).get("manifest_sha256") != sha256(manifest.bytes):
        raise ReleaseConflict(
            f"{bucket.uri(LATEST)} names {name} with another manifest than {name} has;"
            " release again"
        )
    files = files_in(bucket, name, manifest)
    require_complete(bucket, name, files)
    return Release(
        bucket.name,
        name,
        # from the version and not from this checkout, which may have other jars
        tuple(name.removeprefix(JARS) for name in files if name.startswith(JARS)),
    )


def read_batches(settings: Settings, release: Release) -> Document:
    """Return batches.json of a release.

    Raises:
        ReleaseConflict: It is damaged.
    """
    bucket = CodeBucket(settings)
    name = object_name(release.version, BATCHES)
    return parse_json(bucket, name, bucket.read(name), "batches")


def versions(settings: Settings, newest: int | None = None) -> list[ReleasedVersion]:
    """List the versions in the bucket, newest first.

    Args:
        settings: Project and CODE_BUCKET.
        newest: Maximum number of versions.

    Raises:
        ConfigurationError: A setting is missing.
        CloudRefused: Google rejected a request.
        CloudUnavailable: Google cannot be reached.
    """
    bucket = CodeBucket(settings)
    latest = version_in_latest(bucket, bucket.read(LATEST))
    files = files_by_version(bucket)
    return [
        _state(bucket, version, files[version], is_latest=version == latest)
        for version in newest_first(files)[:newest]
    ]


def version_in_latest(bucket: CodeBucket, latest: ObjectContent | None) -> str | None:
    """Return the version that latest.json names; None without latest.json.

    Raises:
        ReleaseConflict: latest.json is damaged.
    """
    return str(parse_json(bucket, LATEST, latest, "version")["version"]) if latest else None


def require_complete(bucket: CodeBucket, version: str, files: Document) -> None:
    """Check the files in the bucket against a manifest.

    Raises:
        ReleaseConflict: A file is missing, changed or unexpected.
    """
    faults = _faults(files, bucket.listing(object_name(version, "")))
    if faults:
        raise ReleaseConflict(
            f"gs://{bucket.name}/versions/{version} is incomplete: {'; '.join(faults)}. Release"
            " that commit again, or another version"
        )


def manifest_of(bucket: CodeBucket, version: str) -> ObjectContent:
    """Read a version's manifest.

    Raises:
        ConfigurationError: The version does not exist; names the newest ones.
    """
    manifest = bucket.read(object_name(version, MANIFEST))
    if manifest is None:
        names = newest_first(files_by_version(bucket))
        raise ConfigurationError(
            f"{version} is no released version of gs://{bucket.name}; the newest are:"
            f" {', '.join(names[:SHOWN_VERSIONS]) or 'none'}. `python -m workflows versions` lists"
            " them"
        )
    return manifest


def files_in(bucket: CodeBucket, version: str, manifest: ObjectContent) -> Document:
    """Return the files of a manifest: `bytes`, `sha256` and `md5` by name.

    Raises:
        ReleaseConflict: The manifest is damaged.
    """
    files: Document = parse_json(bucket, object_name(version, MANIFEST), manifest, "files")["files"]
    return files


def files_by_version(bucket: CodeBucket) -> dict[str, dict[str, ObjectInfo]]:
    """Return every version in the bucket, complete or not, with its files by name."""
    files: dict[str, dict[str, ObjectInfo]] = {}
    for path, entry in bucket.listing("versions/").items():
        version, _, name = path.partition("/")
        files.setdefault(version, {})[name] = entry
    return files


def newest_first(files: Mapping[str, Mapping[str, ObjectInfo]]) -> list[str]:
    """Sort versions by the time of their last file."""
    return sorted(files, key=lambda version: (released_at(files[version]), version), reverse=True)


def released_at(files: Mapping[str, ObjectInfo]) -> str:
    """Return when a version's last file, its manifest, was written."""
    return max(entry.created for entry in files.values())


def _faults(files: Document, listed: Mapping[str, ObjectInfo]) -> list[str]:
    """Describe each file that differs from the manifest's `files`."""
    # a manifest cannot have its own hash; latest.json has it
    present = {name: entry for name, entry in listed.items() if name != MANIFEST}
    missing = [f"{name} is missing" for name in sorted(files.keys() - present.keys())]
    extra = [f"{name} is not in the manifest" for name in sorted(present.keys() - files.keys())]
    both = [(name, files[name], present[name]) for name in sorted(files.keys() & present.keys())]
    other = [
        f"{name} has {entry.bytes} bytes of md5 {entry.md5}, and not {expected['bytes']} of"
        f" {expected['md5']}"
        for name, expected, entry in both
        if (entry.bytes, entry.md5) != (expected["bytes"], expected["md5"])
    ]
    return missing + other + extra


def _state(
    bucket: CodeBucket, version: str, listed: Mapping[str, ObjectInfo], *, is_latest: bool
) -> ReleasedVersion:
    if MANIFEST in listed:
        faults = _faults(files_in(bucket, version, manifest_of(bucket, version)), listed)
    else:
        faults = ["no manifest: its release was interrupted"]
    return ReleasedVersion(
        version=version,
        released=released_at(listed),
        files=len(listed),
        bytes=sum(entry.bytes for entry in listed.values()),
        faults=faults,
        latest=is_latest,
    )


def parse_json(
    bucket: CodeBucket, name: str, content: ObjectContent | None, *fields: str
) -> Document:
    """Parse a JSON object with these fields.

    Raises:
        ReleaseConflict: It is damaged.
    """
    try:
        payload = json.loads(content.bytes) if content else None
    except ValueError:
        payload = None
    if not isinstance(payload, dict) or not payload.keys() >= set(fields):
        raise ReleaseConflict(
            f"{bucket.uri(name)} is damaged: it is no JSON"
            f" object{' with ' + ', '.join(fields) if fields else ''}; release again"
        )
    return payload


def sha256(content: bytes) -> str:
    """Return the hexadecimal digest."""
    return hashlib.sha256(content).hexdigest()
