"""Releases in the code bucket: publish the checkout, find a version, list them, go back to one.

In: settings. Out: documents of what is there. A version never changes: its objects are written
once, its manifest last. `latest.json` names one version and is the only object that is ever
replaced, whole, and by the generation that was read before. Whoever is interrupted, at any moment,
leaves it naming a whole release, and the next `publish` of the same commit goes on. Nothing is
copied to a place of the newest: a run reads one version.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from common.errors import ConfigurationError, ReleaseConflict
from config_spark import Settings
from workflows.releases.code_bucket import AlreadyThere, CodeBucket, Content, Listed, Say, md5_hash
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


def silent(line: str) -> None:
    """Says nothing."""


def publish(settings: Settings, *, allow_dirty: bool = False, say: Say = silent) -> Document:
    """Release the checkout: upload what is not there, verify all of it by a listing, then let
    latest.json name it.

    Args: allow_dirty releases a checkout that differs from its commit. say gets lines of progress.
    Returns: version, commit, bucket, files, bytes, platform, platform_reason, uploaded (names),
    previous (what latest.json named before, or None).
    Raises: ConfigurationError, EnvironmentNotReady, ReleaseConflict, CloudRefused,
    CloudUnavailable.
    """
    content = build_content(settings, allow_dirty=allow_dirty)
    for warning in support_warnings(settings):
        say(warning)
    return publish_content(CodeBucket(settings), content, say)


def publish_content(bucket: CodeBucket, content: ReleaseContent, say: Say = silent) -> Document:
    """As `publish`, for what is built already."""
    version, files = content.release.version, {**content.files, MANIFEST: content.manifest_bytes()}
    before = bucket.read(LATEST)
    uploaded = _upload(bucket, version, files, say)
    _require_whole(bucket, version, content.manifest()["files"])
    _move_latest(bucket, version, files[MANIFEST], before)
    total = sum(map(len, files.values()))
    return {
        "version": version,
        "commit": content.commit,
        "bucket": bucket.name,
        "files": len(files),
        "bytes": total,
        **content.platform(),
        "uploaded": uploaded,
        "previous": _previous(bucket, before),
    }


def released(settings: Settings, version: str | None = None) -> Release:
    """A version that is released and whole, as its manifest says; None: the one that latest.json
    names.

    Raises: ConfigurationError (nothing is released, or not this version), ReleaseConflict (a file
    is missing, changed or too many), CloudRefused, CloudUnavailable.
    """
    bucket = CodeBucket(settings)
    latest = None if version else bucket.read(LATEST)
    wanted = version or named_by(bucket, latest)
    if wanted is None:
        raise ConfigurationError(
            f"nothing is released in gs://{bucket.name}; release with `python -m workflows release`"
        )
    manifest = _manifest_of(bucket, wanted)
    if latest and json.loads(latest.bytes).get("manifest_sha256") != _sha256(manifest.bytes):
        raise ReleaseConflict(
            f"{bucket.where(LATEST)} names {wanted} with another manifest than {wanted} has;"
            " release again"
        )
    files = _files(bucket, wanted, manifest)
    _require_whole(bucket, wanted, files)
    return Release(
        bucket.name,
        wanted,
        tuple(name.removeprefix(JARS) for name in files if name.startswith(JARS)),
    )


def read_batches(settings: Settings, release: Release) -> Document:
    """batches.json of a release. Raises: as `released`."""
    bucket = CodeBucket(settings)
    name = object_name(release.version, BATCHES)
    return _document(bucket, name, bucket.read(name), "batches")


def versions(settings: Settings, newest: int | None = None) -> list[Document]:
    """What is in the bucket, newest first: version, released (RFC 3339, UTC), files, bytes, faults
    (empty: whole), latest (whether it is named so).

    Args: newest leaves out all but so many. Raises: ConfigurationError, CloudRefused,
    CloudUnavailable.
    """
    bucket = CodeBucket(settings)
    latest = named_by(bucket, bucket.read(LATEST))
    listed = files_by_version(bucket)
    return [
        _state(bucket, version, listed[version]) | {"latest": version == latest}
        for version in newest_first(listed)[:newest]
    ]


def rollback(settings: Settings, version: str, *, dry_run: bool = False) -> Document:
    """Let latest.json name an earlier version, or a later one again, after looking whether all of
    it is there.

    Args: dry_run looks and moves nothing. Returns: version, previous, moved.
    Raises: as `publish`; ConfigurationError for a version that is not there, with the newest that
    are.
    """
    bucket = CodeBucket(settings)
    before = bucket.read(LATEST)
    manifest = _manifest_of(bucket, version)
    _require_whole(bucket, version, _files(bucket, version, manifest))
    if not dry_run:
        _move_latest(bucket, version, manifest.bytes, before)
    previous = _previous(bucket, before)
    return {"version": version, "previous": previous, "moved": previous != version and not dry_run}


def _upload(bucket: CodeBucket, version: str, files: Mapping[str, bytes], say: Say) -> list[str]:
    """Write the files that are not there, the manifest last; returns their names. Raises:
    ReleaseConflict for one with other bytes.
    """
    there = bucket.listing(object_name(version, ""))
    for name in files:
        if name in there:
            _require_same(bucket, version, name, files[name], there[name])
    missing = [name for name in files if name not in there]
    for number, name in enumerate(missing, start=1):
        try:
            bucket.write(object_name(version, name), files[name], content_type(name), say=say)
        except AlreadyThere:
            # another release of this commit at this moment, or a try of ours whose answer was lost
            _require_same(
                bucket, version, name, files[name], bucket.listing(object_name(version, name))[""]
            )
        say(f"{number}/{len(missing)} {name}")
    return missing


def _require_same(
    bucket: CodeBucket, version: str, name: str, content: bytes, there: Listed
) -> None:
    """Raises: ReleaseConflict naming both hashes, and for batches.json what differs in it."""
    if there.md5 == md5_hash(content):
        return
    where = bucket.where(object_name(version, name))
    hashes = (
        f"{where} has other bytes: its md5 is {there.md5}, and this release's is"
        f" {md5_hash(content)}"
    )
    if name != BATCHES:
        raise ReleaseConflict(f"{hashes}; {NEW_COMMIT}")
    document = _document(
        bucket, object_name(version, name), bucket.read(object_name(version, name))
    )
    found = differences(document, json.loads(content))
    more = f" and {len(found) - SHOWN_DIFFERENCES} more" if len(found) > SHOWN_DIFFERENCES else ""
    raise ReleaseConflict(
        f"{hashes}. It was released with other settings:"
        f" {'; '.join(found[:SHOWN_DIFFERENCES])}{more}. Set them as they were, or {NEW_COMMIT}"
    )


def _require_whole(bucket: CodeBucket, version: str, files: Document) -> None:
    """Raises: ReleaseConflict naming each file that is missing, other, or too many."""
    faults = _faults(files, bucket.listing(object_name(version, "")))
    if faults:
        raise ReleaseConflict(
            f"gs://{bucket.name}/versions/{version} is not whole: {'; '.join(faults)}. Release that"
            " commit again, or another version"
        )


def _faults(files: Document, listed: Mapping[str, Listed]) -> list[str]:
    """Args: files are a manifest's, by name."""
    found = {name: entry for name, entry in listed.items() if name != MANIFEST}
    missing = [f"{name} is missing" for name in sorted(files.keys() - found.keys())]
    extra = [f"{name} is not in the manifest" for name in sorted(found.keys() - files.keys())]
    both = [(name, files[name], found[name]) for name in sorted(files.keys() & found.keys())]
    other = [
        f"{name} has {there.bytes} bytes of md5 {there.md5}, and not {wanted['bytes']} of"
        f" {wanted['md5']}"
        for name, wanted, there in both
        if (there.bytes, there.md5) != (wanted["bytes"], wanted["md5"])
    ]
    return missing + other + extra


