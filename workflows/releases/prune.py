"""Deletes old releases. Keeps the newest, the latest and the one before it, and those in use. A
version that a run starts to use while it is deleted is not detected, so prune when nothing runs and
nobody releases.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from common.errors import ConfigurationError, ReleaseConflict
from config_spark import Settings
from workflows.releases.code_bucket import CodeBucket, ObjectInfo, Say
from workflows.releases.in_use import versions_in_use
from workflows.releases.release import no_progress
from workflows.releases.released_versions import (
    files_by_version,
    newest_first,
    released_at,
    version_in_latest,
)
from workflows.spec.release_paths import LATEST, MANIFEST, object_name

UNFINISHED_HOURS = 24
"""How long a version without a manifest may be a release in progress."""


@dataclass(frozen=True)
class Candidate:
    """A version in the bucket.

    Attributes:
        version: Name of the version.
        released: RFC 3339, UTC.
        files: Names of its files.
        bytes: Size of its files.
        kept: Reason to keep it; None if it is to be deleted.
    """

    version: str
    released: str
    files: tuple[str, ...]
    bytes: int
    kept: str | None


@dataclass(frozen=True)
class Pruned:
    """Result of a prune; `candidates` are all versions, newest first."""

    bucket: str
    candidates: tuple[Candidate, ...]
    is_dry_run: bool

    @property
    def bytes(self) -> int:
        """Return the size of the deleted versions; in a dry run of those to be deleted."""
        return sum(candidate.bytes for candidate in self.candidates if candidate.kept is None)

    def payload(self) -> dict[str, Any]:
        """Return the `--json` payload."""
        return {
            "bucket": self.bucket,
            "bytes": self.bytes,
            "releases": [
                {
                    "version": candidate.version,
                    "released": candidate.released,
                    "files": len(candidate.files),
                    "bytes": candidate.bytes,
                    "kept": candidate.kept,
                    "deleted": candidate.kept is None and not self.is_dry_run,
                }
                for candidate in self.candidates
            ],
            "dry_run": self.is_dry_run,
        }


def prune(
    settings: Settings,
    keep: int,
    *,
    dry_run: bool = False,
    now: datetime | None = None,
    say: Say = no_progress,
) -> Pruned:
    """Delete old releases.

    Args:
        settings: Project and CODE_BUCKET.
        keep: Number of newest complete releases to keep, at least 1.
        dry_run: Delete nothing.
        now: Replaces the clock; UTC.
        say: Receives progress lines.

    Raises:
        ConfigurationError: A setting or latest.json is missing.
        ReleaseConflict: latest.json is damaged, names a missing version, or changes meanwhile.
        RunInProgress: An execution does not show its version yet.
        CloudRefused: Google rejected a request.
        CloudUnavailable: Google cannot be reached.
    """
    bucket = CodeBucket(settings)
    files = files_by_version(bucket)
    latest = _latest(bucket, files)
    candidates = plan_prune(
        files, latest, keep, in_use=versions_in_use(settings), now=now or datetime.now(UTC)
    )
    unused = [candidate for candidate in candidates if candidate.kept is None]
    for number, candidate in enumerate([] if dry_run else unused, start=1):
        _delete(bucket, candidate)
        say(f"{number}/{len(unused)} {candidate.version}")
    return Pruned(bucket.name, tuple(candidates), is_dry_run=dry_run)


def plan_prune(
    files: Mapping[str, Mapping[str, ObjectInfo]],
    latest: str | None,
    keep: int,
    *,
    in_use: Mapping[str, str],
    now: datetime,
) -> list[Candidate]:
    """Decide for every version, newest first, whether it is kept.

    Args:
        files: Files of each version, as listed.
        latest: Version in latest.json.
        keep: Number of newest complete releases to keep.
        in_use: Versions in use, with what uses each.
        now: Current time, UTC.
    """
    ordered = newest_first(files)
    complete = [version for version in ordered if MANIFEST in files[version]]
    before = complete[complete.index(latest) + 1 :][:1] if latest in complete else []
    # the last reason of a version is the one that is shown
    reasons = {
        **dict.fromkeys(complete[:keep], f"one of the newest {keep}"),
        **{
            version: f"without a manifest for less than {UNFINISHED_HOURS} hours"
            for version in ordered
            if version not in complete
            and _age(files[version], now) < timedelta(hours=UNFINISHED_HOURS)
        },
        **in_use,
        **dict.fromkeys(before, "kept for a rollback"),
        **({latest: "the latest"} if latest else {}),
    }
    return [_candidate(version, files[version], reasons.get(version)) for version in ordered]


def _candidate(version: str, files: Mapping[str, ObjectInfo], kept: str | None) -> Candidate:
    size = sum(entry.bytes for entry in files.values())
    return Candidate(version, released_at(files), tuple(files), size, kept)


def _age(files: Mapping[str, ObjectInfo], now: datetime) -> timedelta:
    return now - datetime.fromisoformat(released_at(files))


def _latest(bucket: CodeBucket, files: Mapping[str, Mapping[str, ObjectInfo]]) -> str | None:
    """Return the version in latest.json.

    Raises:
        ConfigurationError: latest.json is missing, and there are versions.
        ReleaseConflict: The version is missing or incomplete.
    """
    latest = version_in_latest(bucket, bucket.read(LATEST))
    if latest is None and files:
        raise ConfigurationError(
            f"{bucket.uri(LATEST)} does not exist, so it is unknown which of {len(files)} versions"
            " the daily run uses; `python -m workflows rollback VERSION` selects one"
        )
    if latest and MANIFEST not in files.get(latest, {}):
        raise ReleaseConflict(
            f"{bucket.uri(LATEST)} names {latest}, which is incomplete in {bucket.name}; release"
            " again, or `python -m workflows rollback VERSION`, then prune"
        )
    return latest


def _delete(bucket: CodeBucket, candidate: Candidate) -> None:
    """Delete a version, its manifest first: an interrupted prune leaves an incomplete version,
    which nothing runs and the next prune deletes.

    Raises:
        ReleaseConflict: The version has become the latest.
    """
    if version_in_latest(bucket, bucket.read(LATEST)) == candidate.version:
        raise ReleaseConflict(
            f"{bucket.uri(LATEST)} names {candidate.version} now, which was about to be deleted;"
            " prune again"
        )
    # False sorts first
    for name in sorted(candidate.files, key=lambda name: name != MANIFEST):
        bucket.delete(object_name(candidate.version, name))
