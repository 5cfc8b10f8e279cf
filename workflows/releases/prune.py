"""Deletes old releases: all but the newest, the one the nightly run takes, the one before it, and
those in use.

In: settings and how many to keep. Out: every version with the reason it stays or what became of it.
A version's manifest is deleted first: what an interrupted `prune` leaves is no whole release, so
that nothing runs it, and the next `prune` deletes the rest. A version that something starts to use
while it is deleted is not noticed: prune when nothing runs and nobody releases.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from common.errors import ConfigurationError, ReleaseConflict
from config_spark import Settings
from workflows.releases.code_bucket import CodeBucket, Listed, Say
from workflows.releases.in_use import versions_in_use
from workflows.releases.release import (
    Document,
    files_by_version,
    named_by,
    newest_first,
    released_at,
    silent,
)
from workflows.spec.release_paths import LATEST, MANIFEST, object_name

UNFINISHED_HOURS = 24
"""How long a version without a manifest may be a release that is still going on."""


@dataclass(frozen=True)
class Candidate:
    """A version in the bucket; released is RFC 3339, UTC; kept is the reason it stays, None: it is
    to be deleted.
    """

    version: str
    released: str
    files: tuple[str, ...]
    bytes: int
    kept: str | None


def prune(
    settings: Settings,
    keep: int,
    *,
    dry_run: bool = False,
    now: datetime | None = None,
    say: Say = silent,
) -> Document:
    """Args: keep is how many of the newest whole releases stay, at least 1. dry_run deletes
    nothing. now (UTC) stands in for the clock.

    Returns: bucket, bytes (of the versions that go), releases, newest first: version, released,
    files, bytes, kept (the reason, or None), deleted.
    Raises: ConfigurationError, ReleaseConflict (latest.json is damaged, or names a version that is
    not there, or moves meanwhile), RunInProgress, CloudRefused, CloudUnavailable.
    """
    bucket = CodeBucket(settings)
    listed = files_by_version(bucket)
    latest = _latest(bucket, listed)
    candidates = plan_prune(
        listed, latest, keep, in_use=versions_in_use(settings), now=now or datetime.now(UTC)
    )
    going = [one for one in candidates if one.kept is None]
    for number, one in enumerate([] if dry_run else going, start=1):
        _delete(bucket, one)
        say(f"{number}/{len(going)} {one.version}")
    return {
        "bucket": bucket.name,
        "bytes": sum(one.bytes for one in going),
        "releases": [
            {
                "version": one.version,
                "released": one.released,
                "files": len(one.files),
                "bytes": one.bytes,
                "kept": one.kept,
                "deleted": one.kept is None and not dry_run,
            }
            for one in candidates
        ],
    }


def plan_prune(
    listed: Mapping[str, Mapping[str, Listed]],
    latest: str | None,
    keep: int,
    *,
    in_use: Mapping[str, str],
    now: datetime,
) -> list[Candidate]:
    """Every version, newest first. Args: listed are the files by version, as a listing has them."""
    ordered = newest_first(listed)
    whole = [version for version in ordered if MANIFEST in listed[version]]
    before = whole[whole.index(latest) + 1 :][:1] if latest in whole else []
    reasons = {
        **dict.fromkeys(whole[:keep], f"one of the newest {keep}"),
        **{
            version: f"without a manifest for less than {UNFINISHED_HOURS} hours"
            for version in ordered
            if version not in whole
            and _age(listed[version], now) < timedelta(hours=UNFINISHED_HOURS)
        },
        **in_use,
        **dict.fromkeys(before, "released before the latest: the way back"),
        **({latest: "the latest"} if latest else {}),
    }
    return [
        Candidate(
            version,
            released_at(listed[version]),
            tuple(listed[version]),
            sum(entry.bytes for entry in listed[version].values()),
            reasons.get(version),
        )
        for version in ordered
    ]


def _age(files: Mapping[str, Listed], now: datetime) -> timedelta:
    return now - datetime.fromisoformat(released_at(files))


def _latest(bucket: CodeBucket, listed: Mapping[str, Mapping[str, Listed]]) -> str | None:
    """What latest.json names. Raises: ConfigurationError, ReleaseConflict where it does not say
    which of the versions must stay.
    """
    latest = named_by(bucket, bucket.read(LATEST))
    if latest is None and listed:
        raise ConfigurationError(
            f"{bucket.where(LATEST)} does not exist, so which of {len(listed)} versions the nightly"
            " run takes is not known; `python -m workflows rollback VERSION` names one"
        )
    if latest and MANIFEST not in listed.get(latest, {}):
        raise ReleaseConflict(
            f"{bucket.where(LATEST)} names {latest}, which is not whole in {bucket.name}; release"
            " again, or `python -m workflows rollback VERSION`, then prune"
        )
    return latest


def _delete(bucket: CodeBucket, one: Candidate) -> None:
    """Raises: ReleaseConflict where the version has become the latest."""
    if named_by(bucket, bucket.read(LATEST)) == one.version:
        raise ReleaseConflict(
            f"{bucket.where(LATEST)} names {one.version} now, which was about to be deleted; prune"
            " again"
        )
    for name in sorted(one.files, key=lambda name: name != MANIFEST):
        bucket.delete(object_name(one.version, name))