def _move_latest(bucket: CodeBucket, version: str, manifest: bytes, before: Content | None) -> None:
    """Let latest.json name this version if it is as it was read. Raises: ReleaseConflict."""
    content = as_json({"version": version, "manifest_sha256": _sha256(manifest)})
    if before is None or before.bytes != content:
        try:
            bucket.write(
                LATEST,
                content,
                content_type(LATEST),
                generation=before.generation if before else 0,
                say=silent,
            )
        except AlreadyThere:
            now = bucket.read(LATEST)
            if now is None or now.bytes != content:
                raise ReleaseConflict(
                    f"another release was faster: {bucket.where(LATEST)} names"
                    f" {named_by(bucket, now)} now. {version} is in the bucket and whole; `python"
                    f" -m workflows rollback {version}` lets it be the latest"
                ) from None


def _previous(bucket: CodeBucket, before: Content | None) -> str | None:
    """What latest.json named; None too where it was damaged, which a release or a rollback
    mends.
    """
    try:
        return named_by(bucket, before)
    except ReleaseConflict:
        return None


def named_by(bucket: CodeBucket, latest: Content | None) -> str | None:
    """The version that latest.json names, None where there is none. Raises: ReleaseConflict for a
    damaged one.
    """
    return str(_document(bucket, LATEST, latest, "version")["version"]) if latest else None


