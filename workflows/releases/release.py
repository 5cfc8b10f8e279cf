"""Changes the releases in the code bucket: publishes the checkout, rolls back.

A released version never changes: its objects are written once, the manifest last. `latest.json`
names one version and is the only object that is replaced, by the generation that was read. An
interrupted release therefore leaves it valid, and the next `publish` of the commit continues.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from common.errors import ReleaseConflict
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
from workflows.releases.released_versions import (
    files_in,
    manifest_of,
    parse_json,
    require_complete,
    sha256,
    version_in_latest,
)
from workflows.spec.release_paths import BATCHES, LATEST, MANIFEST, object_name

SHOWN_DIFFERENCES = 8
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
    platform: str
    platform_reason: str
    uploaded: list[str]
    previous: str | None


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
    require_complete(bucket, version, content.manifest()["files"])
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
    manifest = manifest_of(bucket, version)
    require_complete(bucket, version, files_in(bucket, version, manifest))
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
    released = parse_json(
        bucket, object_name(version, name), bucket.read(object_name(version, name))
    )
    lines = differences(released, json.loads(content))
    more = f" and {len(lines) - SHOWN_DIFFERENCES} more" if len(lines) > SHOWN_DIFFERENCES else ""
    raise ReleaseConflict(
        f"{hashes}. It was released with other settings:"
        f" {'; '.join(lines[:SHOWN_DIFFERENCES])}{more}. Set them as they were, or {NEW_COMMIT}"
    )


def _move_latest(
    bucket: CodeBucket, version: str, manifest: bytes, before: ObjectContent | None
) -> None:
    """Replace latest.json if it is unchanged since it was read.

    Raises:
        ReleaseConflict: Another release was faster.
    """
    content = as_json({"version": version, "manifest_sha256": sha256(manifest)})
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
