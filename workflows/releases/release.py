"""Releases in the code bucket: publish the checkout, find a version, list versions, roll back.

A released version never changes: its objects are written once, the manifest last. `latest.json`
names one version and is the only object that is replaced, by the generation that was read. An
interrupted release therefore leaves it valid, and the next `publish` of the commit continues.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from common.errors import ConfigurationError, ReleaseConflict
from config_spark import Settings
from workflows.releases.code_bucket import (
    CodeBucket,
    ObjectContent,
    ObjectInfo,
    PreconditionFailed,
    Say,
    md5_hash,
)
from workflows.releases.release_batches import differences, support_warnings
from workflows.releases.release_content import ReleaseContent, as_json, build_content, content_type
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
SHOWN_DIFFERENCES = 8
JARS = jar_name("")
NEW_COMMIT = "a released version never changes: make a commit, and release that"


@dataclass(frozen=True)
class PublishedRelease:
    """A release that was published; `--json` prints the fields in this order.

    Attributes:
        version: Name of the version.
        commit: Commit of the checkout.
        bucket: Name of the bucket.
        files: Number of files, with the manifest.
        bytes: Size of all files.
        platform: Default platform of its runs.
        platform_reason: Reason for the platform.
        uploaded: Names of the files that the bucket lacked.
        previous: Version that latest.json named before; None without a readable one.
    """

    version: str
    commit: str
    bucket: str
    files: int
    bytes: int
    platform: str | None
    platform_reason: str | None
    uploaded: list[str]
    previous: str | None


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


@dataclass(frozen=True)
class Rollback:
    """A change of latest.json; `moved` is False for a dry run or the version it named already."""

    version: str
    previous: str | None
    moved: bool


def no_progress(line: str) -> None:
    """Discard a progress line."""


def publish(
    settings: Settings, *, allow_dirty: bool = False, say: Say = no_progress
) -> PublishedRelease:
    """Release the checkout: upload missing files, verify all of them, then update latest.json.

    Args:
        settings: Project, CODE_BUCKET and the jobs' settings.
        allow_dirty: Release a checkout that differs from its commit.
        say: Receives progress lines.

    Raises:
        ConfigurationError: A setting is missing or the checkout differs.
        EnvironmentNotReady: A jar, git or credentials are missing.
        ReleaseConflict: The version exists with other files.
        CloudRefused: Google rejected a request.
        CloudUnavailable: Google cannot be reached.
    """
    content = build_content(settings, allow_dirty=allow_dirty)
    for warning in support_warnings(settings):
        say(warning)
    return publish_content(CodeBucket(settings), content, say)


def publish_content(
    bucket: CodeBucket, content: ReleaseContent, say: Say = no_progress
) -> PublishedRelease:
    """Publish a built release; as `publish`."""
    version, files = content.release.version, {**content.files, MANIFEST: content.manifest_bytes()}
    # before the upload: the write below fails if another release replaces latest.json meanwhile
    before = bucket.read(LATEST)
    uploaded = _upload(bucket, version, files, say)
    _require_complete(bucket, version, content.manifest()["files"])
    _move_latest(bucket, version, files[MANIFEST], before)
    default = content.default_platform()
    return PublishedRelease(
        version=version,
        commit=content.commit,
        bucket=bucket.name,
        files=len(files),
        bytes=sum(map(len, files.values())),
        platform=default.platform,
        platform_reason=default.reason,
        uploaded=uploaded,
        previous=_previous(bucket, before),
    )


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
    manifest = _manifest_of(bucket, name)
    if latest and json.loads(latest.bytes).get("manifest_sha256") != _sha256(manifest.bytes):
        raise ReleaseConflict(
            f"{bucket.uri(LATEST)} names {name} with another manifest than {name} has;"
            " release again"
        )
    files = _files(bucket, name, manifest)
    _require_complete(bucket, name, files)
    return Release(
        bucket.name,
        name,
        tuple(name.removeprefix(JARS) for name in files if name.startswith(JARS)),
    )


def read_batches(settings: Settings, release: Release) -> Document:
    """Return batches.json of a release.

    Raises:
        ReleaseConflict: It is damaged.
    """
    bucket = CodeBucket(settings)
    name = object_name(release.version, BATCHES)
    return _parse_json(bucket, name, bucket.read(name), "batches")


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


def rollback(settings: Settings, version: str, *, dry_run: bool = False) -> Rollback:
    """Make latest.json name another complete version, earlier or later.

    Args:
        settings: Project and CODE_BUCKET.
        version: Name of the version.
        dry_run: Check the version and change nothing.

    Raises:
        ConfigurationError: The version does not exist; names the newest ones.
        ReleaseConflict: The version is incomplete, or latest.json changed meanwhile.
    """
    bucket = CodeBucket(settings)
    before = bucket.read(LATEST)
    manifest = _manifest_of(bucket, version)
    _require_complete(bucket, version, _files(bucket, version, manifest))
    if not dry_run:
        _move_latest(bucket, version, manifest.bytes, before)
    previous = _previous(bucket, before)
    return Rollback(version, previous, moved=previous != version and not dry_run)


def _upload(bucket: CodeBucket, version: str, files: Mapping[str, bytes], say: Say) -> list[str]:
    """Write the missing files, the manifest last, and return their names.

    Raises:
        ReleaseConflict: A file exists with other bytes.
    """
    existing = bucket.listing(object_name(version, ""))
    for name in files:
        if name in existing:
            _require_same(bucket, version, name, files[name], existing[name])
    # `files` has the manifest last, which makes the version complete
    missing = [name for name in files if name not in existing]
    for number, name in enumerate(missing, start=1):
        try:
            bucket.write(object_name(version, name), files[name], content_type(name), say=say)
        except PreconditionFailed:
            # a concurrent release of this commit, or an earlier try whose response was lost
            _require_same(
                bucket, version, name, files[name], bucket.listing(object_name(version, name))[""]
            )
        say(f"{number}/{len(missing)} {name}")
    return missing


def _require_same(
    bucket: CodeBucket, version: str, name: str, content: bytes, existing: ObjectInfo
) -> None:
    """Compare an existing file with this release's.

    Raises:
        ReleaseConflict: They differ; names both hashes and, for batches.json, the values.
    """
    if existing.md5 == md5_hash(content):
        return
    uri = bucket.uri(object_name(version, name))
    hashes = (
        f"{uri} has other bytes: its md5 is {existing.md5}, and this release's is"
        f" {md5_hash(content)}"
    )
    if name != BATCHES:
        raise ReleaseConflict(f"{hashes}; {NEW_COMMIT}")
    released = _parse_json(
        bucket, object_name(version, name), bucket.read(object_name(version, name))
    )
    lines = differences(released, json.loads(content))
    more = f" and {len(lines) - SHOWN_DIFFERENCES} more" if len(lines) > SHOWN_DIFFERENCES else ""
    raise ReleaseConflict(
        f"{hashes}. It was released with other settings:"
        f" {'; '.join(lines[:SHOWN_DIFFERENCES])}{more}. Set them as they were, or {NEW_COMMIT}"
    )


def _require_complete(bucket: CodeBucket, version: str, files: Document) -> None:
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


def _faults(files: Document, listed: Mapping[str, ObjectInfo]) -> list[str]:
    """Describe each file that differs from the manifest's `files`."""
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