def _manifest_of(bucket: CodeBucket, version: str) -> Content:
    """Raises: ConfigurationError where the version is not there, naming the newest that are."""
    found = bucket.read(object_name(version, MANIFEST))
    if found is None:
        known = newest_first(files_by_version(bucket))
        raise ConfigurationError(
            f"{version} is no released version of gs://{bucket.name}; the newest are:"
            f" {', '.join(known[:SHOWN_VERSIONS]) or 'none'}. `python -m workflows versions` lists"
            " them"
        )
    return found


def _files(bucket: CodeBucket, version: str, manifest: Content) -> Document:
    files: Document = _document(bucket, object_name(version, MANIFEST), manifest, "files")["files"]
    return files


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def files_by_version(bucket: CodeBucket) -> dict[str, dict[str, Listed]]:
    """Every version in the bucket with its files by name, whole or not."""
    found: dict[str, dict[str, Listed]] = {}
    for path, entry in bucket.listing("versions/").items():
        version, _, name = path.partition("/")
        found.setdefault(version, {})[name] = entry
    return found


def newest_first(listed: Mapping[str, Mapping[str, Listed]]) -> list[str]:
    """Versions by the time of their last file."""
    return sorted(listed, key=lambda version: (released_at(listed[version]), version), reverse=True)


def released_at(files: Mapping[str, Listed]) -> str:
    """When its last file came, which is the manifest."""
    return max(entry.created for entry in files.values())


def _state(bucket: CodeBucket, version: str, listed: Mapping[str, Listed]) -> Document:
    if MANIFEST in listed:
        faults = _faults(_files(bucket, version, _manifest_of(bucket, version)), listed)
    else:
        faults = ["it has no manifest: its release was interrupted"]
    total = sum(entry.bytes for entry in listed.values())
    return {
        "version": version,
        "released": released_at(listed),
        "files": len(listed),
        "bytes": total,
        "faults": faults,
    }


def _document(bucket: CodeBucket, name: str, content: Content | None, *fields: str) -> Document:
    """A JSON object with these fields. Raises: ReleaseConflict."""
    try:
        document = json.loads(content.bytes) if content else None
    except ValueError:
        document = None
    if not isinstance(document, dict) or not document.keys() >= set(fields):
        raise ReleaseConflict(
            f"{bucket.where(name)} is damaged: it is no JSON"
            f" object{' with ' + ', '.join(fields) if fields else ''}; release again"
        )
    return document
