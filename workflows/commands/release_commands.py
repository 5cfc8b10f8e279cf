"""`release`, `versions`, `rollback` and `prune`: manage the versions of the code in the bucket."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from typing import Annotated, Any

import typer

from cli.options import AsJson, load_command_settings
from cli.terminal import print_json, print_pairs, print_table, say
from workflows.commands.app import app
from workflows.releases import prune as pruning
from workflows.releases import release as releases
from workflows.releases import released_versions
from workflows.releases.release_batches import support_warnings
from workflows.releases.release_content import ReleaseContent, build_content
from workflows.spec.release_paths import MANIFEST

AllowDirty = Annotated[
    bool,
    typer.Option(
        "--allow-dirty",
        help="Release a checkout with uncommitted changes, under a name of its own.",
    ),
]


@app.command()
def release(
    allow_dirty: AllowDirty = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Build the release and list its files without contacting the bucket."
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Publish the current commit as a version, and make the daily run use it.

    Example: python -m workflows release --dry-run
    """
    settings = load_command_settings()
    if dry_run:
        summary = planned_release(build_content(settings, allow_dirty=allow_dirty))
        for warning in support_warnings(settings):
            say(warning)
        print_json(summary) if as_json else _print_plan(summary)
        return
    published = releases.publish(settings, allow_dirty=allow_dirty, say=say)
    values = asdict(published)
    if as_json:
        print_json(values)
    else:
        print_pairs(values | {"uploaded": len(published.uploaded)})


@app.command()
def versions(
    newest: Annotated[int, typer.Option(min=1, help="Maximum number of versions to show.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List published versions, newest first, the one in use, and whether each is complete.

    Example: python -m workflows versions
    """
    entries = released_versions.versions(load_command_settings(), newest)
    if as_json:
        print_json([asdict(entry) for entry in entries])
        return
    rows = [
        [
            entry.version,
            entry.released,
            entry.files,
            entry.bytes / 1e6,
            entry.latest,
            "; ".join(entry.faults) or "yes",
        ]
        for entry in entries
    ]
    print_table(["version", "released", "files", "MB", "latest", "whole"], rows)


@app.command()
def rollback(
    version: Annotated[str, typer.Argument(help="Version, as listed by `versions`.")],
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Check that the version is complete, without changing anything."
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make the daily run use another published version, if it is complete.

    Example: python -m workflows rollback 1f0e7c9b2a6d4e8f3c5a7b9d1e2f4a6c8b0d2e4f
    """
    summary = asdict(releases.rollback(load_command_settings(), version, dry_run=dry_run))
    print_json(summary) if as_json else print_pairs(summary)


@app.command()
def prune(
    keep: Annotated[int, typer.Option(min=1, help="Number of newest releases to keep.")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the files without deleting them.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Delete old releases; the latest two and those in use are kept.

    Example: python -m workflows prune --keep 10 --dry-run
    """
    pruned = pruning.prune(load_command_settings(), keep, dry_run=dry_run, say=say)
    if as_json:
        print_json(pruned.payload())
        return
    fate = "would be deleted" if dry_run else "deleted"
    rows = [
        [
            candidate.version,
            candidate.released,
            len(candidate.files),
            candidate.bytes / 1e6,
            candidate.kept or fate,
        ]
        for candidate in pruned.candidates
    ]
    print_table(["version", "released", "files", "MB", "it is"], rows)


def planned_release(content: ReleaseContent) -> dict[str, Any]:
    """Summarize what a release would upload.

    Returns:
        `{"version", "commit", "bucket", "bytes", "platform", "platform_reason", "files": [{"name",
        "bytes", "sha256"}]}`.
    """
    # in the order of the upload
    files = {**content.files, MANIFEST: content.manifest_bytes()}
    default = content.default_platform()
    return {
        "version": content.release.version,
        "commit": content.commit,
        "bucket": content.release.bucket,
        "bytes": sum(map(len, files.values())),
        "platform": default.platform,
        "platform_reason": default.reason,
        "files": [
            {
                "name": name,
                "bytes": len(file_bytes),
                "sha256": hashlib.sha256(file_bytes).hexdigest(),
            }
            for name, file_bytes in files.items()
        ],
    }


def _print_plan(plan: dict[str, Any]) -> None:
    print_table(
        ["file", "bytes", "sha256"],
        [[file["name"], file["bytes"], file["sha256"]] for file in plan["files"]],
    )
    print_pairs({name: value for name, value in plan.items() if name != "files"})