def _move_latest(
    bucket: CodeBucket, version: str, manifest: bytes, before: ObjectContent | None
) -> None:
    """Replace latest.json if it is unchanged since it was read.

    Raises:
        ReleaseConflict: Another release was faster.
    """
    content = as_json({"version": version, "manifest_sha256": _sha256(manifest)})
    if before is None or before.bytes != content:
        try:
            bucket.write(
                LATEST,
                content,
                content_type(LATEST),
                generation=before.generation if before else 0,
                say=no_progress,
            )
        except PreconditionFailed:
            # an earlier try of this write, whose response was lost, has the same bytes
            now = bucket.read(LATEST)
            if now is None or now.bytes != content:
                raise ReleaseConflict(
                    f"another release was faster: {bucket.uri(LATEST)} names"
                    f" {version_in_latest(bucket, now)} now. {version} is complete in the bucket;"
                    f" `python -m workflows rollback {version}` makes it the latest"
                ) from None


def _previous(bucket: CodeBucket, before: ObjectContent | None) -> str | None:
    """Return the version that latest.json named; None also if it was damaged, which a release or
    rollback repairs.
    """
    try:
        return version_in_latest(bucket, before)
    except ReleaseConflict:
        return None


def version_in_latest(bucket: CodeBucket, latest: ObjectContent | None) -> str | None:
    """Return the version that latest.json names; None without latest.json.

    Raises:
        ReleaseConflict: latest.json is damaged.
    """
    return str(_parse_json(bucket, LATEST, latest, "version")["version"]) if latest else None


def _manifest_of(bucket: CodeBucket, version: str) -> ObjectContent:
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


def _files(bucket: CodeBucket, version: str, manifest: ObjectContent) -> Document:
    files: Document = _parse_json(bucket, object_name(version, MANIFEST), manifest, "files")[
        "files"
    ]
    return files


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


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


def _state(
    bucket: CodeBucket, version: str, listed: Mapping[str, ObjectInfo], *, is_latest: bool
) -> ReleasedVersion:
    if MANIFEST in listed:
        faults = _faults(_files(bucket, version, _manifest_of(bucket, version)), listed)
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


def _parse_json(
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
